"""Placeholders are consistent, exact to restore in whole or in pieces, and never swap people."""

from itertools import pairwise

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from policies.model import Action
from privacy.pii.entities import Span
from privacy.pii.errors import RedactionUnavailable, RefusedEntity
from privacy.pii.placeholders import GRAMMAR, LONGEST, LOOKS_LIKE
from privacy.pii.restoring import Originals, StreamRestorer
from privacy.pii.session import RedactionSession
from tests.privacy.pii.fakes import FailingDetector, ToldDetector, WildDetector

PEOPLE = {
    "Ruth Baker": "PERSON",
    "Geoffrey Wright": "PERSON",
    "王磊": "PERSON",
    "ruth@corp.example": "EMAIL_ADDRESS",
    "+44 191 496 0063": "PHONE_NUMBER",
}
PIECES = st.sampled_from(
    [
        *PEOPLE,
        "ruth baker",
        "RUTH  BAKER",
        "<PERSON_1>",
        "< person_1 >",
        "<PERSON_2>",
        "<Person 1>",
        "<PERSON_1.1>",
        "<TEXT_1>",
        "<EMAIL_ADDRESS_1>",
        "<EMAIL ADDRESS_1>",
        "<PERSON>",
        "<",
        ">",
        "<PERSON_",
        "PERSON_1>",
        "_1",
        " ",
        "\n",
        "text",
        "，",
        "1",
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=4), max_size=14).map("".join)


@given(st.lists(TEXTS, min_size=1, max_size=4))
@example(["<PERSON_1>", "Ruth Baker <PERSON_1>"])
@example(["<PERSON_<PERSON_1>1>"])
def test_restoring_gives_the_text_back(texts: list[str]) -> None:
    """restore(redact(text)) == text for every text, also with placeholders of its own."""
    session = RedactionSession(ToldDetector(PEOPLE))
    redacted = session.redact_many(texts)
    assert [session.restore(text) for text in redacted] == texts
    later = [session.redact(text) for text in texts]
    assert [session.restore(text) for text in later] == texts
    assert [session.restore(text) for text in redacted] == texts


@settings(max_examples=300)
@given(st.lists(TEXTS, min_size=1, max_size=3), st.integers(0, 10**6))
def test_restoring_is_exact_whatever_is_found(texts: list[str], seed: int) -> None:
    """Exactness does not depend on where findings begin and end."""
    session = RedactionSession(WildDetector(seed))
    redacted = session.redact_many(texts)
    assert [session.restore(text) for text in redacted] == texts


@given(TEXTS)
def test_no_value_is_left(text: str) -> None:
    """No value that was found stands in the redacted text, in any case or spacing."""
    redacted = RedactionSession(ToldDetector(PEOPLE)).redact(f"Ruth Baker {text}")
    shown = LOOKS_LIKE.sub("\0", redacted)
    assert not any(value in shown for value in PEOPLE)


@settings(max_examples=300)
@given(TEXTS, st.lists(st.integers(0, 200), max_size=12))
def test_a_stream_restores_as_the_whole(text: str, cuts: list[int]) -> None:
    """Fed in any pieces, a stream gives what restoring the whole gives, holding little back."""
    session = RedactionSession(ToldDetector(PEOPLE))
    redacted = session.redact(f"{text} Ruth Baker and 王磊 {text}")
    edges = sorted({0, len(redacted), *(cut for cut in cuts if cut < len(redacted))})
    stream = session.stream_restorer()
    given_out = ""
    for start, end in pairwise(edges):
        given_out += stream.feed(redacted[start:end])
        held = redacted[:end]
        assert session.restore(held).startswith(given_out)
        assert stream.held <= LONGEST
        waiting = held[end - stream.held :]
        assert not waiting or regex.fullmatch(GRAMMAR, waiting, partial=True)
    assert given_out + stream.flush() == session.restore(redacted)


def test_every_character_fed_alone() -> None:
    """A stream of single characters restores, and ordinary text passes at once."""
    stream = StreamRestorer(Originals({"<PERSON_1>": "Ruth Baker"}))
    assert [stream.feed(c) for c in "a < q"] == ["a", " ", "", "", "< q"]
    out = [stream.feed(c) for c in "<PERSON_1>!"]
    assert out[:-2] == [""] * 9
    assert out[-2:] == ["Ruth Baker", "!"]
    # A capital inside a word begins nothing.
    assert [stream.feed(c) for c in "xPa"] == ["x", "P", "a"]
    assert [stream.feed(c) for c in " Pa"] == [" ", "", "Pa"]
    assert stream.feed("<PERSON_") == ""
    assert stream.flush() == "<PERSON_"
    assert stream.flush() == ""


@pytest.mark.parametrize(
    "written",
    [
        "<person_1>",
        "< PERSON_1 >",
        "<Person 1>",
        "<PERSON-1>",
        "<PERSON_01>",
        "<  Person_1>",
        "<PERSON_1.9>",
        "<PERSON 1>",
        "<PERSON1>",
        "<PERSON: 1>",
        "<PERSONS_1>",
        "[PERSON_1]",
        "[Person 1]",
        "(PERSON_1)",
        "(PERSON 1)",
        "{PERSON_1}",
        "PERSON_1",
        "PERSON-1",
        "PERSON\\_1",
        "\\<PERSON\\_1\\>",
        "&lt;PERSON_1&gt;",
        "\\u003cPERSON_1\\u003e",
        "《PERSON_1》",
        "【PERSON_1】",
        "＜Person_1＞",
    ],
)
def test_rewritten_placeholders_are_restored(written: str) -> None:
    """Models change case and spacing of a placeholder; it is restored all the same."""
    originals = Originals({"<PERSON_1>": "Ruth Baker"})
    assert originals.restore(f"Dear {written},") == "Dear Ruth Baker,"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("<PERSON_1>'s desk", "Ruth Baker's desk"),
        ("<PERSON_1's> desk", "Ruth Baker's desk"),
        ("PERSON_1's desk", "Ruth Baker's desk"),
        ("two PERSON_1s", "two Ruth Bakers"),
        ("**<PERSON_1>** and `<PERSON_1>`", "**Ruth Baker** and `Ruth Baker`"),
        ("请<PERSON_1>来，PERSON_1在", "请Ruth Baker来，Ruth Baker在"),
        ("<<PERSON_1>>", "<Ruth Baker>"),
        ("PERSON_1.5 m", "Ruth Baker.5 m"),
        ("MY_PERSON_1 PERSON_12 person_1 (person 1)", "MY_PERSON_1 PERSON_12 person_1 (person 1)"),
        ("&lt;TERM_1&gt; and \\u003cTERM_1\\u003e", 'R&amp;D "x" and R&D \\"x\\"'),
    ],
)
def test_what_stands_around_a_placeholder_stays(written: str, meant: str) -> None:
    """Genitives, plurals, Markdown and escapes survive; identifiers and prose are left alone."""
    originals = Originals({"<PERSON_1>": "Ruth Baker", "<TERM_1>": 'R&D "x"'})
    assert originals.restore(written) == meant


def test_unknown_placeholders_stay() -> None:
    """What this conversation never made is left as it is."""
    session = RedactionSession(ToldDetector(PEOPLE))
    session.redact("Ruth Baker")
    assert session.restore("<PERSON_2> <NOBODY_1> <PERSON>") == "<PERSON_2> <NOBODY_1> <PERSON>"


def test_one_value_one_placeholder_across_messages() -> None:
    """The same person has one number in every message; other spellings show that they are hers."""
    session = RedactionSession(ToldDetector(PEOPLE))
    first, second = session.redact_many(
        ["Ruth Baker met Geoffrey Wright.", "ruth  baker left; call +44 191 496 0063"]
    )
    assert first == "<PERSON_1> met <PERSON_2>."
    assert second == "<PERSON_1.1> left; call <PHONE_NUMBER_1>"
    assert session.redact("Geoffrey Wright, Ruth Baker") == "<PERSON_2>, <PERSON_1>"
    assert session.restore("<PERSON_2> thanks <PERSON_1>") == "Geoffrey Wright thanks Ruth Baker"


@given(st.lists(st.sampled_from(["Ann Lee", "Bob Ray", "Cid Fox", "ann lee"]), min_size=2))
def test_people_never_swap(names: list[str]) -> None:
    """Different people have different placeholders, and each restores to its own name."""
    told = dict.fromkeys(["Ann Lee", "Bob Ray", "Cid Fox", "ann lee"], "PERSON")
    session = RedactionSession(ToldDetector(told))
    placeholders = [session.redact(name) for name in names]
    for name, placeholder in zip(names, placeholders, strict=True):
        assert session.restore(placeholder) == name
    assert len(set(placeholders)) == len(set(names))


def test_conversations_share_nothing() -> None:
    """One request's placeholders mean nothing in another."""
    one, two = (RedactionSession(ToldDetector(PEOPLE)) for _ in range(2))
    redacted = one.redact("Ruth Baker")
    two.redact("Geoffrey Wright")
    assert two.restore(redacted) == "Geoffrey Wright"
    assert RedactionSession(ToldDetector({})).restore(redacted) == redacted


def test_actions_of_the_policy() -> None:
    """Each entity is replaced, taken out for good, kept or refused as the policy says."""
    actions: dict[str, Action] = {"EMAIL_ADDRESS": "redact", "PHONE_NUMBER": "allow"}
    session = RedactionSession(ToldDetector(PEOPLE), lambda entity: actions.get(entity, "replace"))
    redacted = session.redact("Ruth Baker ruth@corp.example +44 191 496 0063")
    assert redacted == "<PERSON_1> <EMAIL_ADDRESS> +44 191 496 0063"
    assert session.restore(redacted) == "Ruth Baker <EMAIL_ADDRESS> +44 191 496 0063"
    assert session.counts() == {"EMAIL_ADDRESS": 1, "PERSON": 1, "PHONE_NUMBER": 1}


def test_a_refused_entity_refuses_the_text_without_naming_the_value() -> None:
    """Refusal names the kind of data and never the data; nothing of the batch is replaced."""
    session = RedactionSession(
        ToldDetector(PEOPLE), lambda entity: "block" if entity == "EMAIL_ADDRESS" else "replace"
    )
    with pytest.raises(RefusedEntity) as caught:
        session.redact_many(["Ruth Baker", "mail ruth@corp.example"])
    assert caught.value.entity == "EMAIL_ADDRESS"
    assert "ruth@" not in str(caught.value)
    assert session.values == {}
    assert session.counts() == {}


def test_a_failing_detector_gives_no_text() -> None:
    """Where personal data cannot be looked for, no text comes out."""
    with pytest.raises(RedactionUnavailable):
        RedactionSession(FailingDetector()).redact("anything")


def test_a_common_word_is_not_spread_from_a_name() -> None:
    """A one-word name repeats with its capital only; a full name in any case."""
    session = RedactionSession(ToldDetector({"Grace": "PERSON", "Ruth Baker": "PERSON"}))
    redacted = session.redact_many(["Grace met Ruth Baker", "a grace period for RUTH BAKER"])
    assert redacted[1] == "a grace period for <PERSON_2.1>"


class MoodyDetector(ToldDetector):
    """Takes one number for a telephone number or for an identifier, as the words beside it say."""

    def detect(self, text: str) -> tuple[Span, ...]:
        kind, score = ("PHONE_NUMBER", 0.9) if "call" in text else ("ID_NUMBER", 0.6)
        return tuple(
            Span(*match.span(), kind, score) for match in regex.finditer(r"138 ?1234 ?5678", text)
        )


def test_a_value_is_of_one_kind_in_the_whole_conversation() -> None:
    """Taken for two things in two messages, or in two turns, a value still has one placeholder."""
    session = RedactionSession(MoodyDetector({}))
    texts = ["call 13812345678", "no. 138 1234 5678", "no. 13812345678"]
    made = ["call <PHONE_NUMBER_1>", "no. <PHONE_NUMBER_1.1>", "no. <PHONE_NUMBER_1>"]
    assert session.redact_many(texts) == made
    later = RedactionSession(MoodyDetector({}))
    assert later.redact("no. 13812345678") == "no. <ID_NUMBER_1>"
    assert later.redact("call 13812345678") == "call <ID_NUMBER_1>"
