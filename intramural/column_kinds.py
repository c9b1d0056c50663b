"""Columns whose name says what stands in them.

A cell that holds a name and nothing else gives a detector no sentence to go by; the head of its
column does. Such a cell is a finding as a whole, beside whatever the detector finds in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from privacy.pii.detector import Detector
from privacy.pii.entities import Span, resolve

_SCORE: Final = 0.9
_LONGEST: Final = 120

_HEADS: Final[Mapping[str, str]] = {
    "PERSON": "name fullname firstname lastname middlename givenname surname familyname maidenname "
    "customername clientname employeename contactname patientname personname ownername username "
    "姓名 名字 联系人 客户姓名 员工姓名 患者姓名 收件人 持卡人",
    "PHONE_NUMBER": "phone phonenumber mobile mobilenumber mobilephone cell cellphone tel telephone "
    "telephonenumber fax 电话 手机 手机号 手机号码 联系电话 电话号码",
    "EMAIL_ADDRESS": "email emailaddress mail 邮箱 电子邮箱 电子邮件",
    "ADDRESS": "address streetaddress homeaddress postaladdress street 地址 住址 家庭住址 联系地址",
    "NATIONAL_ID": "ssn nationalid idcard idcardnumber socialsecuritynumber taxid 身份证 身份证号 "
    "身份证号码",
    "DATE_OF_BIRTH": "dob dateofbirth birthdate birthday 生日 出生日期",
    "PASSPORT": "passport passportnumber 护照 护照号 护照号码",
    "BANK_ACCOUNT": "accountnumber bankaccount bankaccountnumber 银行账号 银行卡号",
    "SECRET": "password passwd apikey accesskey secret 密码",
}
_IDENTIFIERS: Final = frozenset(
    [
        "id",
        "uuid",
        "guid",
        "rowid",
        "recordid",
        "docid",
        "documentid",
        "messageid",
        "ticketid",
        "conversationid",
        "sessionid",
        "key",
        "hash",
        "digest",
        "sha256",
        "编号",
        "序号",
    ]
)
_CERTAIN: Final = 0.95
_KIND_OF: Final = {head: kind for kind, heads in _HEADS.items() for head in heads.split()}
_JOINTS: Final = re.compile(r"[\s_.-]+")
_DIGIT: Final = re.compile(r"\d")
_LATIN_NAME: Final = re.compile(r"[^\W\d_][\w'’.-]*(?: [^\W\d_][\w'’.-]*){0,4}")


def _digits(least: int) -> Callable[[str], bool]:
    return lambda value: len(_DIGIT.findall(value)) >= least


def _named(value: str) -> bool:
    """A name: no digits, and either Chinese of few characters or words with capitals."""
    if not _LATIN_NAME.fullmatch(value):
        return False
    return not value.isascii() or any(word[0].isupper() for word in value.split())


_CHECKS: Final[Mapping[str, Callable[[str], bool]]] = {
    "PERSON": _named,
    "PHONE_NUMBER": _digits(5),
    "EMAIL_ADDRESS": lambda value: "@" in value,
    "ADDRESS": lambda value: " " in value or not value.isascii(),
    "NATIONAL_ID": _digits(5),
    "DATE_OF_BIRTH": _digits(4),
    "PASSPORT": _digits(5),
    "BANK_ACCOUNT": _digits(5),
    "SECRET": lambda value: len(value) > 3,
}


def kind_of_column(path: str) -> str | None:
    """The kind that the values of a column are by its name; None for all other columns.

    Only whole columns: ``name`` deep inside of a record is as often that of a tool or a product.
    """
    return _KIND_OF.get(_JOINTS.sub("", path).casefold())


class HintedDetector:
    """A detector that also knows the column of each text; see :class:`Detector` for the promises.

    In a column of identifiers, a finding that covers a part of the value counts only if it is a name
    or certain.

    ``columns`` are those of the texts of the next ``detect_many``, one to each; empty: unknown.
    """

    def __init__(self, detector: Detector, allow: Iterable[str] = ()) -> None:
        self._detector = detector
        self._allow = {" ".join(value.casefold().split()) for value in allow}
        self.columns: Sequence[str] = ()

    @property
    def covers_names(self) -> bool:
        return self._detector.covers_names

    @property
    def entities(self) -> frozenset[str]:
        return self._detector.entities

    def detect(self, text: str) -> tuple[Span, ...]:
        return self._detector.detect(text)

    def detect_many(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        # Equal texts are looked at once: labels, greetings and signatures fill whole columns.
        distinct = list(dict.fromkeys(texts))
        known = dict(zip(distinct, self._detector.detect_many(distinct), strict=True))
        if len(self.columns) != len(texts):
            return [known[text] for text in texts]
        return [
            self._with_hint(text, column, known[text])
            for text, column in zip(texts, self.columns, strict=True)
        ]

    def _with_hint(self, text: str, column: str, found: tuple[Span, ...]) -> tuple[Span, ...]:
        kind = kind_of_column(column)
        value = text.strip()
        if found and _JOINTS.sub("", column).casefold() in _IDENTIFIERS:
            return tuple(s for s in found if _counts_in_identifier(s, value, text))
        if kind is None or kind not in self.entities or not 1 < len(value) <= _LONGEST:
            return found
        if " ".join(value.casefold().split()) in self._allow or not _CHECKS[kind](value):
            return found
        start = text.index(value)
        return resolve([*found, Span(start, start + len(value), kind, _SCORE, f"column:{kind}")])


def _counts_in_identifier(span: Span, value: str, text: str) -> bool:
    """Four digits of a running number are no postcode: there, part of a value says little."""
    return span.entity == "PERSON" or span.score >= _CERTAIN or span.of(text).strip() == value
