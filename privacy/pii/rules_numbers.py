"""Rules for numbers that stand for a person: phones, cards, accounts, identity documents.

Checksums raise a finding's score but hardly ever gate it: in real files many
numbers are mistyped or invented, and a mistyped card number is still personal.
"""

import ipaddress
from typing import Any, Final

import regex

from privacy.pii.national_ids import NATIONAL_ID_RULES
from privacy.pii.phones import PHONE_CUE, PHONE_PATTERN, phone_score
from privacy.pii.rules import Rule, rule
from privacy.pii.scripts import digits_of

# IBAN registry (SWIFT, release 99): characters per country.
IBAN_LENGTHS: Final = {
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


# ISO/IEC 7812-1: industry digits of travel, banking and merchandising; 0604 is an old Maestro range.
_CARD_START: Final = regex.compile(r"[1-689]|0604")
_DATED_ID: Final = regex.compile(
    r"[1-9]\d{5}(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{4}"
)


def _card(match: Any) -> float | None:
    text = match.group()
    digits = digits_of(text)
    if len(set(digits)) == 1 or not _CARD_START.match(digits) or _DATED_ID.fullmatch(digits):
        return None
    if len(digits) == 12 and digits[0] not in "056":
        return None
    if luhn(digits):
        return 1.0
    groups = [len(group) for group in regex.split(r"\D", text)]
    if groups in ([4, 4, 4, 4], [4, 4, 4, 4, 3], [4, 6, 5], [4, 6, 4]):
        return 0.8
    return 0.6 if len(digits) in {15, 16} else None


def _iban(match: Any) -> float | None:
    value = regex.sub(r"[ -]", "", match.group()).upper()
    length = IBAN_LENGTHS.get(value[:2])
    if length == len(value) and iban_checks(value):
        return 1.0
    digits = len(digits_of(value))
    if length is None:
        return 0.6 if digits >= 14 else None
    return 0.8 if digits >= len(value) // 2 else None


def _ip(match: Any) -> float | None:
    try:
        address = ipaddress.ip_address(match.group())
    except ValueError:
        return None
    return None if address.is_unspecified else 0.95


_ID_CUE: Final = r"id|identity|identification"
_CARD_CUE: Final = r"card|visa|mastercard|master card|amex|american express|credit|debit"

NUMBER_RULES: Final[tuple[Rule, ...]] = (
    rule(
        "CREDIT_CARD",
        r"(?<!\d[ .-])(?<!\+)\d(?:[ .-]?\d){11,18}(?![ .-]\d)",
        check=_card,
        cue=_CARD_CUE,
        cued=0.85,
        name="card",
        digits=12,
    ),
    rule(
        "CREDIT_CARD",
        r"\d{4}([ -])\d{4}\1\d{4}\1\d{4}",
        check=_card,
        name="card_in_fours",
        digits=16,
    ),
    # 62... is UnionPay, whose debit cards run to 19 digits and often travel without a valid check.
    rule("CREDIT_CARD", r"62\d{14,17}", 0.8, name="unionpay", digits=16),
    rule(
        "CREDIT_CARD",
        r"\d{3,4}",
        name="card_security_code",
        cue=r"(?:cvv2?|cvc2?|security code)\W{0,3}(?:is|code)?\W{0,3}$",
        cued=0.8,
        needs=("cv", "security code"),
    ),
    rule(
        "IBAN_CODE",
        r"[A-Za-z]{2}\d{2}(?:[A-Za-z0-9]{11,30}|(?:[ -][A-Za-z0-9]{4}){2,7}(?:[ -][A-Za-z0-9]{1,4})?)",
        check=_iban,
        cue=r"iban",
        name="iban",
        cued=0.9,
        latin=True,
        digits=4,
    ),
    rule(
        "BANK_ACCOUNT",
        r"\d{2}[- ]\d{2}[- ]\d{2}(?:[ ,/]+\d{8})?|\d(?:[ -]?\d){5,19}",
        name="account",
        cue=r"account(?: number| no\.?)?|acct\.?|a/c|sort code|routing(?: number)?|aba|bank",
        cued=0.85,
        needs=("acc", "a/c", "sort", "routing", "aba", "bank"),
    ),
    rule(
        "BANK_ACCOUNT",
        r"[A-Z]{4}[A-Z]{2}[A-Z0-9]{2}(?:[A-Z0-9]{3})?",
        name="bic",
        cue=r"swift|bic|swift[/ -]bic",
        cued=0.8,
        needs=("swift", "bic"),
    ),
    rule("BANK_ACCOUNT", r"[A-Z]{4}\d{10,18}", 0.7, name="account_form", latin=True, digits=10),
    *NATIONAL_ID_RULES,
    rule("NATIONAL_ID", r"\d{3}-\d{2}-\d{4}", 0.95, name="us_ssn_form", digits=9),
    rule(
        "NATIONAL_ID",
        r"[A-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-Z]",
        0.8,
        name="gb_nino_form",
        latin=True,
        digits=6,
    ),
    rule(
        "NATIONAL_ID",
        r"\d{17}[\dXx]|[1-9]\d{14}",
        cue=_ID_CUE,
        cued=0.85,
        name="long_id",
        needs=("id",),
    ),
    rule(
        "NATIONAL_ID", r"\d{7,8}\([0-9A-Za-z]\)", 0.8, name="id_with_check", needs=("(",), digits=7
    ),
    rule(
        "PASSPORT",
        r"[A-Z]{0,2}\d{6,9}[A-Z]?|[A-Z0-9]{9}",
        name="passport",
        cue=r"passport(?: number| no\.?| #)?|reisepass(?:nummer)?|passeport|pasaporte|passaporto",
        cued=0.9,
        needs=("pass", "pasaport"),
    ),
    rule("PASSPORT", r"[A-Z]\d{8}|E[A-Z]\d{7}", 0.6, name="passport_form", latin=True, digits=7),
    rule(
        "DRIVER_LICENSE",
        r"(?=[A-Za-z0-9-]{0,15}\d{4})[A-Za-z0-9][A-Za-z0-9-]{4,18}",
        name="driver_license",
        cue=r"driv(?:er'?s?|ing) licen[cs]e(?: number| no\.?)?|führerschein(?:nummer)?|permis de conduire|patente|carnet de conducir|dl(?: no\.?| number)?",
        cued=0.85,
        needs=("driv", "führer", "permis", "patente", "carnet", "dl"),
    ),
    rule(
        "PHONE_NUMBER",
        PHONE_PATTERN,
        check=phone_score,
        cue=PHONE_CUE,
        cued=0.8,
        name="phone",
        digits=7,
    ),
    rule(
        "IP_ADDRESS",
        r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?!\.?\d)",
        check=_ip,
        name="ipv4",
        needs=(".",),
        digits=4,
    ),
    rule(
        "IP_ADDRESS",
        r"(?<![:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![:.])",
        check=_ip,
        name="ipv6",
        needs=(":",),
    ),
    rule(
        "LOCATION",
        r"(?<![\d.])-?(?:[1-8]?\d|90)\.\d{4,10}(?:, ?| )-?(?:1[0-7]\d|180|[1-9]?\d)\.\d{4,10}(?![\d.])",
        0.8,
        name="coordinates",
        needs=(".",),
        digits=10,
    ),
    rule(
        "MAC_ADDRESS", r"[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}", 0.9, name="mac", needs=(":", "-")
    ),
    rule(
        "LICENSE_PLATE",
        r"[A-Z]{2}\d{2} ?[A-Z]{3}|[A-HJ-NP-TV-Z]{2}-\d{3}-[A-HJ-NP-TV-Z]{2}",
        0.6,
        name="plate_form",
        latin=True,
        digits=2,
    ),
    rule(
        "LICENSE_PLATE",
        r"(?=[A-Z0-9 -]{0,10}\d)[A-Z0-9]{1,4}(?:[ -]?[A-Z0-9]{1,5}){1,3}",
        name="plate",
        cue=r"licen[cs]e plate|number plate|registration(?: number)?|plate",
        cued=0.75,
        needs=("plate", "registration"),
    ),
    # What is left: long numbers are accounts, orders, tickets of somebody.
    rule(
        "ID_NUMBER",
        r"(?i:EMP|EID)[-_ ]?\d{4,10}",
        0.8,
        name="employee_form",
        needs=("emp", "eid"),
        digits=4,
    ),
    rule(
        "ID_NUMBER",
        r"(?=[A-Za-z0-9/-]{0,14}\d)[A-Za-z0-9][A-Za-z0-9/-]{3,24}",
        cue=r"(?:employee|staff|personnel|student|member(?:ship)?|patient|customer|client|subscriber|policy|claim|insurance|medicaid"
        r"|medical record|health plan|hospital|badge|enrol?lment|matriculation|loyalty|frequent flyer|vehicle identification"
        r"|serial|device|beneficiary)(?: (?:number|no\.?|id|num|#))(?: ?(?:is|:|=|#))?\s{0,2}|(?:mrn|imei|imsi|vin|uuid|guid)(?: (?:number|no\.?|is|code)|:)?\s{0,2}",
        cued=0.8,
        name="record_number",
        latin=True,
        digits=1,
    ),
    rule("ID_NUMBER", r"\d{9,30}", 0.5, name="long_number", digits=9),
    rule(
        "ID_NUMBER",
        r"(?=[A-Z0-9]{0,33}[A-Z])(?=[A-Z0-9]{0,26}\d{8})[A-Z0-9]{9,34}",
        0.5,
        name="long_code",
        latin=True,
        digits=8,
    ),
)
