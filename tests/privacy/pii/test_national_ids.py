"""Identity, tax and health numbers of nine countries and more, by check digit and by the word beside them."""

import pytest

from privacy.pii.entities import Span
from privacy.pii.national_ids import IDENTIFIERS, NATIONAL_ID_RULES
from privacy.pii.rules import find_all

# Published specimens; each passes its check.
SPECIMENS = [
    ("us_ssn", "SSN", "536-90-4399"),
    ("us_itin", "ITIN", "912-90-3456"),
    ("us_ein", "EIN", "91-1144442"),
    ("gb_nino", "National Insurance number", "AB 12 34 56 C"),
    ("gb_nhs", "NHS number", "943 476 5870"),
    ("gb_utr", "UTR", "1955839661"),
    ("eu_vat", "VAT number", "GB980780684"),
    ("eu_vat", "USt-IdNr.", "DE136695976"),
    ("de_idnr", "Steuer-ID", "36 574 261 809"),
    ("de_pension_insurance", "Rentenversicherungsnummer", "15 070649 C 103"),
    ("fr_nir", "numéro de sécurité sociale", "2 95 10 99 126 111 93"),
    ("fr_siren", "SIREN", "552 008 443"),
    ("fr_siren", "SIRET", "73282932000074"),
    ("es_dni", "DNI", "54362315K"),
    ("es_nie", "NIE", "X-2482300-W"),
    ("es_cif", "CIF", "A13585625"),
    ("it_codice_fiscale", "codice fiscale", "RCCMNL83S18D969H"),
    ("it_partita_iva", "partita IVA", "00743110157"),
    ("in_aadhaar", "Aadhaar", "2341 2341 2346"),
    ("in_pan", "PAN", "AAPPV8261K"),
    ("in_gstin", "GSTIN", "27AAPFU0939F1ZV"),
    ("au_tfn", "TFN", "123 456 782"),
    ("au_abn", "ABN", "83 914 571 673"),
    ("au_medicare", "Medicare card", "2123 45670 1"),
]
DIGITS_ALONE = {
    "us_ssn",
    "us_itin",
    "gb_nhs",
    "gb_utr",
    "fr_siren",
    "it_partita_iva",
    "au_tfn",
}


def found(text: str, name: str) -> list[Span]:
    return [s for s in find_all(NATIONAL_ID_RULES, text) if s.source == f"rule:{name}"]


@pytest.mark.parametrize(("name", "word", "value"), SPECIMENS)
def test_a_valid_number_beside_its_word_is_certain(name: str, word: str, value: str) -> None:
    """A number that passes its check beside its word is found whole with the highest score."""
    for text in (f"My {word}: {value}, thanks", f"{value} is my {word}"):
        (span,) = found(text, name)
        assert (span.of(text), span.score) == (value, 1.0)


@pytest.mark.parametrize(("name", "word", "value"), SPECIMENS)
def test_a_mistyped_number_beside_its_word_is_still_found(name: str, word: str, value: str) -> None:
    """One changed digit lowers the score and does not hide the number."""
    places = [i for i, c in enumerate(value) if c.isdigit()]
    at = places[len(places) // 2]
    wrong = value[:at] + str((int(value[at]) + 1) % 10) + value[at + 1 :]
    text = f"My {word}: {wrong}, thanks"
    (span,) = found(text, name)
    assert span.of(text) == wrong
    assert 0.5 <= span.score <= 1.0
    if name not in {"in_pan", "gb_nino", "us_ssn", "us_itin", "us_ein"}:
        assert span.score < 1.0


@pytest.mark.parametrize(("name", "word", "value"), SPECIMENS)
def test_digits_alone_are_never_taken_by_a_checksum(name: str, word: str, value: str) -> None:
    """A run of bare digits without its word is no identifier, though its checksum holds."""
    digits = "".join(c for c in value if c.isalnum())
    if digits.isdigit() and name != "fr_nir":
        assert found(f"Ticket {digits} is closed.", name) == []
    if name in DIGITS_ALONE:
        assert found(f"Row {value} of the table.", name) == []


def test_every_identifier_has_a_name_of_its_own() -> None:
    """A finding's source tells one identifier from all others."""
    names = [one.name for one in IDENTIFIERS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "text",
    [
        "Version 2.10.3 of 2026-03-14 fixes 128 of 1024 faults in room B12.",
        "The order 4711-0815 costs 1,250,000.50 EUR (ISO 27001:2022).",
        "Chapter A1234567 refers to IEEE 802.11ax and RFC 9162.",
    ],
)
def test_other_numbers_are_left_alone(text: str) -> None:
    """Versions, amounts, dates and standards are no identifiers."""
    assert find_all(NATIONAL_ID_RULES, text) == []
