"""Telephone numbers: a cheap look at the shape first, the world's numbering plans where that is unsure.

Plans and formats are those of the phonenumbers library. It is asked only about numbers of at
least seven digits whose shape does not tell already, because one question costs as much as all
the patterns together.
"""

from functools import lru_cache
from typing import Any, Final

import regex

from privacy.pii.scripts import digits_of

LEAST_DIGITS: Final = 7
MOST_DIGITS: Final = 15
"""ITU-T E.164, section 6: an international number has at most 15 digits."""

_LEAST_ABROAD: Final = 10
REGIONS: Final = ("US", "GB", "DE", "FR", "ES", "IT", "IN", "AU", "NL", "BR", "JP")
"""Whose national plans are tried for numbers without a country code."""

_DATE: Final = regex.compile(
    r"(?:19|20)\d\d[-/. ]?(?:0?[1-9]|1[0-2])[-/. ]?(?:0?[1-9]|[12]\d|3[01])(?:[ T]\d.*)?"
    r"|\d{1,2}[-/.]\d{1,2}[-/.](?:19|20)?\d\d(?:[ T]\d.*)?|(?:19|20)\d\d ?[-/] ?(?:19|20)\d\d"
    r"|(?:0?[1-9]|1[0-2])/(?:19|20)\d\d ?- ?(?:0?[1-9]|1[0-2])/(?:19|20)\d\d"
)
_NORTH_AMERICAN: Final = regex.compile(
    r"(?:(?:\+|00)?1[-. ]?)?(?:\([2-9]\d\d\)[ -]?|[2-9]\d\d[-. /])\d{3}[-. ]\d{4}|\(\d{3}\) ?\d{3}-?\d{4}"
)
_PARENTHESES: Final = regex.compile(r"\(\+?\d{1,6}\)")
_CHINESE_LANDLINE: Final = regex.compile(r"0\d{2,3}[- ]?[2-9]\d{6,7}|[48]00-?\d{3}-?\d{4}")
_EXTENSION: Final = regex.compile(r"(?:[ ,;-]*(?:x|ext\.?|extension|转|分机)\s*\d{1,6})$", regex.I)
_SHORT_GROUPS: Final = ([3, 4], [3, 3, 4], [4, 6], [5, 5], [5, 6], [4, 7])

PHONE_PATTERN: Final = r"(?:\(?\+ ?|\()?\d(?:[ .()/-]{0,3}\d){6,16}(?:[ ,;-]{0,2}(?i:x|ext\.?|extension|转|分机) ?\d{1,6})?"
PHONE_CUE: Final = (
    r"phone|telephone|tel|call|calls|called|mobile|cell|cellphone|fax|whatsapp|contact|reach|ring|sms|text"
    r"|number(?: is)?|dial|handy|telefon|telefono|teléfono|téléphone|portable|móvil|cellulare|mobil"
)


def phone_score(match: Any) -> float | None:
    """Score of a run of digits and separators by its shape and by the numbering plans.

    Weak shapes need a cue; None where it is no number that one can dial.
    """
    text = match.group()
    number = _EXTENSION.sub("", text)
    digits = digits_of(number)
    count = len(digits)
    if not LEAST_DIGITS <= count <= MOST_DIGITS or _DATE.fullmatch(number):
        return None
    if len(number) < len(text):
        return 0.9
    if number.startswith(("+", "(+")) or (number.startswith("00") and count >= _LEAST_ABROAD):
        return 0.95 if dials(number) else 0.9
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
    if groups in _SHORT_GROUPS and count != 8:
        return 0.55
    return 0.6 if count >= 8 and written_as_planned(number) else None


@lru_cache(maxsize=4096)
def dials(number: str) -> bool:
    """Whether a number with its country code is valid in that country's plan."""
    import phonenumbers

    international = regex.sub(r"^\(?(?:\+|00) ?", "+", number.replace("(0)", ""))
    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(international, None)))
    except phonenumbers.NumberParseException:
        return False


@lru_cache(maxsize=4096)
def written_as_planned(number: str) -> bool:
    """Whether a number is valid in one of ``REGIONS`` and grouped as people there group it.

    Without the grouping any ten digits would be somebody's number.
    """
    import phonenumbers

    groups = regex.findall(r"\d+", number)
    for region in REGIONS:
        try:
            parsed = phonenumbers.parse(number, region)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_valid_number_for_region(parsed, region):
            style = phonenumbers.PhoneNumberFormat.NATIONAL
            planned = regex.findall(r"\d+", phonenumbers.format_number(parsed, style))
            if len(planned) > 1 and planned == groups:
                return True
    return False
