"""Chinese rules: numbers, documents, handles, dates, addresses and names beside a cue."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.pii.entities import ENTITIES
from privacy.pii.rules import find_all, rules_for
from privacy.pii.rules_zh import ZH_RULES, credit_code_checks, resident_id_checks
from privacy.pii.scripts import plain


def found(text: str, entity: str) -> list[str]:
    """The values of one kind, each once, that the Chinese rules find with a score of 0.5 or more."""
    spans = find_all(ZH_RULES, plain(text))
    return sorted({s.of(text) for s in spans if s.entity == entity and s.score >= 0.5})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("我手机138.1234.5678", "138.1234.5678"),
        ("电话：１３８ １２３４ ５６７８", "１３８ １２３４ ５６７８"),
        ("+86-138-1234-5678是我的号", "+86-138-1234-5678"),
        ("手机号一三八一二三四五六七八", "一三八一二三四五六七八"),
        ("我的号码是幺三八零零幺三八零零零", "幺三八零零幺三八零零零"),
        ("座机：8765-4321", "8765-4321"),
        ("0755-8765 4321 转 802", "0755-8765 4321 转 802"),
        ("請打02-2345-6789", "02-2345-6789"),
        ("香港电话+852 9123 4567", "+852 9123 4567"),
        ("热线400-820-8820", "400-820-8820"),
    ],
)
def test_phone_numbers_are_found_whole(text: str, value: str) -> None:
    """Mobile, landline, service and spelled numbers are found with extension and country code."""
    assert value in found(text, "PHONE_NUMBER")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("身份证440524 19800101 0014", "440524 19800101 0014"),
        ("身份证:440524-19800101-001X", "440524-19800101-001X"),
        ("居民440524188001010014登记", "440524188001010014"),
        ("老身份证 130503670401001", "130503670401001"),
        ("身份证号（后补）：440524198001010014", "440524198001010014"),
        ("台胞证 01234567", "01234567"),
        ("往来港澳通行证：CA1234567", "CA1234567"),
        ("回鄉證H0123456789", "H0123456789"),
        ("香港身份證：Z683365(5)", "Z683365(5)"),
        ("身分證字號A123456789", "A123456789"),
        ("军官证号：南字第12345678号", "南字第12345678号"),
    ],
)
def test_identity_documents_are_found(text: str, value: str) -> None:
    """Resident numbers, permits and officer certificates are found, with a wrong check digit too."""
    assert value in found(text, "NATIONAL_ID")


@pytest.mark.parametrize(
    ("text", "entity", "value"),
    [
        ("护照号码：E12345678", "PASSPORT", "E12345678"),
        ("持EA1234567护照", "PASSPORT", "EA1234567"),
        ("工行卡6222021234567890123", "CREDIT_CARD", "6222021234567890123"),
        ("卡号是6217 0000 1000 0000 123吗", "CREDIT_CARD", "6217 0000 1000 0000 123"),
        ("账号：0200 0012 3920 0012345", "BANK_ACCOUNT", "0200 0012 3920 0012345"),
        ("档案编号：320100123456", "DRIVER_LICENSE", "320100123456"),
        ("车牌号是沪A·B1234", "LICENSE_PLATE", "沪A·B1234"),
        ("川AD12345停在门口", "LICENSE_PLATE", "川AD12345"),
        ("鄂A1234警开走了", "LICENSE_PLATE", "鄂A1234警"),
        ("加我vx：lucky_cat88", "USER_HANDLE", "lucky_cat88"),
        ("微信号zhangsan", "USER_HANDLE", "zhangsan"),
        ("我QQ：10001", "USER_HANDLE", "10001"),
        ("或者QQ213724914都行", "USER_HANDLE", "213724914"),
        ("邮政编码：100871", "POSTCODE", "100871"),
        ("出生日期：一九八八年三月五日", "DATE_OF_BIRTH", "一九八八年三月五日"),
        ("1988.03.05出生", "DATE_OF_BIRTH", "1988.03.05"),
        ("生于1988年", "DATE_OF_BIRTH", "1988年"),
        ("男，三十四岁，已婚", "AGE", "三十四岁"),
        ("年龄：34", "AGE", "34"),
        ("学号20230115，下同", "ID_NUMBER", "20230115"),
    ],
)
def test_values_beside_cues_are_found(text: str, entity: str, value: str) -> None:
    """A cue directly before a value, or the form of it, gives its kind away."""
    assert value in found(text, entity)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("我住在科技园3期A座1201，", "科技园3期A座1201"),
        ("家住海淀区中关村大街27号院3号楼2单元501室", "海淀区中关村大街27号院3号楼2单元501室"),
        ("张江路88弄12号303室", "张江路88弄12号303室"),
        ("快递到成都市武侯区天府大道中段1268号E3栋12楼", "成都市武侯区天府大道中段1268号E3栋12楼"),
        ("沂南县青驼镇高家庄村126号", "沂南县青驼镇高家庄村126号"),
        ("龙湖天街3-2-1801", "龙湖天街3-2-1801"),
        ("板橋區文化路一段188巷5弄3號7樓之1", "板橋區文化路一段188巷5弄3號7樓之1"),
    ],
)
def test_addresses_are_found_from_the_largest_place_to_the_room(text: str, value: str) -> None:
    """An address is one finding, with or without a province, in both scripts."""
    assert value in found(text, "ADDRESS")


def test_a_postcode_after_an_address_is_found() -> None:
    """Six digits after an address are its postcode."""
    assert found("北京市海淀区颐和园路5号 100871", "POSTCODE") == ["100871"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("姓名：薄文，男", "薄文"),
        ("我叫欧阳雪，来自武汉", "欧阳雪"),
        ("张伟先生您好", "张伟"),
        ("詹姆斯·威廉姆斯来信", "詹姆斯·威廉姆斯"),
        ("收货人：陳大文", "陳大文"),
        ("请转告Zhang Wei", "Zhang Wei"),
        ("ask LI Xiaoming", "LI Xiaoming"),
        ("regards, Xiaoming Li", "Xiaoming Li"),
        ("请联系John Smith或者我", "John Smith"),
        ("小王，在吗", "小王"),
    ],
)
def test_names_beside_cues_are_found(text: str, value: str) -> None:
    """Fields, introductions, titles, middle dots and pinyin give names away without a model."""
    assert value in found(text, "PERSON")


@pytest.mark.parametrize(
    "text",
    [
        "2室1厅，坐10号线，3层楼高，第3期杂志，2号文件",
        "高级工程师和高中老师马上就来，谢谢大家",
        "满18岁以上可办理，3-6岁儿童半价",
        "总共1234567元，占比12.5%，2023年第3季度",
        "一二三四五六七八九",
        "Long Island is far; He Can run, Sun sets",
        "微信支付成功，QQ群已满，护照怎么办",
        "这里有108座佛塔和30座桥",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    """Counts, floors, periods and everyday words are no personal data."""
    spans = find_all(ZH_RULES, plain(text))
    assert [(s.of(text), s.entity) for s in spans if s.entity != "DATE_TIME"] == []


@given(st.integers(0, 10**17 - 1))
def test_one_resident_check_character_fits(number: int) -> None:
    """For any 17 digits exactly one of eleven check characters is right."""
    body = f"{number:017}"
    assert sum(resident_id_checks(body + check) for check in "0123456789X") == 1


@given(st.text(alphabet="0123456789ABCDEFGHJKLMNPQRTUWXY", min_size=17, max_size=17))
def test_one_credit_code_check_character_fits(body: str) -> None:
    """For any 17 characters exactly one of thirty-one check characters is right (GB 32100)."""
    checks = "0123456789ABCDEFGHJKLMNPQRTUWXY"
    assert sum(credit_code_checks(body + check) for check in checks) == 1


def test_published_codes_hold() -> None:
    """The example of GB 11643 and a published company's code pass; a changed digit does not."""
    assert resident_id_checks("11010519491231002X")
    assert not resident_id_checks("11010519491231003X")
    assert credit_code_checks("91350100M000100Y43")
    assert not credit_code_checks("91350100M000100Y44")


def test_no_kind_is_lost_when_rules_are_chosen_by_kind() -> None:
    """Every kind that a rule finds in the examples is among the kinds that it announces."""
    text = (
        "姓名：薄文，男，34岁，1988年3月5日出生，身份证440524198001010014，护照E12345678，QQ10001，"
        "车牌沪A·B1234，住海淀区中关村大街27号 100871，卡号6222021234567890123，2020年5月1日"
    )
    for one in ZH_RULES:
        assert {span.entity for span in one.find(text)} <= one.entities
    chosen = rules_for(ZH_RULES, ENTITIES)
    assert find_all(chosen, text) == find_all(ZH_RULES, text)


ALPHABET = "王小明的住在路号室区年月日岁一二三0123456789 ABCab·@-:：，。\n"


@given(st.text(alphabet=ALPHABET, max_size=120))
def test_findings_lie_inside_the_text(text: str) -> None:
    """Whatever the text, findings lie within it and name their rule."""
    for span in find_all(ZH_RULES, text):
        assert span.end <= len(text)
        assert span.source.startswith("rule:zh-")


@pytest.mark.parametrize(
    "unit",
    ["王", "1", "一", "路1号", "在", "a1", "区", "·艾", "年", "中国省市区", "138 ", "微信", "3-2-"],
)
def test_time_grows_with_the_text_and_not_faster(unit: str) -> None:
    """Four times the text takes no more than twelve times the time, at the best of three."""

    def cost(size: int) -> float:
        text = (unit * size)[:size]
        best = float("inf")
        for _ in range(3):
            began = time.thread_time()
            find_all(ZH_RULES, text)
            best = min(best, time.thread_time() - began)
        return best

    assert cost(40_000) <= 12 * max(cost(10_000), 0.002)


def test_digits_in_any_grouping_are_one_resident_number() -> None:
    """Spaces, dots and dashes anywhere between the digits do not hide a resident number."""
    dice = random.Random(1)
    for _ in range(200):
        digits = "440524198001010014"
        spaced = "".join(d + dice.choice(("", "", " ", "-", ".")) for d in digits).rstrip(" -.")
        assert spaced in found(f"号{spaced}，", "NATIONAL_ID")
