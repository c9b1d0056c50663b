"""Rules for numbers that stand for a person: phones, cards, accounts, identity documents.

Checksums raise a finding's score but hardly ever gate it: in real files many
numbers are mistyped or invented, and a mistyped card number is still personal.
"""

import ipaddress
from typing import Any, Final

import regex

from privacy.pii.rules import Rule, rule

# IBAN registry (SWIFT, release 99): characters per country.
_IBAN_LENGTHS: Final = {
    code: length
    for length, codes in {
        15: "NO",
        16: "BE",
        18: "DK FI FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH CR HR LI LV",
        22: "BG BH DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        33: "RU",
    }.items()
    for code in codes.split()
}
_DIGITS: Final = regex.compile(r"[0-9]")


def _digits(text: str) -> str:
    return "".join(_DIGITS.findall(text))


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1 check digit."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def iban_checks(value: str) -> bool:
    """ISO 13616 / ISO 7064 MOD 97-10 check of an IBAN without separators, upper case."""
    moved = value[4:] + value[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def resident_id_checks(value: str) -> bool:
    """GB 11643 (ISO 7064 MOD 11-2) check of an 18-character Chinese resident number."""
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    total = sum(weight * int(digit) for weight, digit in zip(weights, value, strict=False))
    return "10X98765432"[total % 11] == value[-1].upper()


def _card(match: Any) -> float | None:
    text = match.group()
    digits = _digits(text)
    if len(set(digits)) == 1:
        return None
    if luhn(digits):
        return 1.0
    groups = [len(group) for group in regex.split(r"\D", text)]
    if groups in ([4, 4, 4, 4], [4, 4, 4, 4, 3], [4, 6, 5], [4, 6, 4]):
        return 0.8
    return 0.6 if len(digits) in {15, 16} else None


def _iban(match: Any) -> float | None:
    value = regex.sub(r"[ -]", "", match.group()).upper()
    length = _IBAN_LENGTHS.get(value[:2])
    if length == len(value) and iban_checks(value):
        return 1.0
    digits = len(_digits(value))
    if length is None:
        return 0.6 if digits >= 14 else None
    return 0.8 if digits >= len(value) // 2 else None


def _resident_id(match: Any) -> float:
    return 1.0 if resident_id_checks(match.group()) else 0.95


_DATE: Final = regex.compile(
    r"(?:19|20)\d\d[-/. ]?(?:0?[1-9]|1[0-2])[-/. ]?(?:0?[1-9]|[12]\d|3[01])(?:[ T]\d.*)?"
    r"|\d{1,2}[-/.]\d{1,2}[-/.](?:19|20)?\d\d(?:[ T]\d.*)?|(?:19|20)\d\d ?[-/] ?(?:19|20)\d\d"
)
_NORTH_AMERICAN: Final = regex.compile(
    r"(?:(?:\+|00)?1[-. ]?)?(?:\([2-9]\d\d\) ?|[2-9]\d\d[-. /])\d{3}[-. ]\d{4}|\(\d{3}\) ?\d{3}-?\d{4}"
)
_PARENTHESES: Final = regex.compile(r"\(\+?\d{1,6}\)")
_CHINESE_LANDLINE: Final = regex.compile(r"0\d{2,3}[- ]?[2-9]\d{6,7}|[48]00-?\d{3}-?\d{4}")
_EXTENSION: Final = regex.compile(r"(?:[ ,;-]*(?:x|ext\.?|extension|转|分机)\s*\d{1,6})$", regex.I)


def _phone(match: Any) -> float | None:
    """Judge a run of digits and separators by its shape; weak shapes need a cue."""
    text = match.group()
    number = _EXTENSION.sub("", text)
    digits = _digits(number)
    count = len(digits)
    if not 7 <= count <= 15 or _DATE.fullmatch(number):
        return None
    if len(number) < len(text) or number.startswith(("+", "00", "(+")):
        return 0.9
    if _NORTH_AMERICAN.fullmatch(number):
        return 0.85
    if _PARENTHESES.match(number) and count >= 8:
        return 0.8
    if _CHINESE_LANDLINE.fullmatch(number):
        return 0.75
    if digits[0] == "0" and 9 <= count <= 12:
        return 0.7
    groups = [len(group) for group in regex.split(r"\D+", number.strip("() "))]
    if len(groups) == 1:
        return 0.5 if count in {10, 11} else None
    # Three or more short groups in one style, as national plans write them.
    if (
        len(groups) >= 3
        and 8 <= count <= 12
        and all(2 <= n <= 5 for n in groups)
        and "." not in number
    ):
        return 0.55
    return (
        0.55
        if groups in ([3, 4], [3, 3, 4], [4, 6], [5, 5], [5, 6], [4, 7]) and count != 8
        else None
    )


def _ip(match: Any) -> float | None:
    try:
        address = ipaddress.ip_address(match.group())
    except ValueError:
        return None
    return None if address.is_unspecified else 0.95


PHONE_CUE: Final = (
    r"phone|telephone|tel|call|calls|called|mobile|cell|cellphone|fax|whatsapp|contact|reach|ring|sms|text"
    r"|number(?: is)?|电话|手机|手机号码?|联系方式|联系|致电|拨打|微信|传真|座机|热线"
)
_ID_CUE: Final = r"id|identity|identification|身份证|证件"
_CARD_CUE: Final = (
    r"card|visa|mastercard|master card|amex|american express|credit|debit|卡号|银行卡|信用卡|储蓄卡"
)

NUMBER_RULES: Final[tuple[Rule, ...]] = (
    rule(
        "CREDIT_CARD",
        r"(?<!\d[ .-])(?<!\+)\d(?:[ .-]?\d){11,18}(?![ .-]\d)",
        check=_card,
        cue=_CARD_CUE,
        cued=0.85,
    ),
    rule("CREDIT_CARD", r"\d{4}([ -])\d{4}\1\d{4}\1\d{4}", check=_card),
    # 62... is UnionPay, whose debit cards run to 19 digits and often travel without a valid check.
    rule("CREDIT_CARD", r"62\d{14,17}", 0.8),
    rule(
        "CREDIT_CARD",
        r"\d{3,4}",
        cue=r"(?:cvv2?|cvc2?|security code|安全码)\W{0,3}(?:is|code|是|为)?\W{0,3}$",
        cued=0.8,
    ),
    rule(
        "IBAN_CODE",
        r"[A-Za-z]{2}\d{2}(?:[A-Za-z0-9]{11,30}|(?:[ -][A-Za-z0-9]{4}){2,7}(?:[ -][A-Za-z0-9]{1,4})?)",
        check=_iban,
        cue=r"iban",
        cued=0.9,
    ),
    rule(
        "BANK_ACCOUNT",
        r"\d{2}[- ]\d{2}[- ]\d{2}(?:[ ,/]+\d{8})?|\d(?:[ -]?\d){5,19}",
        cue=r"account(?: number| no\.?)?|acct\.?|a/c|sort code|routing(?: number)?|aba|bank|账号|账户|帐号|开户",
        cued=0.85,
    ),
    rule(
        "BANK_ACCOUNT",
        r"[A-Z]{4}[A-Z]{2}[A-Z0-9]{2}(?:[A-Z0-9]{3})?",
        cue=r"swift|bic|swift[/ -]bic",
        cued=0.8,
    ),
    rule("BANK_ACCOUNT", r"[A-Z]{4}\d{10,18}", 0.7),
    rule("NATIONAL_ID", r"\d{3}-\d{2}-\d{4}", 0.95),
    rule(
        "NATIONAL_ID",
        r"\d{3} \d{2} \d{4}|\d{9}",
        cue=r"ssn|social security(?: number)?|itin|tax id",
        cued=0.9,
    ),
    rule("NATIONAL_ID", r"[A-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-Z]", 0.8),
    rule(
        "NATIONAL_ID",
        r"[1-9]\d{5}(?:18|19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx]",
        check=_resident_id,
    ),
    rule("NATIONAL_ID", r"\d{17}[\dXx]|[1-9]\d{14}", cue=_ID_CUE, cued=0.85),
    rule("NATIONAL_ID", r"[A-Z]{1,2}\d{6} ?\([0-9A]\)|\d{7,8}\([0-9A-Za-z]\)|[A-Z][12]\d{8}", 0.8),
    rule(
        "NATIONAL_ID",
        r"\d{3}[ -]?\d{3}[ -]?\d{4}",
        cue=r"nhs(?: number| no\.?)?|national insurance",
        cued=0.9,
    ),
    rule(
        "PASSPORT",
        r"[A-Z]{0,2}\d{6,9}",
        cue=r"passport(?: number| no\.?)?|护照(?:号码?)?|通行证",
        cued=0.9,
    ),
    rule("PASSPORT", r"[A-Z]\d{8}|E[A-Z]\d{7}", 0.6),
    rule(
        "DRIVER_LICENSE",
        r"(?=[A-Za-z0-9-]{0,15}\d{4})[A-Za-z0-9][A-Za-z0-9-]{4,18}",
        cue=r"driv(?:er'?s?|ing) licen[cs]e(?: number| no\.?)?|驾驶证|驾照",
        cued=0.85,
    ),
    rule(
        "PHONE_NUMBER",
        r"(?:\(?\+ ?|\()?\d(?:[ .()/-]{0,3}\d){6,16}(?:[ ,;-]{0,2}(?i:x|ext\.?|extension|转|分机) ?\d{1,6})?",
        check=_phone,
        cue=PHONE_CUE,
        cued=0.8,
    ),
    rule("PHONE_NUMBER", r"(?:\+?86[- ]?|0086[- ]?)?1[3-9]\d(?:[ -]?\d{4}){2}", 0.95),
    rule("IP_ADDRESS", r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?!\.?\d)", check=_ip),
    rule("IP_ADDRESS", r"(?<![:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![:.])", check=_ip),
    rule("MAC_ADDRESS", r"[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}", 0.9),
    rule("LICENSE_PLATE", r"[A-Z]{2}\d{2} ?[A-Z]{3}", 0.6),
    rule(
        "LICENSE_PLATE",
        r"(?=[A-Z0-9 -]{0,10}\d)[A-Z0-9]{1,4}[ -]?[A-Z0-9]{2,5}",
        cue=r"licen[cs]e plate|number plate|registration(?: number)?|plate|车牌号?",
        cued=0.75,
    ),
    Rule(
        "LICENSE_PLATE",
        regex.compile(
            r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼使领][A-Z][-· ]?[A-Z0-9]{4,5}[A-Z0-9挂学警港澳](?![A-Za-z0-9])"
        ),
        0.95,
    ),
    # What is left: long numbers are accounts, orders, tickets of somebody.
    rule("ID_NUMBER", r"(?i:EMP|EID)[-_ ]?\d{4,10}", 0.8),
    rule(
        "ID_NUMBER",
        r"[A-Z]{0,4}[-_]?\d{4,10}",
        cue=r"(?:employee|staff|personnel)(?: number| no\.?| id)|工号|员工编号",
        cued=0.8,
    ),
    rule("ID_NUMBER", r"\d{9,30}", 0.5),
    rule("ID_NUMBER", r"(?=[A-Z0-9]{0,33}[A-Z])(?=[A-Z0-9]{0,26}\d{8})[A-Z0-9]{9,34}", 0.5),
)
