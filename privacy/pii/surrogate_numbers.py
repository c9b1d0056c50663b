"""Numbers that stand for others, by a key: cards, accounts, telephones and identifiers.

Separators, grouping and case stay, check digits are valid, and where a range is set aside for tests
or fiction the number comes from it.
"""

import datetime as dt
import hmac
from collections.abc import Sequence
from typing import Final, TypeVar

import regex

from privacy.pii import surrogate_lists as lists
from privacy.pii.rules_numbers import luhn
from privacy.pii.scripts import HAN, digits_of

T = TypeVar("T")
_DIGIT: Final = regex.compile(r"[0-9]")


class Dice:
    """Draws that follow from a key and a label alone (HMAC-SHA-512 in counter mode)."""

    def __init__(self, key: bytes, label: str) -> None:
        self._key = key
        self._label = label.encode("utf-8", "surrogatepass")
        self._block = 0
        self._pool = 0
        self._left = 1

    def below(self, bound: int) -> int:
        """A number in [0, bound); its bias is below 2^-64."""
        if self._left < bound << 64:
            data = self._block.to_bytes(4, "big") + self._label
            self._pool = int.from_bytes(hmac.digest(self._key, data, "sha512"), "big")
            self._left = 1 << 512
            self._block += 1
        self._pool, drawn = divmod(self._pool, bound)
        self._left //= bound
        return drawn

    def of(self, choices: Sequence[T]) -> T:
        """One of the choices."""
        return choices[self.below(len(choices))]


def in_case(name: str, like: str) -> str:
    """``name`` in the case of ``like``."""
    if len(like) > 1 and like.isupper():
        return name.upper()
    return name.lower() if like.islower() else name


def letter(like: str, dice: Dice) -> str:
    """A letter in the case of ``like``."""
    drawn = "ABCDEFGHJKLMNPRSTUVWXYZ"[dice.below(23)]
    return drawn.lower() if like.islower() else drawn


def _character(like: str, dice: Dice) -> str:
    """Another character of the same class."""
    if "0" <= like <= "9":
        return str(dice.below(10))
    if HAN.match(like):
        return dice.of(lists.GIVEN_ZH)
    return letter(like, dice) if like.isalpha() else like


def shape(value: str, dice: Dice) -> str:
    """Other letters and digits in the form of ``value``."""
    return "".join(_character(character, dice) for character in value)


def _with_digits(value: str, digits: str) -> str:
    """``value`` with its digits, in order, replaced by others."""
    given = iter(digits)
    return str(_DIGIT.sub(lambda match: next(given, match.group()), value))


def filled(value: str, made: str) -> str:
    """``value`` with its letters and digits, in order, replaced by others in its case."""
    given = iter(made)
    return str(
        regex.sub("[0-9A-Za-z]", lambda match: in_case(next(given, "0"), match.group()), value)
    )


def drawn_digits(count: int, dice: Dice) -> str:
    """So many digits."""
    return "".join(str(dice.below(10)) for _ in range(count))


def card(value: str, dice: Dice) -> str:
    """A number from the test ranges of the same brand and length, with a valid check digit."""
    digits = digits_of(value)
    tests = {"3": "378282", "4": "424242", "5": "555555", "6": "601111"}
    head = "620000" if digits.startswith("62") else tests.get(digits[:1], "999999")
    body = head + drawn_digits(max(0, len(digits) - 7), dice)
    return _with_digits(value, next(body + c for c in "0123456789" if luhn(body + c)))


def iban(value: str, dice: Dice) -> str:
    """Same country and length, other account, valid check digits (ISO 7064, MOD 97-10)."""
    compact = regex.sub(r"[^0-9A-Za-z]", "", value).upper()
    if not regex.fullmatch(r"[A-Z]{2}[0-9]{2}[0-9A-Z]{4,30}", compact):
        return shape(value, dice)
    account = shape(compact[4:], dice)
    number = "".join(str(int(character, 36)) for character in f"{account}{compact[:2]}00")
    return filled(value, f"{compact[:2]}{98 - int(number) % 97:02d}{account}")


def phone(value: str, dice: Dice) -> str:
    """Same country and writing. North American numbers come from 555-0100 to 555-0199."""
    digits = digits_of(value)
    international = value.strip().startswith(("+", "00", "(+"))
    # "1-415-…" and "+1 415 …"; Chinese mobile numbers have 11 digits and begin with 1, too.
    lead = 1 if len(digits) == 11 and regex.match(r"\W*1\W", value) else 0
    national = digits[lead:]
    if international and digits.startswith("1") and len(digits) == 11:
        lead, national = 1, digits[1:]
    own_country = lead == 1 or not international
    american = own_country and len(national) == 10 and national[0] in "23456789"
    if american:
        area = dice.of(("202", "212", "303", "312", "404", "415", "512", "617", "702", "808"))
        return _with_digits(value, f"{digits[:lead]}{area}55501{drawn_digits(2, dice)}")
    kept = len(digits) - min(7, max(4, len(digits) - 3))
    if international:
        kept = max(kept, min(4, len(digits) - 4))
    return _with_digits(value, digits[:kept] + drawn_digits(len(digits) - kept, dice))


def national_id(value: str, dice: Dice) -> str:
    """Other digits; a Chinese resident ID keeps a real region, a date and a valid check digit."""
    compact = regex.sub(r"[\s-]", "", value).upper()
    if not regex.fullmatch(r"[0-9]{17}[0-9X]", compact):
        return shape(value, dice)
    born = dt.date(1955, 1, 1) + dt.timedelta(days=dice.below(18_000))
    body = f"{dice.of(lists.REGIONS_ZH)}{born:%Y%m%d}{drawn_digits(3, dice)}"
    total = sum(int(digit) * (2 ** (17 - i) % 11) for i, digit in enumerate(body))
    return filled(value, body + "10X98765432"[total % 11])


def id_number(value: str, dice: Dice) -> str:
    """Other characters of the same shape; a unified social credit code stays valid (GB 32100)."""
    compact = value.strip().upper()
    if not regex.fullmatch(r"[0-9A-HJ-NPQRTUWXY]{2}[0-9]{6}[0-9A-HJ-NPQRTUWXY]{10}", compact):
        return shape(value, dice)
    alphabet = "0123456789ABCDEFGHJKLMNPQRTUWXY"
    body = f"91{dice.of(lists.REGIONS_ZH)}" + "".join(dice.of(alphabet) for _ in range(9))
    total = sum(alphabet.index(c) * (3**i % 31) for i, c in enumerate(body))
    return body + alphabet[-total % 31]
