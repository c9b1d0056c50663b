"""Hostile writing: values spelled, spaced, encoded or dressed up are found and covered whole."""

import base64
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.pii.disguises import View, reveal
from privacy.pii.patterns import PatternDetector
from privacy.pii.spelled import number_words
from tests.privacy.pii.places import found_over

DETECTOR = PatternDetector()


def encoded(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


DISGUISED = [
    ("CREDIT_CARD", "card {} ok", "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"),
    ("CREDIT_CARD", "card {} ok", "4111/1111/1111/1111"),
    ("CREDIT_CARD", "card {} ok", "4111_1111_1111_1111"),
    ("CREDIT_CARD", "card {} ok", "4111 1111\n1111 1111"),
    ("CREDIT_CARD", "card {} ok", "٤١١١١١١١١١١١١١١١"),
    ("CREDIT_CARD", "visa {}", "four one one one one one one one one one one one one one one one"),
    ("NATIONAL_ID", "ssn {} ok", "123 - 45 - 6789"),
    ("NATIONAL_ID", "ssn {} ok", "123\u200b-45\u200b-6789"),
    ("NATIONAL_ID", "ssn {} ok", "12\u00ad3-4\u00ad5-67\u00ad89"),
    ("NATIONAL_ID", "ssn {} ok", "①②③-④⑤-⑥⑦⑧⑨"),
    ("NATIONAL_ID", "ssn {}", "one two three dash four five dash six seven eight nine"),
    ("NATIONAL_ID", "note {} end", encoded("My SSN is 123-45-6789")),
    ("PHONE_NUMBER", "call {} now", "5 5 5 - 1 2 3 - 4 5 6 7"),
    ("PHONE_NUMBER", "call {} now", "555*123*4567"),
    ("PHONE_NUMBER", "call {} now", "5️⃣5️⃣5️⃣-1️⃣2️⃣3️⃣-4️⃣5️⃣6️⃣7️⃣"),
    ("PHONE_NUMBER", "call {} now", "+44 20 7946\n0958"),
    ("PHONE_NUMBER", "reach me on {}", "zero seven seven double zero nine hundred"),
    ("NATIONAL_ID", "ssn {} ok", "1-2-3-4-5-6-7-8-9"),
    ("NATIONAL_ID", "ssn {} ok", "123.45.6789"),
    ("EMAIL_ADDRESS", "mail {} today", "jsmith22 at gmail.com"),
    ("PHONE_NUMBER", "call {} now", "555-O12-3456"),
    ("PHONE_NUMBER", "call {}", "double five five one two three four five six seven"),
    ("PHONE_NUMBER", "phone {} now", "(555)\n123-4567"),
    ("EMAIL_ADDRESS", "write to {} please", "john at example dot com"),
    ("EMAIL_ADDRESS", "write to {} please", "john (at) example [dot] com"),
    ("EMAIL_ADDRESS", "mail {}", "john dot doe at mail dot example dot co dot uk"),
    ("EMAIL_ADDRESS", "write to {} please", "j\u200bo\u200bh\u200bn@exa\u200bmple.com"),
    ("EMAIL_ADDRESS", "write to {} please", "j\u043ehn.smith@ex\u0430mple.com"),
    ("EMAIL_ADDRESS", "write to {} please", "𝐣𝐨𝐡𝐧@𝐞𝐱𝐚𝐦𝐩𝐥𝐞.𝐜𝐨𝐦"),
    ("EMAIL_ADDRESS", "write to {} please", "j o h n @ e x a m p l e . c o m"),
    ("EMAIL_ADDRESS", "write to {} please", "john%2Esmith%40example%2Ecom"),
    ("EMAIL_ADDRESS", "write to {} please", "john&#64;example.com"),
    ("EMAIL_ADDRESS", "write to {} please", "john@\nexample.com"),
    ("EMAIL_ADDRESS", "write to {} please", encoded("john.smith@example.com")),
    ("EMAIL_ADDRESS", "write to {} please", b"john.smith@example.com".hex()),
    ("EMAIL_ADDRESS", "write to {} please", encoded("john%40example.com")),
    ("IBAN_CODE", "to {} today", "GB82.WEST.1234.5698.7654.32"),
    ("IBAN_CODE", "to {} today", "GB82 WEST 1234\n5698 7654 32"),
    ("IBAN_CODE", "to {} today", "G B 8 2 W E S T 1 2 3 4 5 6 9 8 7 6 5 4 3 2"),
    ("URL", "open {} please", "hxxps://evil[.]example[.]com/a"),
]


@pytest.mark.parametrize(("entity", "frame", "value"), DISGUISED)
def test_disguised_values_are_covered_whole(entity: str, frame: str, value: str) -> None:
    """One finding of the right kind covers every character of the disguised value."""
    assert found_over(DETECTOR, frame, value) == [(0, len(value), entity)]


@pytest.mark.parametrize(
    "text",
    [
        "How do I reset my VPN password on the laptop?",
        "scores: 3 4 5 2 4 4 5 3 4",
        "1 2 3 4 5 6 7 8 9 10",
        "totals 1,250,000 and 12,34,56,78 in 2024/01/02 at 10:30",
        "version 10.2.3.4567 of internationalization",
        "one, two, three, four, five, six, seven, eight, nine, ten",
        "one hundred twenty three thousand four hundred and five",
        "look at this, or at that; meet at noon",
        "one or two of the three, then four more, and five at last",
        "Привет, как дела? Пишите, когда сможете.",
        "Η συνάντηση είναι την Τρίτη.",
        "nice 👍🏽 work 👩‍👩‍👧, thanks",
        "a & b &amp; c; 100% of 50% and 20%off",
        "नमस्ते, कल मिलते हैं।",
    ],
)
def test_ordinary_writing_is_not_suspected(text: str) -> None:
    """Lists, amounts, other scripts and emoji are no disguises of anything."""
    assert DETECTOR.detect(text) == ()


def test_texts_without_disguise_have_no_view() -> None:
    """What is written plainly is read once only."""
    for text in (
        "Please call 555-123-4567 about order 12345678 on 2024-05-06 at 10:30.",
        "Jörg Müller wohnt in Köln, Straße 5.",
        "",
    ):
        assert reveal(text) is None


@settings(max_examples=300, deadline=None)
@given(
    st.text(
        alphabet=st.sampled_from("aбо1 2.-/@%40&#;\n\u200b\u00ad𝐣٤①=+Ax中"),
        max_size=80,
    )
)
def test_findings_map_back_into_the_text(text: str) -> None:
    """Whatever the text, a view's characters stand for ordered, non-empty parts of it."""
    view = reveal(text)
    if view is None:
        return
    assert len(view.text) == len(view.starts) == len(view.ends) == len(view.changed)
    assert all(
        0 <= start < end <= len(text) for start, end in zip(view.starts, view.ends, strict=True)
    )
    assert all(left <= right for left, right in pairwise(view.starts))
    assert any(view.changed) or len(view.text) == 0


def test_edits_keep_their_places() -> None:
    """Replacing, removing and lengthening parts of a text keeps what each character stands for."""
    text = "ab--cd"
    view = View(text, range(6), range(1, 7), [False] * 6).edited([(1, 2, "XYZ"), (2, 4, "")])
    assert view.text == "aXYZcd"
    assert list(view.starts) == [0, 1, 1, 1, 4, 5]
    assert list(view.ends) == [1, 2, 2, 4, 5, 6]


def test_number_words_need_company() -> None:
    """A few number words in prose stay words."""
    assert number_words("one of the two or three people, four at most") == []
    assert number_words("five five five one two three four") != []
