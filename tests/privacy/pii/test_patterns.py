"""Numbers, addresses and words with a form are found, and look-alikes are left."""

import time

import pytest

from privacy.pii import rules
from privacy.pii.errors import RedactionUnavailable
from privacy.pii.patterns import PatternDetector
from privacy.pii.rules import rule
from privacy.pii.rules_numbers import iban_checks, luhn
from privacy.pii.rules_zh import resident_id_checks
from tests.privacy.pii.places import found_over

DETECTOR = PatternDetector()

FOUND = [
    ("PHONE_NUMBER", "Call {} now", "(555) 123-4567"),
    ("PHONE_NUMBER", "Call {} now", "760.583.7783"),
    ("PHONE_NUMBER", "Call {} now", "+1-537-640-6812x41586"),
    ("PHONE_NUMBER", "or {}", "001-234-555-0123x1234"),
    ("PHONE_NUMBER", "{}", "+44(0)117 496 0533"),
    ("PHONE_NUMBER", "at {}.", "(01632) 960868"),
    ("PHONE_NUMBER", "at {}.", "0151 496 0083"),
    ("PHONE_NUMBER", "my mobile is {}", "8828406905"),
    ("PHONE_NUMBER", "手机{}谢谢", "15922830388"),
    ("PHONE_NUMBER", "手机{}谢谢", "+86 138-0013-8000"),
    ("PHONE_NUMBER", "座机{}。", "010-62785001"),
    ("PHONE_NUMBER", "电话{}", "１３８００１３８０００"),
    ("CREDIT_CARD", "card {} expired", "4111 1111 1111 1111"),
    ("CREDIT_CARD", "card {} expired", "371185788024842"),
    ("CREDIT_CARD", "card {} expired", "4185788024845936866"),
    ("CREDIT_CARD", "card {} expired", "4111-1111-1111-1112"),
    ("CREDIT_CARD", "银行卡{}已退款", "6222021234567890123"),
    ("IBAN_CODE", "to {} please", "GB82 WEST 1234 5698 7654 32"),
    ("IBAN_CODE", "to {} please", "DE89370400440532013000"),
    ("IBAN_CODE", "账户{}。", "GB42IGZT8754283433514"),
    ("BANK_ACCOUNT", "account number {} at the branch", "12345678"),
    ("NATIONAL_ID", "SSN {}", "804-80-8896"),
    ("NATIONAL_ID", "NI {} .", "ZZ 83 45 98 T"),
    ("NATIONAL_ID", "NI {} .", "ZZ555143T"),
    ("NATIONAL_ID", "身份证号{}，", "410602195604052173"),
    ("NATIONAL_ID", "身份证号{}，", "37070219691114848X"),
    ("PASSPORT", "passport {}", "D26901841"),
    ("ID_NUMBER", "please reset {} today", "EMP-53075"),
    ("ID_NUMBER", "my personnel no. {}", "88213"),
    ("ID_NUMBER", "工号{}，谢谢", "12345"),
    ("EMAIL_ADDRESS", "write {}, thanks", "o'neil+tag@mail.corp.example"),
    ("EMAIL_ADDRESS", "写信给{}即可", "tao12@example.org"),
    ("EMAIL_ADDRESS", "root is {} here", "root@db01"),
    ("EMAIL_ADDRESS", "write {}, thanks", "jörg.müller@straße.example"),
    ("IP_ADDRESS", "from {}:", "192.168.17.4"),
    ("IP_ADDRESS", "from {} .", "2001:db8::8a2e:370:7334"),
    ("URL", "see {}.", "https://intranet.example/p?id=7"),
    ("ADDRESS", "Ship to {} today", "41925 Jones Estate Suite 824\nShawnmouth, NM 62599"),
    ("ADDRESS", "Ship to {} today", "USCGC Bush\nFPO AP 56424"),
    ("ADDRESS", "Ship to {} today", "Flat 97G\nWright Bypass\nSmithfurt\nSG25 1TW"),
    ("ADDRESS", "Ship to {} today", "657 Pauline Cape, Geraldineshire, S2C 0HX"),
    ("ADDRESS", "地址：{}。", "陕西省琴县孝南贾街B座 975983"),
    ("ADDRESS", "地址：{}。", "上海市浦东新区张江镇蔡伦路88弄6号302室"),
    ("DATE_OF_BIRTH", "born on {} in", "12 March 1980"),
    ("DATE_OF_BIRTH", "出生日期：{}", "1980年3月12日"),
    ("LICENSE_PLATE", "车牌{}停车", "京A12345"),
    ("SECRET", "key {}", "sk-abcdefghijklmnop1234"),
    ("PERSON", "联系人：{}，谢谢", "欧阳娜娜"),
]


@pytest.mark.parametrize(("entity", "frame", "value"), FOUND)
def test_values_are_found_whole(entity: str, frame: str, value: str) -> None:
    """Every character of the value is covered, under the right name."""
    assert found_over(DETECTOR, frame, value) == [(0, len(value), entity)]


@pytest.mark.parametrize(
    "text",
    [
        "The budget for 2026 is 1,250,000.50 in total.",
        "Meeting on 2026-03-14 at 10:30, room plan v2.10.3.",
        "From 2019-2024 revenue rose 12.5%.",
        "Restart the printer, then clear the queue.",
        "Error 0x80070005 in line 1024 of main.py",
        "预算为1250000元，会议在2026年3月14日10:30。",
        "请重置我的密码，谢谢。",
        "I will see you in may; grace period is 30 days.",
        "We opened 5 cases on the road to 3 new markets.",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    """Amounts, dates, versions and everyday words are no personal data."""
    assert DETECTOR.detect(text) == ()


def test_it_says_that_it_does_not_cover_names() -> None:
    """The pattern detector states its weakness where callers can check it."""
    assert PatternDetector.covers_names is False
    assert DETECTOR.detect("Ruth met Geoffrey at noon") == ()


def test_check_digits() -> None:
    """Published examples pass, and one changed digit fails."""
    assert luhn("4111111111111111")
    assert not luhn("4111111111111112")
    assert iban_checks("GB82WEST12345698765432")
    assert not iban_checks("GB82WEST12345698765433")
    assert resident_id_checks("11010519491231002X")
    assert not resident_id_checks("110105194912310021")


def test_a_slow_pattern_refuses_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern that runs out of time refuses the text and does not quote it."""
    monkeypatch.setattr(rules, "_SECONDS", 0.05)
    slow = rule("ID_NUMBER", r"(?:a|a|aa)+b", 0.9)
    with pytest.raises(RedactionUnavailable) as caught:
        rules.find_all([slow], "a" * 5_000)
    assert "aaa" not in str(caught.value)


@pytest.mark.parametrize(
    "unit",
    ["1", "1 ", "a", "A ", "a.", "1-", "Aa ", "@", "a@", "中", "省市", "1a:", "< ", "http://"],
)
def test_time_grows_with_length_only(unit: str) -> None:
    """Long runs of one kind, made to confuse patterns, are read in a bounded time."""
    text = unit * (20_000 // len(unit))
    began = time.process_time()
    DETECTOR.detect(text)
    assert time.process_time() - began < 4


def test_patterns_are_ascii_bounded() -> None:
    """No rule depends on a boundary that Chinese characters do not make."""
    from privacy.pii.patterns import RULES

    assert all(r"\b" not in one.pattern.pattern for one in RULES)
