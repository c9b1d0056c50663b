"""National identity, tax and health numbers: their forms, check digits and the words beside them.

The check digits are those of python-stdnum. A valid one raises the score; an invalid number is
still found where a word beside it says what it is, because real files hold mistyped numbers.
Bare runs of digits are never taken for an identifier by a weak checksum alone: one random
number in ten or eleven passes. Such numbers need their word.
"""

import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import regex

from privacy.pii.entities import Span
from privacy.pii.rules import ASCII, CUE_DISTANCE, LEFT, RIGHT, Rule, words

_AFTER: Final = 40
"""Characters behind a number in which its word counts too ("... is my NHS number")."""

_VALID_AND_CUED: Final = 1.0
_CUED: Final = 0.85

Valid = Callable[[str], bool]


@dataclass(frozen=True)
class Identifier:
    """One kind of number.

    ``alone`` is its score without a word beside it where the check digits are valid, ``formal``
    where they are not or where there is none to check; 0 means not found.
    """

    name: str
    entity: str
    pattern: Any
    valid: Valid | None
    cue: Any
    alone: float = 0.0
    formal: float = 0.0

    def score(self, text: str, start: int, end: int) -> float:
        """Score of ``text[start:end]``, which has this identifier's form."""
        valid = self.valid is not None and self.valid(text[start:end])
        before, after = text[max(0, start - CUE_DISTANCE) : start], text[end : end + _AFTER]
        if self.cue is not None and (self.cue.search(before) or self.cue.search(after)):
            return _VALID_AND_CUED if valid else _CUED
        return self.alone if valid else self.formal


def _stdnum(*modules: str) -> Valid:
    """Valid by one of these modules of python-stdnum, which are imported on first use."""

    def valid(value: str) -> bool:
        compact = value.replace("/", "").replace(".", "")
        return any(import_module(f"stdnum.{name}").is_valid(compact) for name in modules)

    return valid


def _icao_9303(value: str) -> bool:
    """ICAO Doc 9303 part 3, section 4.9: weights 7, 3, 1; the last digit is the check digit."""
    places = [int(character, 36) for character in value.upper() if character.isalnum()]
    total = sum(place * (7, 3, 1)[i % 3] for i, place in enumerate(places[:-1]))
    return total % 10 == places[-1]


def _medicare(value: str) -> bool:
    """Australian Medicare card: weights 1, 3, 7, 9 over eight digits; the ninth is the check."""
    digits = [int(character) for character in value if character.isdigit()]
    weights = (1, 3, 7, 9, 1, 3, 7, 9)
    return sum(w * d for w, d in zip(weights, digits, strict=False)) % 10 == digits[8]


def _insurance_de(value: str) -> bool:
    """German pension insurance number (VKVV section 4): digit sums of weighted digits, modulo 10."""
    plain = "".join(character for character in value.upper() if character.isalnum())
    digits = [int(d) for d in plain[:8] + f"{ord(plain[8]) - 64:02d}" + plain[9:]]
    weights = (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1)
    total = sum(sum(divmod(w * d, 10)) for w, d in zip(weights, digits, strict=False))
    return total % 10 == digits[-1]


def _identifier(
    name: str,
    pattern: str,
    valid: Valid | None,
    cue: str | None,
    alone: float = 0.0,
    formal: float = 0.0,
    entity: str = "NATIONAL_ID",
) -> Identifier:
    compiled = regex.compile(f"(?:{pattern}){RIGHT}", ASCII | regex.IGNORECASE)
    return Identifier(
        name, entity, compiled, valid, None if cue is None else words(cue), alone, formal
    )


# HMRC NIM39110: letters that are never given, and prefixes kept back.
_NINO: Final = regex.compile(
    r"(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z](?:[ -]?\d{2}){3}[ -]?[A-D]", ASCII
)

# Kinds of organisations are ID_NUMBER: they identify a person only where he trades alone.
IDENTIFIERS: Final[tuple[Identifier, ...]] = (
    # United States
    _identifier(
        "us_ssn",
        r"\d{3}([ .-]?)\d{2}\1\d{4}",
        _stdnum("us.ssn"),
        r"ssn|social(?: security)?(?: number| no\.?| #)?|itin|tax(?:payer)? id|last four",
    ),
    _identifier("us_itin", r"9\d{2}[ -]?[4-9]\d[ -]?\d{4}", _stdnum("us.itin"), r"itin|tax id"),
    _identifier(
        "us_ein",
        r"\d{2}-\d{7}|\d{9}",
        lambda value: "-" in value and _stdnum("us.ein")(value),
        r"f?ein|employer id(?:entification)?(?: number)?|tax id|federal tax",
        0.6,
        entity="ID_NUMBER",
    ),
    _identifier(
        "us_mbi",
        r"[1-9][AC-HJKMNP-RT-Y][0-9AC-HJKMNP-RT-Y]\d-?[AC-HJKMNP-RT-Y][0-9AC-HJKMNP-RT-Y]\d-?"
        r"[AC-HJKMNP-RT-Y]{2}\d{2}",
        None,
        r"medicare|mbi|beneficiary",
        formal=0.7,
    ),
    # United Kingdom
    _identifier(
        "gb_nino",
        r"[A-Z]{2}(?:[ -]?\d{2}){3}[ -]?[A-Z]?",
        lambda value: _NINO.fullmatch(value) is not None,
        r"nino|ni (?:number|no\.?)|national insurance(?: number| no\.?)?",
        0.85,
    ),
    _identifier(
        "gb_nhs",
        r"\d{3}([ -]?)\d{3}\1\d{4}",
        _stdnum("gb.nhs"),
        r"nhs(?: number| no\.?)?|health (?:service )?number",
    ),
    _identifier(
        "gb_utr",
        r"\d{5} ?\d{5}K?",
        _stdnum("gb.utr"),
        r"utr|unique taxpayer(?: reference)?|tax reference|self[ -]assessment",
    ),
    _identifier(
        "eu_vat",
        r"(?:GB|DE|FR|ES|IT|NL|BE|AT|PL|PT|IE|SE|DK|FI|CZ|HU|RO|GR|EL) ?(?=[A-Z]{0,2}\d)[A-Z0-9]{2,12}(?:[ .-]\d[A-Z0-9]{0,4}){0,4}",
        lambda value: sum(c.isdigit() for c in value) >= 7 and _stdnum("eu.vat", "gb.vat")(value),
        r"vat(?: number| no\.?| reg(?:istration)?)?|ust-?id(?:nr)?\.?|tva|btw|iva|umsatzsteuer",
        0.9,
        entity="ID_NUMBER",
    ),
    _identifier(
        "gb_vat",
        r"\d{3} ?\d{4} ?\d{2}",
        _stdnum("gb.vat"),
        r"vat(?: number| no\.?| reg(?:istration)?)?",
        entity="ID_NUMBER",
    ),
    # Germany
    _identifier(
        "de_idnr",
        r"\d{2}([ /]?)\d{3}\1\d{3}\1\d{3}",
        lambda value: _stdnum("de.idnr")(value.replace(" ", "")) and " " in value,
        r"steuer-?id(?:entifikationsnummer)?(?:nr)?\.?|steuerliche identifikationsnummer|id-?nr\.?|idnr"
        r"|tax id|steuer-?identifikation|tin",
        0.85,
    ),
    _identifier(
        "de_steuernummer",
        r"\d{2,3}/\d{3}/\d{4,5}",
        _stdnum("de.stnr"),
        r"steuer-?n(?:umme)?r\.?|st\.?-?nr\.?|tax number",
        0.7,
        0.55,
    ),
    _identifier(
        "de_identity_card",
        r"[CFGHJ-NPRTV-Z][CFGHJ-NPRTV-Z0-9]{8}\d?(?:<*D)?",
        lambda value: (
            len(value) == 10 and sum(c.isdigit() for c in value) >= 3 and _icao_9303(value)
        ),
        r"personalausweis(?:nummer|nr\.?)?|ausweis(?:nummer|nr\.?)?|reisepass(?:nummer)?|identity card",
        0.6,
    ),
    _identifier(
        "de_pension_insurance",
        r"\d{2} ?\d{6} ?[A-Z] ?\d{3}",
        _insurance_de,
        r"rentenversicherung(?:snummer)?|sozialversicherung(?:snummer)?|rv-?nr\.?|sv-?n(?:umme)?r\.?",
        0.85,
        0.55,
    ),
    # France
    _identifier(
        "fr_nir",
        r"[12] ?\d{2} ?(?:0[1-9]|1[0-2]|[2-4]\d|50|[6-9]\d) ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3}(?: ?\d{2})?",
        _stdnum("fr.nir"),
        r"nir|s[ée]curit[ée] sociale|num[ée]ro de s[ée]cu|n° ?s[ée]cu|insee|assur[ée] social",
        0.95,
    ),
    _identifier(
        "fr_siren",
        r"\d{3} ?\d{3} ?\d{3}(?: ?\d{5})?",
        _stdnum("fr.siren", "fr.siret"),
        r"siren|siret|rcs",
        entity="ID_NUMBER",
    ),
    _identifier(
        "fr_nif",
        r"[0-3]\d(?: ?\d){11}",
        _stdnum("fr.nif"),
        r"num[ée]ro fiscal|num[ée]ro spi|spi|nif|r[ée]f[ée]rence fiscale",
    ),
    _identifier(
        "fr_cni",
        r"\d{12}|[A-Z0-9]{9}",
        None,
        r"carte (?:nationale )?d.identit[ée]|cni",
    ),
    # Spain
    _identifier(
        "es_dni",
        r"\d{2}\.?\d{3}\.?\d{3}[ -]?[A-Z]",
        lambda value: _stdnum("es.dni")(value.replace(".", "")),
        r"dni|nif|documento nacional|identidad",
        0.9,
    ),
    _identifier(
        "es_nie", r"[XYZ][ -]?\d{7}[ -]?[A-Z]", _stdnum("es.nie"), r"nie|extranjero", 0.95, 0.7
    ),
    _identifier(
        "es_cif",
        r"[A-HJNP-SUVW][ -]?\d{7}[ -]?[0-9A-J]",
        _stdnum("es.cif"),
        r"cif|nif",
        0.85,
        entity="ID_NUMBER",
    ),
    _identifier(
        "es_nss",
        r"\d{2}[/ -]?\d{8}[/ -]?\d{2}",
        None,
        r"seguridad social|nss|afiliaci[óo]n|naf",
    ),
    # Italy; the letters of the second set stand for digits where two people share a code.
    _identifier(
        "it_codice_fiscale",
        r"[A-Z]{3} ?[A-Z]{3} ?[\dLMNP-V]{2}[A-EHLMPRST][\dLMNP-V]{2} ?[A-Z][\dLMNP-V]{3}[A-Z]",
        _stdnum("it.codicefiscale"),
        r"codice fiscale|c\.? ?f\.?|fiscal code|tax code",
        1.0,
        0.85,
    ),
    _identifier(
        "it_partita_iva",
        r"\d{11}",
        _stdnum("it.iva"),
        r"p(?:artita|\.)? ?iva|p\.iva|vat",
        entity="ID_NUMBER",
    ),
    # India
    _identifier(
        "in_aadhaar",
        r"[2-9]\d{3}([ .-]?)\d{4}\1\d{4}",
        lambda value: _stdnum("in_.aadhaar")(value.replace("-", "")) and not value.isdigit(),
        r"aadh?aa?r(?: card)?|uidai|uid|आधार",
        0.75,
    ),
    _identifier(
        "in_pan",
        r"[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z]",
        lambda value: value.isupper(),
        r"pan(?: card| number| no\.?)?|permanent account",
        0.85,
    ),
    _identifier(
        "in_gstin",
        r"\d{2}[A-Z]{5}\d{4}[A-Z][1-9A-Z]Z[0-9A-Z]",
        _stdnum("in_.gstin"),
        r"gst(?:in)?",
        0.95,
        0.85,
        entity="ID_NUMBER",
    ),
    _identifier(
        "in_epic", r"[A-Z]{3}\d{7}", _stdnum("in_.epic"), r"voter(?: id)?|epic|election", 0.55
    ),
    # Australia
    _identifier(
        "au_tfn", r"\d{3}([ -]?)\d{3}\1\d{2,3}", _stdnum("au.tfn"), r"tfn|tax file(?: number)?"
    ),
    _identifier(
        "au_abn",
        r"\d{2} ?\d{3} ?\d{3} ?\d{3}",
        lambda value: _stdnum("au.abn")(value) and " " in value,
        r"abn|australian business(?: number)?",
        0.6,
        entity="ID_NUMBER",
    ),
    _identifier(
        "au_acn",
        r"\d{3} ?\d{3} ?\d{3}",
        _stdnum("au.acn"),
        r"acn|australian company",
        entity="ID_NUMBER",
    ),
    _identifier(
        "au_medicare",
        r"[2-6]\d{3} ?\d{5} ?\d(?:[ /-]?[1-9])?",
        lambda value: _medicare(value) and " " in value,
        r"medicare(?: card)?(?: number| no\.?)?",
        0.7,
    ),
    # Others whose form alone is telling, or whose word is
    _identifier(
        "ca_sin",
        r"\d{3}([ -]?)\d{3}\1\d{3}",
        lambda value: _stdnum("ca.sin")(value) and not value.isdigit(),
        r"sin|social insurance(?: number)?",
        0.55,
    ),
    _identifier(
        "nl_bsn", r"\d{9}|\d{4}\.\d{2}\.\d{3}", _stdnum("nl.bsn"), r"bsn|burgerservicenummer|sofi"
    ),
    _identifier(
        "be_nn",
        r"\d{2}\.?\d{2}\.?\d{2}-?\d{3}\.?\d{2}",
        lambda value: _stdnum("be.nn")(value) and not value.isdigit(),
        r"rijksregister(?:nummer)?|registre national|niss|insz",
        0.9,
    ),
    _identifier("ch_ahv", r"756\.?\d{4}\.?\d{4}\.?\d{2}", _stdnum("ch.ssn"), r"ahv|avs", 0.95, 0.8),
    _identifier(
        "se_personnummer",
        r"(?:\d{2})?\d{6}[-+]\d{4}",
        _stdnum("se.personnummer"),
        r"personnummer|cpr|personal (?:identity )?number",
        0.85,
    ),
    _identifier(
        "fi_hetu", r"\d{6}[-+A]\d{3}[0-9A-Z]", _stdnum("fi.hetu"), r"hetu|henkil.tunnus", 0.9
    ),
    _identifier("pl_pesel", r"\d{11}", _stdnum("pl.pesel"), r"pesel"),
    _identifier("pt_nif", r"\d{3} ?\d{3} ?\d{3}", _stdnum("pt.nif"), r"nif|contribuinte"),
    _identifier("ie_pps", r"\d{7}[A-W][A-IW]?", _stdnum("ie.pps"), r"ppsn?", 0.7),
    _identifier(
        "br_cpf",
        r"\d{3}\.\d{3}\.\d{3}-\d{2}|\d{11}",
        lambda value: "-" in value and _stdnum("br.cpf")(value),
        r"cpf",
        0.95,
    ),
    _identifier("sg_nric", r"[STFGM]\d{7}[A-Z]", None, r"nric|fin", formal=0.75),
    _identifier("kr_rrn", r"\d{6}-[1-8]\d{6}", None, r"rrn|resident registration", formal=0.8),
    _identifier(
        "mx_curp", r"[A-Z]{4}\d{6}[HM][A-Z]{5}[0-9A-Z]\d", _stdnum("mx.curp"), r"curp", 0.95, 0.85
    ),
)


# Where an identifier may begin: at a digit, or at a letter that digits follow soon.
_START: Final = regex.compile(
    rf"{LEFT}(?:[0-9]|(?=[A-Za-z]{{1,3}} ?[A-Za-z]{{0,3}}[- ]?[0-9])[A-Za-z])", ASCII
)
_DIGITS_SOON: Final = regex.compile(r"(?:[^0-9]{0,6}[0-9]){4}", ASCII)


_BY_FIRST: Final = {
    first: tuple(one for one in IDENTIFIERS if one.pattern.match(first, partial=True))
    for first in string.ascii_letters + string.digits
}
"""First character -> the identifiers that may begin with it."""


@dataclass(frozen=True)
class IdentifierRule(Rule):
    """All identifiers at once, tried only where one may begin: dozens of scans would be slow."""

    @property
    def entities(self) -> frozenset[str]:
        return frozenset(one.entity for one in IDENTIFIERS)

    def find(self, text: str) -> Iterator[Span]:
        for begin in self.pattern.finditer(text):
            at = begin.start()
            if not _DIGITS_SOON.match(text, at):
                continue
            for one in _BY_FIRST.get(text[at], ()):
                match = one.pattern.match(text, at)
                if match is None:
                    continue
                score = one.score(text, at, match.end())
                if score:
                    yield Span(at, match.end(), one.entity, score, f"rule:{one.name}")


NATIONAL_ID_RULES: Final[tuple[Rule, ...]] = (IdentifierRule("NATIONAL_ID", _START, digits=4),)
