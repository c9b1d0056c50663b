"""Rules for Chinese text: numbers of people, documents and accounts, handles, dates and ages.

Patterns are written for simplified and traditional characters. Checksums raise a
score and never gate it. Most texts hold few digits, so rules are tried in groups
and a group only where its least condition occurs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import regex

from privacy.pii.addresses_zh import ADDRESS_RULES
from privacy.pii.cues_zh import CUES, VALUE_START, AfterCues, bank_card
from privacy.pii.entities import Span
from privacy.pii.names_zh import HAN_NAME_RULES, PINYIN_RULES
from privacy.pii.rules import HAN_RANGES, LEFT, LETTERS, RIGHT, Check, Rule, time_limit
from privacy.pii.scripts import HAN

_WEIGHTS: Final = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CREDIT_CODE: Final = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_REGIONS: Final = frozenset(
    [
        "11",
        "12",
        "13",
        "14",
        "15",
        "21",
        "22",
        "23",
        "31",
        "32",
        "33",
        "34",
        "35",
        "36",
        "37",
        "41",
        "42",
        "43",
        "44",
        "45",
        "46",
        "50",
        "51",
        "52",
        "53",
        "54",
        "61",
        "62",
        "63",
        "64",
        "65",
        "71",
        "81",
        "82",
        "83",
    ]
)
_BIRTH: Final = r"(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])"
_DATED: Final = regex.compile(rf"[1-9][0-9]{{5}}(?:18|19|20)[0-9]{{2}}{_BIRTH}[0-9]{{3}}[0-9Xx]")
_OTHER: Final = regex.compile(r"[^0-9A-Za-z]")
_NUMERALS: Final[Mapping[int, str]] = {
    ord(numeral): str(digit)
    for digit, numerals in enumerate(
        (
            "零〇○洞",
            "一壹幺",
            "二贰貳两兩",
            "三叁參",
            "四肆",
            "五伍",
            "六陆陸",
            "七柒拐",
            "八捌",
            "九玖勾",
        )
    )
    for numeral in numerals
}
_NUMERAL: Final = "".join(map(chr, _NUMERALS))


def resident_id_checks(value: str) -> bool:
    """GB 11643 (ISO 7064 MOD 11-2) check of an 18-character Chinese resident number."""
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, value, strict=False))
    return "10X98765432"[total % 11] == value[-1].upper()


def credit_code_checks(value: str) -> bool:
    """GB 32100 (ISO 7064 MOD 31-3) check of an 18-character unified social credit code."""
    total = sum(_CREDIT_CODE.index(c) * pow(3, i, 31) for i, c in enumerate(value[:17]))
    return _CREDIT_CODE[-total % 31] == value[17]


def _resident_id(match: Any) -> float | None:
    value = _OTHER.sub("", match.group())
    valid = resident_id_checks(value)
    if _DATED.fullmatch(value):
        return 1.0 if valid else 0.97 if value[:2] in _REGIONS else 0.8
    return 0.9 if valid and value[:2] in _REGIONS else None


def _old_resident_id(match: Any) -> float | None:
    return 0.8 if match.group()[:2] in _REGIONS else None


def _credit_code(match: Any) -> float | None:
    value = match.group()
    if value.isdigit() and _DATED.fullmatch(value):
        return None
    return 0.98 if credit_code_checks(value) else 0.7 if value[0] in "159" else None


def _landline(match: Any) -> float:
    value = match.group()
    return 0.75 if value.isdigit() else 0.96


@dataclass(frozen=True)
class _Where(Rule):
    """Rules that are tried only in texts in which the pattern occurs."""

    rules: tuple[Rule, ...] = ()

    @property
    def entities(self) -> frozenset[str]:
        return frozenset().union(*(one.entities for one in self.rules))

    def find(self, text: str) -> Iterator[Span]:
        if self.pattern.search(text, timeout=time_limit(text)) is not None:
            for one in self.rules:
                yield from one.find(text)


class _SpelledNumbers(Rule):
    """Numbers with some digits as characters: the kind follows from the digits they stand for."""

    @property
    def entities(self) -> frozenset[str]:
        return frozenset(entity for _, entity, _ in _SPELLED_FORMS)

    def find(self, text: str) -> Iterator[Span]:
        for match in self.pattern.finditer(text, timeout=time_limit(text)):
            value = match.group()
            digits = _OTHER.sub("", value.translate(_NUMERALS))
            if _OTHER.sub("", value) == digits:
                continue
            for form, entity, score in _SPELLED_FORMS:
                if form.fullmatch(digits) and not (
                    score < 0.6 and digits in "012345678901234567890"
                ):
                    yield Span(match.start(), match.end(), entity, score, self.source)
                    break


_SPELLED_FORMS: Final = (
    (regex.compile(r"(?:0?0?86)?1[3-9][0-9]{9}"), "PHONE_NUMBER", 0.95),
    (_DATED, "NATIONAL_ID", 0.95),
    (regex.compile(r"0[1-9][0-9]{1,2}[2-9][0-9]{6,7}|[48]00[0-9]{7}"), "PHONE_NUMBER", 0.85),
    (regex.compile(r"[0-9]{7,24}"), "ID_NUMBER", 0.55),
)

_MONTH: Final = r"(?:农历|農曆|阴历)?(?:1[0-2]|0?[1-9]|十[一二]?|[一二三四五六七八九正腊])月"
_DAY: Final = (
    r"(?:3[01]|[12][0-9]|0?[1-9]|初?[一二三四五六七八九十]{1,3}|廿[一二三四五六七八九]?)[日号號]?"
)
_YEAR: Final = rf"(?:[12][0-9]{{3}}|[0-9]{{2}}|[{_NUMERAL}]{{4}}|[{_NUMERAL}]{{2}}|民[国國][0-9一二三四五六七八九十]{{1,3}})年"
_DATE: Final = (
    rf"(?<![0-9.-])(?:{_YEAR} ?{_MONTH}(?: ?{_DAY})?|{_MONTH} ?{_DAY}"
    r"|(?:18|19|20)[0-9]{2}(?P<mark>[-/.])(?:1[0-2]|0?[1-9])(?P=mark)(?:3[01]|[12][0-9]|0?[1-9])(?![0-9])"
    rf"|(?:19|20)[0-9]{{2}}{_BIRTH}(?![0-9])|(?P<year>{_YEAR})(?=[出生]|))"
)
_BEFORE_BIRTH: Final = regex.compile(
    r"(?r)(?:出生(?:日期|年月日?|时间)?|生日|生|诞生|DOB|生辰|出世)[于於在是为為]?(?:[:：\s]|[(（][^()（）\n]{0,6}[)）]){0,3}",
    LETTERS | regex.IGNORECASE,
)
_AFTER_BIRTH: Final = regex.compile(
    rf"[日号號]?(?:\)|）)?(?:出生|生(?![产活效意日长成存病态物])|诞生|出世|(?:是|过|办)?[{HAN_RANGES}]{{0,4}}生日)",
    LETTERS,
)


class _Dates(Rule):
    """Dates; beside a word of birth they are dates of birth, and there a year alone is one too."""

    @property
    def entities(self) -> frozenset[str]:
        return frozenset({"DATE_OF_BIRTH", "DATE_TIME"})

    def find(self, text: str) -> Iterator[Span]:
        for match in self.pattern.finditer(text, timeout=time_limit(text)):
            start, end = match.span()
            born = _BEFORE_BIRTH.match(text[max(0, start - 16) : start]) or _AFTER_BIRTH.match(
                text, end
            )
            if born:
                yield Span(start, end, "DATE_OF_BIRTH", 0.97, f"{self.source}-of-birth")
            elif match.group("year") is None:
                yield Span(start, end, "DATE_TIME", 0.8, self.source)


def _rule(entity: str, pattern: str, score: float, name: str, check: Check | None = None) -> Rule:
    return Rule(entity, regex.compile(pattern, LETTERS), score, check, name=f"zh-{name}")


def _gate(pattern: str) -> Any:
    return regex.compile(pattern, LETTERS)


_REGION_LETTERS: Final = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
_LONG_NUMBERS: Final[tuple[Rule, ...]] = (
    _rule(
        "NATIONAL_ID",
        rf"{LEFT}[1-9](?:[ .-]?[0-9]){{16}}[ .-]?[0-9Xx]{RIGHT}",
        0,
        "resident-id",
        _resident_id,
    ),
    _rule(
        "NATIONAL_ID",
        rf"{LEFT}[1-8][0-9]{{5}}[ -]?[0-9]{{2}}{_BIRTH}[ -]?[0-9]{{3}}{RIGHT}",
        0,
        "resident-id-15",
        _old_resident_id,
    ),
    _rule(
        "NATIONAL_ID",
        r"(?:军|軍|兵|士|文|武|空|海|参|政|后|装|南|北|沈|兰|成|济|广)字第? ?[0-9]{6,8}(?![0-9])号?",
        0.96,
        "officer",
    ),
    _rule(
        "NATIONAL_ID",
        rf"{LEFT}(?:C[A-Z]?[0-9]{{7,8}}|[HM][0-9]{{8}}(?:[0-9]{{2}})?){RIGHT}",
        0.55,
        "permit",
    ),
    _rule(
        "NATIONAL_ID",
        rf"{LEFT}(?:[A-Z]{{1,2}}[0-9]{{6}} ?\([0-9A]\)|[157][0-9]{{6}} ?\([0-9]\))",
        0.9,
        "hong-kong-id",
    ),
    _rule("NATIONAL_ID", rf"{LEFT}[A-Z][1289][0-9]{{8}}{RIGHT}", 0.75, "taiwan-id"),
    _rule(
        "PASSPORT",
        rf"{LEFT}(?:[EGPSD][0-9]{{8}}|[EDSP][A-HJ-NP-Z][0-9]{{7}}){RIGHT}",
        0.65,
        "passport",
    ),
    _rule(
        "PHONE_NUMBER",
        r"(?<![A-Za-z0-9])(?:(?:\+|00)?\(?\+?86\)?[ .-]{0,2})?1[ .-]?[3-9](?:[ .·-]?[0-9]){9}(?![0-9A-Za-z])",
        0.95,
        "mobile",
    ),
    _rule(
        "PHONE_NUMBER",
        r"(?<![0-9A-Za-z.-])(?<![0-9][ -])(?:(?:\+|00)86[ -]?)?(?:\(0?[1-9][0-9]{1,2}\)|0[1-9][0-9]{1,2})[ -]?"
        r"[2-9][0-9]{2,3}[ -]?[0-9]{4}(?:[ ,，-]{0,2}(?:转|轉|分机|分機|[eE]xt\.?|x) ?[0-9]{1,6}|-[0-9]{1,5})?(?![0-9A-Za-z-])",
        0,
        "landline",
        _landline,
    ),
    _rule(
        "PHONE_NUMBER",
        r"(?<![0-9A-Za-z-])[48]00[ -]?(?:[0-9]{3}[ -]?[0-9]{4}|[0-9]{4}[ -]?[0-9]{3})(?![0-9A-Za-z-])",
        0.7,
        "service-line",
    ),
    _rule(
        "PHONE_NUMBER",
        r"(?<![0-9A-Za-z])(?:\+|00)?(?:852|853|886)[ -]?[0-9](?:[ -]?[0-9]){6,9}(?![0-9A-Za-z])",
        0.8,
        "hong-kong-phone",
    ),
    _rule(
        "PHONE_NUMBER",
        r"(?<![0-9A-Za-z])(?:09[0-9]{2}[ -]?[0-9]{3}[ -]?[0-9]{3}|\(0[2-8]\) ?[0-9]{3,4}[ -]?[0-9]{4}|0[2-8]-[0-9]{3,4}-?[0-9]{4})(?![0-9A-Za-z])",
        0.8,
        "taiwan-phone",
    ),
    _rule(
        "CREDIT_CARD",
        rf"{LEFT}62[0-9]{{2}}(?:[ -]?[0-9]){{12,15}}{RIGHT}",
        0,
        "unionpay",
        bank_card,
    ),
    _rule(
        "ID_NUMBER",
        rf"{LEFT}[0-9A-HJ-NPQRTUWXY]{{2}}[0-9]{{6}}[0-9A-HJ-NPQRTUWXY]{{10}}{RIGHT}",
        0,
        "credit-code",
        _credit_code,
    ),
)
_PLATES: Final[tuple[Rule, ...]] = (
    _rule(
        "LICENSE_PLATE",
        rf"[{_REGION_LETTERS}滬遼魯蘇贛陝貴瓊雲][A-Z][-·•. ]?(?:[A-Z0-9]{{4}}[A-Z0-9挂掛学學警港澳試试超领領]|[A-Z0-9]{{6}})(?![A-Za-z0-9])",
        0.96,
        "plate",
    ),
    _rule(
        "LICENSE_PLATE",
        rf"使[0-9]{{3}}[-·• ]?[0-9]{{3}}(?![0-9])|[0-9]{{6}}使(?![{HAN_RANGES}])|WJ[-· ]?(?:[{_REGION_LETTERS}]|[0-9]{{2}})[-· ]?[0-9A-Z]{{5}}(?![0-9A-Z])",
        0.9,
        "plate-special",
    ),
    _rule(
        "USER_HANDLE",
        rf"(?<![A-Za-z0-9._])wxid_[a-z0-9]{{8,20}}|(?<![A-Za-z0-9._@/])@(?!所有人|全体|各位|大家|客服)[{HAN_RANGES}A-Za-z0-9_-]{{2,20}}(?=[\s,，:：。!！]|$)",
        0.75,
        "handle-form",
    ),
)
_AGES: Final = _rule(
    "AGE",
    r"(?<![0-9.~～至到满滿第—-])(?:[1-9][0-9]?|1[0-2][0-9]|[二三四五六七八九]?十[一二三四五六七八九]?|[二三四五六七八九]) ?(?:周|週)?[岁歲]半?"
    r"(?!以[上下内前后]|[上下]|及以|[~～至到-]|月|数)",
    0.8,
    "age",
)

ZH_RULES: Final[tuple[Rule, ...]] = (
    _Where("PERSON", HAN, rules=(*HAN_NAME_RULES, *ADDRESS_RULES), beyond_ascii=True),
    _Where("PERSON", _gate("[A-Z][a-z]"), rules=PINYIN_RULES, name="zh-latin", latin=True),
    _Where(
        "NATIONAL_ID",
        _gate(r"[0-9](?:[^0-9\n]{0,3}[0-9]){5}"),
        rules=_LONG_NUMBERS,
        name="zh-numbers",
        digits=6,
    ),
    _Where(
        "LICENSE_PLATE", _gate("[A-Za-z0-9]"), rules=_PLATES, name="zh-plates", beyond_ascii=True
    ),
    AfterCues("ID_NUMBER", VALUE_START, table=CUES, name="zh-cued"),
    _SpelledNumbers(
        "PHONE_NUMBER",
        _gate(
            rf"(?<![{_NUMERAL}0-9])[{_NUMERAL}0-9](?:[ .-]?[{_NUMERAL}0-9]){{6,22}}[Xx]?(?![{_NUMERAL}0-9])"
        ),
        name="zh-spelled",
        beyond_ascii=True,
    ),
    _Where(
        "DATE_TIME",
        _gate("[年月]|[0-9]{4}"),
        rules=(_Dates("DATE_TIME", _gate(_DATE), name="zh-date"),),
        name="zh-dates",
        beyond_ascii=True,
    ),
    _Where("AGE", _gate("[岁歲]"), rules=(_AGES,), name="zh-ages", beyond_ascii=True),
)
"""A few composite rules; ask each for its findings with :meth:`Rule.find`."""
