"""People who don't exist, each with one identity: name, e-mail, phone, IBAN, card, address.

Nobody's data is used. E-mail addresses end in domains that RFC 2606 section 3 reserves. Phone
numbers come from ranges kept for fiction (North America 555-01XX, Ofcom's drama numbers) or, in
China, where no such range exists, have a block of four zeros. Card numbers, IBANs and resident IDs
are random, but pass their checksums, because detectors look for that.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, Literal

from faker import Faker

Locale = Literal["en_US", "en_GB", "zh_CN"]

_DOMAINS: Final = ("example.com", "example.org", "example.net")
_IBAN_LOCALES: Final = ("en_GB", "de_DE", "fr_FR", "nl_NL")
_US_AREA_CODES: Final = (
    "206", "212", "214", "303", "312", "404", "415", "503", "512",
    "602", "612", "617", "702", "713", "718", "805", "904", "916",
)  # fmt: skip
_GB_DRAMA_PREFIXES: Final = (
    ("20", "7946"), ("113", "496"), ("114", "496"), ("115", "496"), ("116", "496"), ("117", "496"),
    ("118", "496"), ("121", "496"), ("131", "496"), ("141", "496"), ("151", "496"), ("161", "496"),
)  # fmt: skip
_CN_MOBILE_PREFIXES: Final = ("133", "135", "138", "139", "150", "158", "159", "177", "186", "189")
_CN_REGIONS: Final = ("110105", "310104", "320102", "330106", "420106", "440305", "510107")
_SURNAMES_ZH: Final = (
    ("王", "wang"), ("李", "li"), ("张", "zhang"), ("刘", "liu"), ("陈", "chen"), ("杨", "yang"),
    ("赵", "zhao"), ("黄", "huang"), ("周", "zhou"), ("吴", "wu"), ("徐", "xu"), ("孙", "sun"),
    ("马", "ma"), ("朱", "zhu"), ("胡", "hu"), ("郭", "guo"), ("何", "he"), ("林", "lin"),
)  # fmt: skip
_GIVEN_ZH: Final = (
    ("伟", "wei"), ("芳", "fang"), ("娜", "na"), ("敏", "min"), ("静", "jing"), ("丽", "li"),
    ("强", "qiang"), ("磊", "lei"), ("洋", "yang"), ("艳", "yan"), ("勇", "yong"), ("军", "jun"),
    ("杰", "jie"), ("娟", "juan"), ("涛", "tao"), ("明", "ming"), ("超", "chao"), ("霞", "xia"),
    ("平", "ping"), ("刚", "gang"), ("梅", "mei"), ("文", "wen"), ("辉", "hui"), ("玲", "ling"),
    ("鑫", "xin"), ("雪", "xue"), ("晨", "chen"), ("宇", "yu"), ("佳", "jia"), ("欣", "xin"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Person:
    """One invented writer.

    Attributes:
        subject_id: opaque, "s-" and twelve hexadecimal digits.
        identity: slot of a training template to the value that fills it, all but the date.
    """

    subject_id: str
    locale: Locale
    identity: Mapping[str, str]


class People:
    """Invents people; every draw comes from the one random source given."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._fakers = {name: Faker(name) for name in ("en_US", "zh_CN", *_IBAN_LOCALES)}
        for faker in self._fakers.values():
            faker.seed_instance(rng.getrandbits(64))

    def invent(self, locale: Locale) -> Person:
        name, first_name, mailbox = self._name(locale)
        identity = {
            "name": name,
            "first_name": first_name,
            "email": f"{mailbox}@{self._rng.choice(_DOMAINS)}",
            "phone": self._phone(locale),
            "iban": self._iban(),
            "card": self._card(),
            "address": self._address(locale),
            "resident_id": self._resident_id(),
            "employee_id": f"EMP-{self._rng.randrange(10_000, 100_000)}",
        }
        return Person(f"s-{self._rng.getrandbits(48):012x}", locale, identity)

    def _name(self, locale: Locale) -> tuple[str, str, str]:
        """Full name, first name and the local part of an e-mail address derived from them."""
        rng = self._rng
        if locale == "zh_CN":
            surname, surname_latin = rng.choice(_SURNAMES_ZH)
            given = rng.sample(_GIVEN_ZH, k=rng.choice((1, 2, 2)))
            first = "".join(character for character, _ in given)
            first_latin = "".join(latin for _, latin in given)
            name = surname + first
        else:
            faker = self._fakers[locale]
            first, surname = str(faker.first_name()), str(faker.last_name())
            first_latin, surname_latin = (
                "".join(c for c in part.lower() if c.isascii() and c.isalpha())
                for part in (first, surname)
            )
            name = f"{first} {surname}"
        mailbox = rng.choice(
            (
                f"{first_latin}.{surname_latin}",
                f"{first_latin[0]}.{surname_latin}",
                f"{surname_latin}.{first_latin}",
                f"{first_latin}{rng.randrange(10, 100)}",
            )
        )
        return name, first, mailbox

    def _phone(self, locale: Locale) -> str:
        rng = self._rng
        if locale == "zh_CN":
            return f"{rng.choice(_CN_MOBILE_PREFIXES)}0000{rng.randrange(10_000):04d}"
        if locale == "en_US":
            area, line = rng.choice(_US_AREA_CODES), f"01{rng.randrange(100):02d}"
            return rng.choice(
                (f"({area}) 555-{line}", f"{area}-555-{line}", f"+1 {area} 555 {line}")
            )
        (area, exchange), line = rng.choice(_GB_DRAMA_PREFIXES), f"0{rng.randrange(1000):03d}"
        return rng.choice((f"0{area} {exchange} {line}", f"+44 {area} {exchange} {line}"))

    def _iban(self) -> str:
        iban = str(self._fakers[self._rng.choice(_IBAN_LOCALES)].iban())
        return _grouped(iban) if self._rng.random() < 0.5 else iban

    def _card(self) -> str:
        kind = self._rng.choice(("visa", "mastercard"))
        card = str(self._fakers["en_US"].credit_card_number(kind))
        return _grouped(card) if self._rng.random() < 0.5 else card

    def _resident_id(self) -> str:
        """Eighteen characters after GB 11643-1999; the last is the check of ISO 7064 MOD 11-2.

        Not Faker's, whose birthdays depend on the day it is asked.
        """
        born = date(1955, 1, 1) + timedelta(days=self._rng.randrange(45 * 365))
        body = f"{self._rng.choice(_CN_REGIONS)}{born:%Y%m%d}{self._rng.randrange(1, 1000):03d}"
        remainder = sum(int(digit) * pow(2, 17 - i, 11) for i, digit in enumerate(body)) % 11
        return body + "10X98765432"[remainder]

    def _address(self, locale: Locale) -> str:
        faker = self._fakers[locale]
        if locale == "zh_CN":
            house, flat = self._rng.randrange(1, 200), self._rng.randrange(101, 2500)
            return (
                f"{faker.city_name()}市{faker.district()}区{faker.street_name()}{house}号{flat}室"
            )
        if locale == "en_US":
            state = faker.state_abbr(include_territories=False)
            return f"{faker.street_address()}, {faker.city()}, {state} {faker.zipcode()}"
        return str(faker.address()).replace("\n", ", ")


def _grouped(number: str) -> str:
    return " ".join(number[start : start + 4] for start in range(0, len(number), 4))
