"""The English models by themselves: what they promise to the detector that asks them."""

import pytest

from privacy.pii.entities import Span
from privacy.pii.spacy_names import SpacyNames
from privacy.pii.token_classifier import TokenClassifier
from tests.privacy.pii.models import pii_models

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def names() -> SpacyNames:
    folder = pii_models().spacy_en
    assert folder is not None
    return SpacyNames(folder)


def test_scores_do_not_depend_on_the_neighbours() -> None:
    """The classifier gives a text exactly the same scores alone and beside any other texts."""
    folder = pii_models().token_classifier_en
    assert folder is not None
    classifier = TokenClassifier(folder)
    text = "Ruth Baker, 12 High Street, Leeds"
    others = ["ok", "!!! 4111 1111 1111 1111 " * 20, "call Tom", text.lower()]
    (alone,) = classifier.find([text], 0.01)
    assert alone
    assert classifier.find([others[1], text, *others], 0.01)[1] == alone


def passages(names: SpacyNames, text: str, *known: str) -> list[str]:
    """The passages left to read where the known values are covered, checked for their offsets."""
    spans = [Span(at := text.index(value), at + len(value), "PERSON", 0.9) for value in known]
    found = list(names.unexplained(text, spans))
    assert all(text[at : at + len(passage)] == passage for at, passage in found)
    return [passage for _, passage in found]


def test_sentences_without_an_unknown_capital_are_not_read(names: SpacyNames) -> None:
    """What is known, and what is spelt with a capital because it opens a sentence, needs no reading."""
    text = "Please ask Ruth Baker. We don't know. It's open on Monday!"
    assert passages(names, text, "Ruth Baker") == []
    assert passages(names, text, "Ruth") == ["Please ask Ruth Baker. "]


def test_neighbouring_sentences_are_read_together(names: SpacyNames) -> None:
    """Passages keep sentences, and titles with their names, together."""
    text = "This is fine. Ask Dr. Okafor. Then Okello. That is all. JOHN came"
    assert passages(names, text) == ["Ask Dr. Okafor. Then Okello. ", "JOHN came"]


def test_words_that_are_names_too_are_read(names: SpacyNames) -> None:
    """A word that may be a name counts as one, whatever else it may be."""
    assert passages(names, "Ask Will.") == passages(names, "Ask Will.", "Ask") == ["Ask Will."]


@pytest.mark.parametrize("text", ["follow up with ruth baker. she knows", "élodie ça va"])
def test_texts_without_capitals_are_read_whole(names: SpacyNames, text: str) -> None:
    """Where nothing has a capital, a name has none either."""
    assert passages(names, text) == [text]
