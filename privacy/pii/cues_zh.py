"""Values that a cue word directly before them gives away in Chinese text.

Every run of letters and digits is looked at once, and the cues are read backwards
from its start, at most a copula or a bracket away: in Chinese nothing separates a
far cue from the next sentence's number.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import regex

from privacy.pii.entities import Span
from privacy.pii.rules import LETTERS, RIGHT, Check, Facts, Rule, time_limit
from privacy.pii.rules_numbers import luhn
from privacy.pii.scripts import digits_of, has_han


def bank_card(match: Any) -> float:
    """A valid check digit (ISO/IEC 7812-1) raises the score of what looks like a card."""
    return 1.0 if luhn(digits_of(match.group())) else 0.95


@dataclass(frozen=True)
class Cued:
    """A value that is personal directly after a cue."""

    entity: str
    cue: Any
    value: Any
    score: float
    name: str
    check: Check | None


_LINK: Final = (
    r"(?:号码|號碼|号|號|码|碼|账号|帐号|ID)?(?:[(（][^()（）\n]{0,8}[)）])?(?:就?是|为|為|叫|改为|改成|换成|变更为)?"
    r"[:=,，、\s(「【\[\"'“]{0,4}"
)
_REACH: Final = 32
_LATIN_CUES: Final = ("wechat", "weixin", "qq", "wxid", "we chat")
VALUE_START: Final = regex.compile(r"(?<![A-Za-z0-9])[+@]?[A-Za-z0-9]|(?<=[A-Za-z])[0-9]")


@dataclass(frozen=True)
class AfterCues(Rule):
    """Values after cues: every run of letters and digits is looked at once, from its start."""

    table: tuple[Cued, ...] = ()

    def may_match(self, facts: Facts) -> bool:
        if not facts.latin and not facts.digits:
            return False
        chinese = not facts.ascii_only and has_han(facts.folded)
        return chinese or any(cue in facts.folded for cue in _LATIN_CUES)

    @property
    def entities(self) -> frozenset[str]:
        return frozenset(one.entity for one in self.table)

    def find(self, text: str) -> Iterator[Span]:
        for start in self.pattern.finditer(text, timeout=time_limit(text)):
            at = start.start()
            before = text[max(0, at - _REACH) : at]
            if not before or _ANY_CUE.match(before) is None:
                continue
            for one in self.table:
                value = one.value.match(text, at) if one.cue.match(before) else None
                if value is not None:
                    score = one.check(value) if one.check else one.score
                    if score:
                        yield Span(at, value.end(), one.entity, score, f"rule:zh-{one.name}")


def _cued(
    entity: str, cue: str, value: str, score: float, name: str, check: Check | None = None
) -> Cued:
    return Cued(entity, _backwards(cue), regex.compile(value + RIGHT, LETTERS), score, name, check)


def _backwards(cue: str) -> Any:
    return regex.compile(rf"(?r)(?:{cue}){_LINK}", LETTERS | regex.IGNORECASE)


_HANDLE_CUE: Final = (
    r"微信|威信|薇信|徽信|[vw]信|we ?chat|weixin|(?<![A-Za-z])(?:wx|vx|v|wxid)|扣扣|企鹅|企鵝|(?<![A-Za-z])qq"
    r"|抖音|快手|小红书|小紅書|微博|支付宝|淘宝|旺旺|钉钉|飞书|telegram|(?<![A-Za-z])line|推特|陌陌|B站|加我|私聊|私信|加[vV]"
)
_ID_CUE: Final = r"身份[证證]|身分[证證]|证件|證件|公民身份|身份|户口|(?<![A-Za-z])ID"
_PHONE_CUE: Final = (
    r"电话|電話|手机|手機|座机|固话|市話|热线|熱線|传真|傳真|联系方式|聯絡方式|联系|聯絡|致电|致電|拨打|撥打|回拨|拨|来电|短信|电联|打给我|回电|微信同|同微信"
    r"|(?<![A-Za-z])(?:tel|phone|mobile|call)|(?<![证照编卡户案])(?:号码|號碼)"
)
_RECORD_CUE: Final = (
    r"(?:工|学|學|病历|病例|住院|门诊|就诊卡?|床|保单|订单|訂單|运单|快递|快递单|流水|会员|會員|会员卡|客户|合同|工单|考生|准考证|资格证|执业证|证书|案|案件|发票|车架|档案|员工|員工|社保|医保"
    r"|单|营业执照|注册|用户)(?:编|編)?(?:号码|号|號|ID)|信用代码|信用代碼|税号|稅號|纳税人识别号?|组织机构代码|编号|編號"
)

CUES: Final[tuple[Cued, ...]] = (
    _cued("NATIONAL_ID", _ID_CUE, r"[0-9](?:[ .-]?[0-9]){13,17}[Xx]?", 0.97, "resident-id-cued"),
    _cued(
        "NATIONAL_ID",
        r"军官证|軍官證|士兵证|警官证|文职证|士官证|军人证|残疾证|残疾人证|退役军人证|社保|社保卡|社会保障|医保|医保卡|医疗保险|公积金|居留证|永居证|学籍|居住证",
        r"[A-Z]{0,3}[0-9]{6,20}[A-Z]?",
        0.95,
        "document-cued",
    ),
    _cued(
        "NATIONAL_ID",
        r"通行[证證]|回乡[证證]|回鄉[证證]|台胞[证證]|臺胞[证證]|台湾居民|港澳居民|香港身份[证證]|澳门身份[证證]|入台证|居住[证證]",
        r"[A-Z]{0,2}[0-9]{7,11}(?: ?\([0-9A-Z]\))?",
        0.96,
        "permit-cued",
    ),
    _cued("PASSPORT", r"护照|護照|passport", r"[A-Z]{0,2}[0-9]{6,9}", 0.97, "passport-cued"),
    _cued(
        "DRIVER_LICENSE",
        r"档案编?|驾驶?[证證照]|駕駛?[证證照]|准驾证|行驶证",
        r"[0-9]{10,18}[Xx]?",
        0.96,
        "driver-cued",
    ),
    _cued(
        "PHONE_NUMBER",
        _PHONE_CUE,
        r"\+?[0-9](?:[ -]?[0-9]){6,14}(?:[ ,，-]{0,2}(?:转|轉|分机|分機|ext\.?) ?[0-9]{1,6})?",
        0.85,
        "phone-cued",
    ),
    _cued("PHONE_NUMBER", r"分机|分機|内线|內線|短号", r"[0-9]{3,6}", 0.7, "extension"),
    _cued(
        "CREDIT_CARD",
        r"卡号|卡號|银行卡|銀行卡|储蓄卡|信用卡|借记卡|工资卡|[农工建中招交]行卡?|银行|銀行|卡",
        r"[0-9](?:[ -]?[0-9]){14,18}",
        0.95,
        "bank-card-cued",
        bank_card,
    ),
    _cued(
        "BANK_ACCOUNT",
        r"账号|賬號|帐号|帳號|账户|賬戶|帐户|户号|打到|转到|转入|汇到|汇入|开户行[\u4e00-\u9fff]{0,16}",
        r"[0-9](?:[ -]?[0-9]){8,24}",
        0.85,
        "account-cued",
    ),
    _cued(
        "ID_NUMBER",
        _RECORD_CUE,
        r"(?!(?:19|20)[0-9]{2}(?:年|[-/.][0-9]))(?=[A-Za-z/-]{0,8}[0-9])[A-Za-z0-9](?:[A-Za-z0-9]|[-/](?=[A-Za-z0-9])){3,29}",
        0.75,
        "record-cued",
    ),
    _cued(
        "LICENSE_PLATE", r"车牌|車牌|牌照|车号", r"[A-Z]{1,2}[-· ]?[A-Z0-9]{4,6}", 0.8, "plate-cued"
    ),
    _cued(
        "USER_HANDLE",
        _HANDLE_CUE,
        r"(?:[1-9][0-9]{4,10}|@?[A-Za-z](?=[A-Za-z0-9_-]{0,28}[0-9_-])[A-Za-z0-9_-]{3,29})(?!@)",
        0.95,
        "handle",
    ),
    _cued(
        "USER_HANDLE",
        rf"(?:{_HANDLE_CUE})(?:账号|帐号|ID|号|號)[是为:： ]*|加我微信|我微信|微信[:：]|[Vv]信[:：]",
        r"@?[A-Za-z][A-Za-z0-9_-]{4,19}(?!@)",
        0.9,
        "handle-letters",
    ),
    _cued("POSTCODE", r"邮编|郵編|邮政编码|郵遞區號|邮区", r"[0-9]{3,6}", 0.97, "postcode"),
    _cued(
        "AGE",
        r"年龄|年齡|年纪|年紀|现年|今年",
        r"(?:[1-9][0-9]?|1[0-2][0-9])(?![年月日号.:/-])",
        0.8,
        "age-cued",
    ),
)
_ANY_CUE: Final = regex.compile(
    r"(?r)(?:" + "|".join(f"(?:{one.cue.pattern[4:]})" for one in CUES) + ")",
    LETTERS | regex.IGNORECASE,
)
