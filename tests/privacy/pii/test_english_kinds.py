"""Addresses of many countries, postcodes, ages, dates, phones, organisations and titles by their forms."""

import pytest

from privacy.pii.entities import ENTITIES
from privacy.pii.patterns import PatternDetector
from privacy.pii.phones import dials, written_as_planned
from tests.privacy.pii.places import found_over

DETECTOR = PatternDetector()
EVERYTHING = PatternDetector(entities=ENTITIES)

WHOLE = [
    ("ADDRESS", "at {} now", "350 5th Avenue, Suite 400, New York, NY 10118"),
    ("ADDRESS", "at {} now", "10 Downing Street, London SW1A 2AA"),
    ("ADDRESS", "at {} now", "12 Smith St, Richmond VIC 3121"),
    ("ADDRESS", "at {} now", "3 Joseph Colonnade\nSmithside, VIC, 2892"),
    ("ADDRESS", "at {}", "H.No. 46, Gandhi Nagar, Hyderabad-560023"),
    ("ADDRESS", "bei {} an", "Berliner Straße 12, 10115 Berlin"),
    ("ADDRESS", "bei {} an", "Hauptstr. 5"),
    ("ADDRESS", "au {} merci", "12 rue de la Paix, 75002 Paris"),
    ("ADDRESS", "en {} gracias", "Calle de Alcalá 45, 3º B, 28014 Madrid"),
    ("ADDRESS", "in {} grazie", "Via Roma, 12\n00184 Roma (RM)"),
    ("ADDRESS", "naar {} graag", "Keizersgracht 123, 1015 CJ Amsterdam"),
    ("ADDRESS", "send it to {} please", "PO Box 1234"),
    ("POSTCODE", "is {} covered?", "SW1A 1AA"),
    ("POSTCODE", "zip code {}.", "90210"),
    ("POSTCODE", "area {} again", "K1A 0B1"),
    ("AGE", "he is {} years old", "34"),
    ("AGE", "a {}-year-old man", "38"),
    ("AGE", "aged {} now", "7"),
    ("AGE", "age: {}", "52"),
    ("AGE", "pt, {} with cough", "34F"),
    ("AGE", "she is {} years old", "thirty-four"),
    ("AGE", "My brother just turned {}.", "60"),
    ("AGE", "Hi, I am {} and live alone", "29"),
    ("DATE_OF_BIRTH", "born on {} in", "March 3, 1980"),
    ("DATE_OF_BIRTH", "DOB: {}.", "03/12/1980"),
    ("DATE_OF_BIRTH", "geboren am {}.", "12. März 1980"),
    ("DATE_OF_BIRTH", "née le {}.", "12 mars 1980"),
    ("PHONE_NUMBER", "whatsapp {} works", "+55 11 98765-4321"),
    ("PHONE_NUMBER", "ruf {} an", "0151 23456789"),
    ("USER_HANDLE", "follow {} there", "@ruth_baker"),
    ("USER_HANDLE", "username: {}, thanks", "ruthb"),
    ("ID_NUMBER", "patient id: {} was seen", "PX-20391"),
    ("ID_NUMBER", "MRN {} was seen", "00482913"),
    ("ID_NUMBER", "VIN {} again", "1HGCM82633A004352"),
    ("LOCATION", "parked at {} now", "52.520008, 13.404954"),
]


@pytest.mark.parametrize(("entity", "frame", "value"), WHOLE)
def test_values_are_found_whole(entity: str, frame: str, value: str) -> None:
    """One finding of the right kind covers the value and nothing else."""
    assert found_over(DETECTOR, frame, value) == [(0, len(value), entity)]


ON_REQUEST = [
    ("DATE_TIME", "On {} it rained", "2007-01-17 23:08:55"),
    ("DATE_TIME", "since {}, nothing", "March 2021"),
    ("DATE_TIME", "see you on {}!", "Tuesday"),
    ("ORGANIZATION", "He left {} in May", "Aunt Bertha Inc."),
    ("ORGANIZATION", "She works for {} now", "Kessler Digital"),
    ("ORGANIZATION", "a letter from {} came", "Owens, Duran and Oneal"),
    ("TITLE", "ask {} Kuefer", "Dr."),
    ("TITLE", "Name\n{}\nPhone", "Network and computer systems administrator"),
    ("TITLE", "Marie, the {}, said", "Leasing consultant"),
    ("NATIONALITY", "I am {} but I live here", "cambodian"),
]


@pytest.mark.parametrize(("entity", "frame", "value"), ON_REQUEST)
def test_other_kinds_are_found_on_request(entity: str, frame: str, value: str) -> None:
    """Dates, firms, titles and nationalities are found where they are asked for, and only there."""
    text = frame.format(value)
    assert (value, entity) in [(s.of(text), s.entity) for s in EVERYTHING.detect(text)]
    assert not any(s.entity == entity for s in DETECTOR.detect(text))


@pytest.mark.parametrize(
    "text",
    [
        "I am 20 minutes late and 5 miles away, about 30% done.",
        "Spring 2024 was mild; Engineering 101 starts in room 5.",
        "Reply within 48 hours, at most 3 times, on page 12.",
        "The Main Street project is on track for 2027.",
        "He put it at #15, and I would put it at #1.",
        "In via of 5 steps the pass rate rose.",
        "email me at noon, not at the dot of one",
    ],
)
def test_numbers_in_prose_are_left_alone(text: str) -> None:
    """Durations, courses, ranks and amounts are neither ages nor addresses."""
    assert DETECTOR.detect(text) == ()


def test_numbering_plans_are_asked_with_their_grouping() -> None:
    """A number is somebody's where its country writes it that way, not by its digits alone."""
    assert written_as_planned("06 12 34 56 78")
    assert written_as_planned("11 98765-4321")
    assert not written_as_planned("12 34 56 78 9")
    assert dials("+44 (0)117 496 0533")
    assert not dials("+999 12345678")
