"""How well findings cover labelled personal data: by characters, and by kind.

A character that a label covers is personal; one that a finding covers is hidden. Precision is the
share of the hidden characters that are personal, recall the share of the personal ones that are
hidden, and F-beta their weighted harmonic mean (van Rijsbergen 1979, chapter 7): F2 counts recall
twice as much, because what is left in a text does more harm than what is hidden without need.

Knows labels, texts and findings; it opens no file and no detector.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np
import numpy.typing as npt

from privacy.pii.entities import ENTITIES, Span

Counts = npt.NDArray[np.int64]

_Z: Final = 1.959964
"""Two-sided 95 %."""

_RESAMPLES: Final = 1000
_AT_ONCE: Final = 4_000_000
_SEED: Final = 0

_SPELT: Final[Mapping[tuple[str, ...], str]] = {
    ("PERSON",): "PERSON PER NAME FULLNAME FIRSTNAME LASTNAME MIDDLENAME GIVENNAME SURNAME "
    "FAMILYNAME PERSONNAME NAMESTUDENT PATIENT DOCTOR 姓名 人名",
    ("TITLE", "PERSON"): "TITLE PREFIX JOBTITLE SUFFIX 称谓 职位",
    ("ADDRESS", "LOCATION", "POSTCODE"): "ADDRESS STREETADDRESS STREET STREETNAME BUILDINGNUMBER "
    "BUILDINGNUM SECONDARYADDRESS HOMEADDRESS 地址 住址",
    (
        "LOCATION",
        "ADDRESS",
    ): "LOCATION LOC GPE CITY STATE COUNTRY COUNTY FAC REGION PLACE 地点 城市",
    ("POSTCODE", "ADDRESS", "LOCATION"): "POSTCODE ZIPCODE ZIP POSTALCODE 邮编 邮政编码",
    ("ORGANIZATION",): "ORGANIZATION ORGANISATION ORG COMPANY COMPANYNAME HOSPITAL 公司 组织 机构",
    ("NATIONALITY", "LOCATION"): "NATIONALITY NRP NORP 国籍 民族",
    ("DATE_TIME", "DATE_OF_BIRTH"): "DATETIME DATE TIME 日期 时间",
    ("DATE_OF_BIRTH", "DATE_TIME"): "DATEOFBIRTH DOB BIRTHDATE BIRTHDAY 生日 出生日期",
    ("AGE", "DATE_TIME"): "AGE 年龄",
    (
        "PHONE_NUMBER",
    ): "PHONENUMBER PHONE TELEPHONE TELEPHONENUM MOBILE MOBILEPHONE CELL FAX FAXNUMBER "
    "LANDLINE 电话 手机 手机号 手机号码 电话号码 座机",
    ("EMAIL_ADDRESS",): "EMAILADDRESS EMAIL MAIL 邮箱 电子邮件 电子邮箱",
    ("URL",): "URL DOMAINNAME DOMAIN WEBSITE URLPERSONAL 网址",
    (
        "CREDIT_CARD",
        "BANK_ACCOUNT",
    ): "CREDITCARD CREDITCARDNUMBER CARDNUMBER DEBITCARD CARD BANKCARD "
    "BANKCARDNUMBER 银行卡 银行卡号 信用卡 信用卡号",
    ("BANK_ACCOUNT", "IBAN_CODE"): "BANKACCOUNT BANKNUMBER ACCOUNTNUMBER ACCOUNTNUM BBAN "
    "ROUTINGNUMBER SWIFTCODE SWIFT BIC 账号 银行账号",
    ("IBAN_CODE",): "IBANCODE IBAN",
    ("CRYPTO",): "CRYPTO BITCOINADDRESS ETHEREUMADDRESS",
    (
        "NATIONAL_ID",
        "ID_NUMBER",
    ): "NATIONALID SSN SOCIALNUM SOCIALSECURITYNUMBER ITIN NHS NHSNUMBER "
    "NINO NIF NIE CPF PESEL PERSONALID IDCARD IDCARDNUMBER RESIDENTID FISCALCODE AADHAAR PAN TFN TAXID "
    "TAXNUM MEDICARE NRIC GOVERNMENTID IDENTITYNUMBER CNID CHINAID 身份证 身份证号 身份证号码 通行证",
    ("ID_NUMBER", "NATIONAL_ID"): "IDNUMBER IDNUM ID EMPLOYEEID CUSTOMERID ACCOUNTID MEDICALRECORD "
    "MEDICALLICENSE ABN ACN VAT VATCODE SOCIALCREDITCODE CREDITCODE USCC VIN 统一社会信用代码 工号",
    ("PASSPORT",): "PASSPORT PASSPORTNUMBER PASSPORTNUM 护照 护照号 护照号码",
    ("DRIVER_LICENSE", "NATIONAL_ID"): "DRIVERLICENSE DRIVERLICENSENUM DRIVERSLICENSE "
    "DRIVINGLICENCE DRIVERLICENSENUMBER 驾驶证 驾照",
    (
        "LICENSE_PLATE",
    ): "LICENSEPLATE LICENCEPLATE PLATE PLATENUMBER VEHICLEREGISTRATION 车牌 车牌号",
    ("IP_ADDRESS",): "IPADDRESS IP IPV4 IPV6",
    ("MAC_ADDRESS",): "MACADDRESS MAC",
    ("SECRET",): "SECRET PASSWORD APIKEY TOKEN PIN CREDENTIAL 密码",
    (
        "USER_HANDLE",
    ): "USERHANDLE USERNAME HANDLE SOCIALHANDLE WECHAT WECHATID QQ QQNUMBER 微信 微信号 QQ号",
    ("TERM",): "TERM",
}
_KINDS: Final = {word: kinds for kinds, words in _SPELT.items() for word in words.split()}
_BIO: Final = ("B-", "I-", "E-", "S-", "L-", "U-")
_COUNTRY: Final = 2


def kinds_of(label: str) -> tuple[str, ...]:
    """Our kinds for a label of a common corpus, the closest first; empty for an unknown label.

    Case, separators, a BIO prefix and a country prefix do not matter: ``B-STREET_ADDRESS`` is an
    ``ADDRESS``, ``US_SSN`` a ``NATIONAL_ID``. All the kinds given count as the right type.
    """
    name = label.strip().upper()
    if name.startswith(_BIO):
        name = name[2:]
    country, _, rest = name.partition("_")
    tight = "".join(character for character in name if character.isalnum())
    if tight in _KINDS:
        return _KINDS[tight]
    if name in ENTITIES:
        return (name,)
    return kinds_of(rest) if rest and len(country) == _COUNTRY else ()


@dataclass(frozen=True, slots=True)
class Mark:
    """A label: ``text[start:end]`` is what ``label`` says."""

    start: int
    end: int
    label: str


@dataclass(frozen=True)
class Share:
    """A share in [0, 1] with its 95 % interval; ``value`` is None where nothing could be counted."""

    value: float | None
    least: float | None = None
    greatest: float | None = None

    def as_json(self) -> dict[str, float | list[float] | None]:
        """``{"value", "interval"}``."""
        interval = None
        if self.least is not None and self.greatest is not None:
            interval = [self.least, self.greatest]
        return {"value": self.value, "interval": interval}


@dataclass(frozen=True)
class KindScore:
    """What became of one label.

    ``recall``: share of its characters that any finding covers; ``strict_recall``: that a finding
    of one of ``kinds`` covers. ``precision``: share of the characters found as ``kinds`` whose label
    means the kind they were found as; labels that share a kind share what is wrong with it.
    ``whole`` counts the marks that are covered to the last character.
    """

    label: str
    kinds: tuple[str, ...]
    records: int
    marks: int
    whole: int
    characters: int
    precision: Share
    recall: Share
    strict_recall: Share

    @property
    def f1(self) -> float | None:
        """Of precision and recall."""
        return f_score(self.precision.value, self.recall.value, 1)

    @property
    def f2(self) -> float | None:
        """Of precision and recall."""
        return f_score(self.precision.value, self.recall.value, 2)

    def as_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            "kinds": list(self.kinds),
            "records": self.records,
            "marks": self.marks,
            "whole": self.whole,
            "characters": self.characters,
            "precision": self.precision.as_json(),
            "recall": self.recall.as_json(),
            "strict_recall": self.strict_recall.as_json(),
            "f1": self.f1,
            "f2": self.f2,
        }


@dataclass(frozen=True)
class Scores:
    """The whole evaluation. Figures alone: nothing of any text is in it."""

    records: int
    characters: int
    labelled: int
    found: int
    precision: Share
    recall: Share
    f1: Share
    f2: Share
    kinds: tuple[KindScore, ...]
    unlabelled: Mapping[str, int]
    """Characters found outside every label, by kind."""

    def as_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            "records": self.records,
            "characters": self.characters,
            "labelled_characters": self.labelled,
            "found_characters": self.found,
            "precision": self.precision.as_json(),
            "recall": self.recall.as_json(),
            "f1": self.f1.as_json(),
            "f2": self.f2.as_json(),
            "types": {kind.label: kind.as_json() for kind in self.kinds},
            "unlabelled_characters": dict(self.unlabelled),
        }


class Evaluation:
    """Counts record after record; keeps three numbers of each and no text."""

    def __init__(self) -> None:
        self._hits: list[int] = []
        self._found: list[int] = []
        self._labelled: list[int] = []
        self._characters = 0
        self._records: Counter[str] = Counter()
        self._marks: Counter[str] = Counter()
        self._whole: Counter[str] = Counter()
        self._length: Counter[str] = Counter()
        self._covered: Counter[str] = Counter()
        self._right: Counter[str] = Counter()
        self._of_kind: Counter[str] = Counter()
        self._rightly: Counter[str] = Counter()
        self._kind_records: Counter[str] = Counter()
        self._outside: Counter[str] = Counter()

    def add(self, length: int, marks: Sequence[Mark], found: Iterable[Span]) -> None:
        """One text of ``length`` characters with its labels and its disjoint findings."""
        spans = list(found)
        hidden = _painted(length, [(span.start, span.end) for span in spans])
        personal = _painted(length, [(mark.start, mark.end) for mark in marks])
        self._hits.append(int((hidden & personal).sum()))
        self._found.append(int(hidden.sum()))
        self._labelled.append(int(personal.sum()))
        self._characters += length
        self._add_labels(length, marks, spans, hidden)
        self._add_kinds(length, marks, spans, personal)

    def _add_labels(
        self,
        length: int,
        marks: Sequence[Mark],
        spans: Sequence[Span],
        hidden: npt.NDArray[np.bool_],
    ) -> None:
        for label in {mark.label for mark in marks}:
            kinds = kinds_of(label)
            right = _painted(length, [(s.start, s.end) for s in spans if s.entity in kinds])
            own = [mark for mark in marks if mark.label == label]
            here = _painted(length, [(mark.start, mark.end) for mark in own])
            self._records[label] += 1
            self._marks[label] += len(own)
            self._whole[label] += sum(bool(hidden[m.start : m.end].all()) for m in own)
            self._length[label] += int(here.sum())
            self._covered[label] += int((here & hidden).sum())
            self._right[label] += int((here & right).sum())

    def _add_kinds(
        self,
        length: int,
        marks: Sequence[Mark],
        spans: Sequence[Span],
        personal: npt.NDArray[np.bool_],
    ) -> None:
        for kind in {span.entity for span in spans}:
            here = _painted(length, [(s.start, s.end) for s in spans if s.entity == kind])
            meant = _painted(length, [(m.start, m.end) for m in marks if kind in kinds_of(m.label)])
            self._kind_records[kind] += 1
            self._of_kind[kind] += int(here.sum())
            self._rightly[kind] += int((here & meant).sum())
            if outside := int((here & ~personal).sum()):
                self._outside[kind] += outside

    def scores(self) -> Scores:
        """Everything counted so far.

        Intervals of the overall figures are percentiles of a bootstrap over records (Efron and
        Tibshirani 1993, chapter 13), with a fixed seed. Those by kind are Wilson's (1927), with one
        trial to a record that has the kind: characters of one record are no independent trials.
        Wilson's also take the place of a bootstrap that saw no spread, as where nothing is missed.
        """
        hits, found, labelled = (
            np.array(values, np.int64) for values in (self._hits, self._found, self._labelled)
        )
        precision, recall, f1, f2 = _overall(hits, found, labelled)
        kinds = [self._kind(label) for label, _ in self._length.most_common()]
        return Scores(
            len(hits),
            self._characters,
            int(labelled.sum()),
            int(found.sum()),
            precision,
            recall,
            f1,
            f2,
            tuple(kinds),
            dict(self._outside.most_common()),
        )

    def _kind(self, label: str) -> KindScore:
        kinds = kinds_of(label)
        records, length = self._records[label], self._length[label]
        of_kind = sum(self._of_kind[kind] for kind in kinds)
        return KindScore(
            label=label,
            kinds=kinds,
            records=records,
            marks=self._marks[label],
            whole=self._whole[label],
            characters=length,
            precision=wilson(
                sum(self._rightly[kind] for kind in kinds),
                of_kind,
                sum(self._kind_records[kind] for kind in kinds),
            ),
            recall=wilson(self._covered[label], length, records),
            strict_recall=wilson(self._right[label], length, records) if kinds else Share(None),
        )


def f_score(precision: float | None, recall: float | None, beta: float) -> float | None:
    """F-beta; None where one of the two is unknown, 0 where both are 0."""
    if precision is None or recall is None:
        return None
    weighted = beta * beta * precision + recall
    return (1 + beta * beta) * precision * recall / weighted if weighted else 0.0


def wilson(count: int, total: int, trials: int) -> Share:
    """``count / total`` with Wilson's score interval (1927) for ``trials`` independent trials."""
    if not total or not trials:
        return Share(None)
    p = count / total
    square = _Z * _Z / trials
    middle = (p + square / 2) / (1 + square)
    half = _Z * sqrt(p * (1 - p) / trials + square / (4 * trials)) / (1 + square)
    # The bound that the share itself reaches is exact; rounding must not put it beside the share.
    return Share(p, 0.0 if p == 0 else middle - half, 1.0 if p == 1 else middle + half)


def _painted(length: int, ranges: Iterable[tuple[int, int]]) -> npt.NDArray[np.bool_]:
    marked = np.zeros(length, bool)
    for start, end in ranges:
        marked[start:end] = True
    return marked


def _overall(hits: Counts, found: Counts, labelled: Counts) -> tuple[Share, Share, Share, Share]:
    """Precision, recall, F1 and F2 with intervals; None where there is nothing to divide by."""
    point = _figures(hits.sum()[None], found.sum()[None], labelled.sum()[None])
    if not len(hits):
        return Share(None), Share(None), Share(None), Share(None)
    generator = np.random.default_rng(_SEED)
    resamples = int(np.clip(200 * _AT_ONCE // len(hits), 100, _RESAMPLES))
    sums: list[Counts] = []
    step = max(1, _AT_ONCE // len(hits))
    for first in range(0, resamples, step):
        rows = min(step, resamples - first)
        drawn = generator.integers(len(hits), size=(rows, len(hits)))
        sums.append(np.stack([values[drawn].sum(-1) for values in (hits, found, labelled)]))
    drawn_figures = _figures(*np.concatenate(sums, axis=1))
    trials = (
        int((found > 0).sum()),
        int((labelled > 0).sum()),
        int(((found > 0) | (labelled > 0)).sum()),
    )
    shares = []
    for place, (value, figures) in enumerate(zip(point, drawn_figures, strict=True)):
        known = figures[np.isfinite(figures)]
        if not np.isfinite(value[0]) or not len(known):
            shares.append(Share(None))
            continue
        share = float(value[0])
        least, greatest = (float(v) for v in np.percentile(known, (2.5, 97.5)))
        if least == greatest:
            fallback = wilson(round(share * 10**6), 10**6, trials[min(place, 2)])
            shares.append(Share(share, fallback.least, fallback.greatest))
        else:
            shares.append(Share(share, least, greatest))
    return shares[0], shares[1], shares[2], shares[3]


def _figures(hits: Counts, found: Counts, labelled: Counts) -> tuple[npt.NDArray[np.float64], ...]:
    """Precision, recall, F1 and F2 of sums; NaN where there is nothing to divide by.

    F-beta from counts needs neither of the two to exist: (1+b2) tp / (b2 labelled + found).
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return (
            hits / found,
            hits / labelled,
            2 * hits / (labelled + found),
            5 * hits / (4 * labelled + found),
        )
