"""Realistic stand-ins: of the same kind, in the same script and form, by a key.

The same value and key always give the same surrogate, and a name's words are mapped one by one, so
that "Ruth" stays the first name of "Ruth Baker". Numbers keep their separators; cards, IBANs,
Chinese resident and credit codes keep valid check digits. Where a range is set aside for examples,
surrogates come from it (RFC 2606 names, RFC 5737, RFC 3849 and RFC 7042 addresses, 555-01xx phone
numbers, test cards); elsewhere an invented number may happen to be somebody's.

Knows nothing of conversations: that a surrogate is unlike all that was said is for them to see to.
"""

import datetime as dt
from collections.abc import Callable
from typing import Any, Final

import regex

from privacy.pii import surrogate_lists as lists
from privacy.pii.finishing import normalise
from privacy.pii.scripts import HAN, plain
from privacy.pii.surrogate_numbers import (
    Dice,
    card,
    drawn_digits,
    filled,
    iban,
    id_number,
    in_case,
    letter,
    national_id,
    phone,
    shape,
)

_TITLES: Final = frozenset(
    lists.words(
        "dr dr. prof prof. mr mr. mrs mrs. ms ms. miss sir dame herr frau m. mme señor señora van von "
        "de der den del della di da la le bin ibn al el jr jr. sr sr. phd md ii iii"
    )
)
_WORDS: Final = regex.compile(r"[\p{L}\p{M}]+\.?")
_DIGIT: Final = regex.compile(r"[0-9]")
_MONTHS: Final = lists.words(
    "January February March April May June July August September October November December"
)
_MONTH: Final = "|".join(f"{name[:3]}(?:{name[3:]})?" for name in _MONTHS)
_DATES: Final[tuple[tuple[Any, str], ...]] = tuple(
    (regex.compile(rf"(?i)^{pattern}$"), order)
    for pattern, order in (
        (r"(\d{4})(\s?[-/.年]\s?)(\d{1,2})(\s?[-/.月]\s?)(\d{1,2})([日号]?)", "ymd"),
        (r"(\d{1,2})([-/.])(\d{1,2})([-/.])(\d{4}|\d{2})()", "dmy"),
        (rf"(\d{{1,2}})((?:st|nd|rd|th)?(?: of)? )({_MONTH})(,? )(\d{{4}})()", "dmy"),
        (rf"({_MONTH})(\.? )(\d{{1,2}})((?:st|nd|rd|th)?,? )(\d{{4}})()", "mdy"),
        (r"(\d{4})()(\d{2})()(\d{2})()", "ymd"),
    )
)


class Surrogates:
    """Makes surrogates with one key of at least 16 bytes."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        shift = Dice(key, "shift of dates").below(300)
        self._shift = dt.timedelta(days=shift - 165 if shift < 150 else shift - 135)

    def make(self, value: str, entity: str, attempt: int = 0) -> str:
        """The surrogate of a value; further attempts give others. Never the value itself."""
        for further in range(attempt * 16, attempt * 16 + 16):
            made = self._make(plain(value), entity, further)
            if normalise(made, entity) != normalise(value, entity):
                return made
        # So short or odd that its form leaves nothing to change.
        return f"{entity.title().replace('_', ' ')} {Dice(self._key, value).below(10**6)}"

    def _make(self, value: str, entity: str, attempt: int) -> str:
        dice = Dice(self._key, f"{attempt}\0{entity}\0{normalise(value, entity)}")
        if entity == "PERSON":
            return self._person(value, attempt)
        maker = _MAKERS.get(entity)
        if maker is not None:
            return maker(value, dice)
        if entity in ("DATE_OF_BIRTH", "DATE_TIME"):
            return self._date(value, dice, attempt)
        return shape(value, dice)

    def _person(self, value: str, attempt: int) -> str:
        if HAN.search(value):
            return self._person_zh(value, attempt)
        words = list(_WORDS.finditer(value))
        named = [word for word in words if word.group().casefold() not in _TITLES] or words
        last = None if len(named) < 2 else (named[0] if "," in value else named[-1])
        parts, done = [], 0
        for word in words:
            parts.append(value[done : word.start()])
            parts.append(
                self._name(word.group(), word is last, attempt) if word in named else word.group()
            )
            done = word.end()
        return "".join([*parts, value[done:]])

    def _name(self, word: str, surname: bool, attempt: int) -> str:
        """A name for a word, in its case. Initials stay initials."""
        dice = Dice(self._key, f"{attempt}\0name\0{word.casefold()}")
        if len(word.strip(".")) == 1:
            return letter(word[0], dice) + word[1:]
        return in_case(dice.of(lists.SURNAMES if surname else lists.GIVEN), word)

    def _person_zh(self, value: str, attempt: int) -> str:
        if "·" in value or "•" in value:
            dot = "·" if "·" in value else "•"
            dice = Dice(self._key, f"{attempt}\0name\0{value}")
            return f"{dice.of(lists.FOREIGN_ZH)}{dot}{dice.of(lists.FOREIGN_SURNAMES_ZH)}"
        called = next((end for end in lists.ADDRESSED_ZH if value.endswith(end)), "")
        name = value[: len(value) - len(called)] or value
        head = 2 if name[:2] in lists.COMPOUND_ZH and len(name) > 2 else 1
        dice = Dice(self._key, f"{attempt}\0surname\0{name[:head]}")
        made = [dice.of(lists.SURNAMES_ZH if head == 1 else lists.COMPOUND_ZH)]
        for character in name[head:]:
            dice = Dice(self._key, f"{attempt}\0given\0{character}")
            made.append(dice.of(lists.GIVEN_ZH) if HAN.match(character) else character)
        return "".join([*made, called])

    def _date(self, value: str, dice: Dice, attempt: int) -> str:
        """The date moved by a number of days that is the same for all dates under the key."""
        for pattern, order in _DATES:
            match = pattern.match(value.strip())
            if match is None:
                continue
            fields = dict(zip(order, match.group(1, 3, 5), strict=True))
            moved = _moved(fields, self._shift + dt.timedelta(days=attempt))
            if moved is not None:
                first, second, third = (moved[field] for field in order)
                return f"{first}{match[2]}{second}{match[4]}{third}{match[6]}"
        for day in lists.DAYS:
            if day.casefold() == value.casefold():
                return in_case(dice.of(lists.DAYS), value)
        return str(_DIGIT.sub(lambda _: str(1 + dice.below(9)), value))


def _moved(fields: dict[str, str], by: dt.timedelta) -> dict[str, str] | None:
    """The fields of a date after a shift, each as wide as it was; None where it is no date."""
    named = not fields["m"].isdigit()
    month = (
        next(i for i, name in enumerate(_MONTHS, 1) if name[:3] == fields["m"][:3].title())
        if named
        else int(fields["m"])
    )
    day, swapped = int(fields["d"]), False
    if month > 12 >= day:
        day, month, swapped = month, day, True
    year = int(fields["y"])
    short = len(fields["y"]) == 2
    try:
        date = dt.date(year + (1900 if short else 0), month, day) + by
    except (ValueError, OverflowError):
        return None
    day, month = (date.month, date.day) if swapped else (date.day, date.month)
    made = f"{month:0{len(fields['m'])}d}"
    if named:
        name = _MONTHS[month - 1]
        made = in_case(name if len(fields["m"]) > 3 else name[:3], fields["m"])
    return {
        "d": f"{day:0{len(fields['d'])}d}",
        "m": made,
        "y": f"{date.year % 100:02d}" if short else f"{date.year:04d}",
    }


def _email(value: str, dice: Dice) -> str:
    """A made-up person at a domain reserved for documentation, in the same writing."""
    local, at, _ = value.partition("@")
    words = [dice.of(lists.GIVEN), dice.of(lists.SURNAMES)]
    made = (
        [word.lower() for word in words]
        if regex.search(r"[._-]", local)
        else [words[0][0].lower(), words[1].lower()]
    )
    joint = next((character for character in local if character in "._-"), "")
    number = drawn_digits(2, dice)
    return f"{joint.join(made)}{number}{at or '@'}{dice.of(lists.MAIL_HOSTS)}"


def _url(value: str, dice: Dice) -> str:
    scheme = regex.match(r"[A-Za-z][A-Za-z0-9+.-]*://", value)
    path = "" if "/" not in value[scheme.end() if scheme else 0 :].rstrip("/") else "/page"
    head = scheme.group() if scheme else ""
    return f"{head}{dice.of(lists.STREETS).lower()}{drawn_digits(3, dice)}.{dice.of(lists.MAIL_HOSTS)}{path}"


def _ip(value: str, dice: Dice) -> str:
    if ":" in value:
        return f"2001:db8::{dice.below(65_536):x}:{dice.below(65_536):x}"
    return f"{dice.of(('192.0.2', '198.51.100', '203.0.113'))}.{1 + dice.below(254)}"


def _mac(value: str, dice: Dice) -> str:
    return filled(value, f"00005e0053{dice.below(256):02x}")


def _age(value: str, dice: Dice) -> str:
    def moved(match: Any) -> str:
        age = int(match.group())
        by = 1 + dice.below(5)
        return str(age - by if age > by + 17 or age > 100 else age + by)

    return str(regex.sub(r"[0-9]{1,3}", moved, value, count=1))


def _location(value: str, dice: Dice) -> str:
    if HAN.search(value):
        ending = value[-1] if value[-1] in "省市县区镇村" else ""
        return dice.of(lists.CITIES_ZH) + ending
    return in_case(dice.of(lists.CITIES), value)


def _address(value: str, dice: Dice) -> str:
    if HAN.search(value):
        number, room = 1 + dice.below(300), 101 + dice.below(900)
        made = f"{dice.of(lists.CITIES_ZH)}市{dice.of(lists.STREETS_ZH)}路{number}号"
        return f"{made}{room}室" if regex.search("[室楼栋单元]", value) else made
    number = regex.sub(
        "[0-9]", lambda _: str(1 + dice.below(9)), (regex.findall("[0-9]+", value) or ["1"])[0]
    )
    made = f"{number} {dice.of(lists.STREETS)} {dice.of(lists.STREET_KINDS)}"
    return f"{made}, {dice.of(lists.CITIES)}" if "," in value or "\n" in value else made


def _organisation(value: str, dice: Dice) -> str:
    if HAN.search(value):
        ending = regex.search(
            "(?:股份|科技|集团|有限)*(?:公司|集团|银行|大学|医院|学院|中心)$", value
        )
        return dice.of(lists.ORGANISATIONS_ZH) + (ending.group() if ending else "公司")
    ending = regex.search(
        r",? (?:Inc|Ltd|LLC|GmbH|AG|plc|Corp|Group|Bank|University|Limited)\.?$", value
    )
    return dice.of(lists.ORGANISATIONS) + (ending.group() if ending else " Group")


def _nationality(value: str, dice: Dice) -> str:
    if HAN.search(value):
        return dice.of(lists.NATIONALITIES_ZH) + (value[-1] if value[-1] in "人籍" else "")
    return in_case(dice.of(lists.NATIONALITIES), value)


def _title(value: str, dice: Dice) -> str:
    return dice.of(lists.ADDRESSED_ZH if HAN.search(value) else lists.TITLES)


def _plate(value: str, dice: Dice) -> str:
    if value[:1] in lists.PLATES_ZH:
        return dice.of(lists.PLATES_ZH) + shape(value[1:], dice)
    return shape(value, dice)


_MAKERS: Final[dict[str, Callable[[str, Dice], str]]] = {
    "ADDRESS": _address,
    "AGE": _age,
    "CREDIT_CARD": card,
    "EMAIL_ADDRESS": _email,
    "IBAN_CODE": iban,
    "ID_NUMBER": id_number,
    "IP_ADDRESS": _ip,
    "LICENSE_PLATE": _plate,
    "LOCATION": _location,
    "MAC_ADDRESS": _mac,
    "NATIONALITY": _nationality,
    "NATIONAL_ID": national_id,
    "ORGANIZATION": _organisation,
    "PHONE_NUMBER": phone,
    "TITLE": _title,
    "URL": _url,
}
