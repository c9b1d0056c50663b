"""Records lose their personal data for good; answers are scanned for what prompts did not bring."""

from collections.abc import Callable

import pytest

from policies.model import Action
from privacy.pii.errors import RedactionUnavailable
from privacy.pii.leaks import find_new_personal_data, surviving
from privacy.pii.patterns import PatternDetector
from privacy.pii.scrub import Scrubber
from privacy.pii.session import RedactionSession
from privacy.pii.stand_ins import StandIns
from tests.privacy.pii.fakes import FailingDetector, ToldDetector

PEOPLE = {"Ruth Baker": "PERSON", "王磊": "PERSON", "ruth@corp.example": "EMAIL_ADDRESS"}
KEY = b"0123456789abcdef"


def test_scrubbing_leaves_types_and_counts() -> None:
    """Values become their type; the report counts what was found and tells no value."""
    scrubbed, report = Scrubber(ToldDetector(PEOPLE)).scrub_many(
        ["Ruth Baker <ruth@corp.example>", "王磊请假", "nothing here"]
    )
    assert scrubbed == ["<PERSON> <<EMAIL_ADDRESS>>", "<PERSON>请假", "nothing here"]
    assert report.counts == {"EMAIL_ADDRESS": 1, "PERSON": 2}
    assert (report.texts, report.texts_with_findings, report.total) == (3, 2, 3)


def test_a_value_is_gone_from_all_texts_of_its_record() -> None:
    """What one field of a record gives away is replaced in its other fields, and only there."""
    records = [("Ruth Baker is ill", "get well, ruth  baker"), ("ruth baker?", "fine")]

    def map_text(record: tuple[str, str], f: Callable[[str], str]) -> tuple[str, str]:
        return f(record[0]), f(record[1])

    scrubbed, report = Scrubber(ToldDetector(PEOPLE)).scrub_items(records, map_text)
    assert scrubbed == [("<PERSON> is ill", "get well, <PERSON>"), ("ruth baker?", "fine")]
    assert report.counts == {"PERSON": 2}


@pytest.mark.parametrize("action", ["hash", "pseudonym", "encrypt"])
def test_keyed_stand_ins_are_stable_and_need_the_key(action: Action) -> None:
    """With a key the same person stays the same in every scrubber; another key gives another."""
    detector = ToldDetector(PEOPLE)
    one, again, other = (
        Scrubber(detector, lambda _: action, key=key) for key in (KEY, KEY, KEY[::-1])
    )
    text = "Ruth Baker and 王磊 of ruth@corp.example"
    assert one.scrub(text) == again.scrub(text) != other.scrub(text)
    assert not any(value in one.scrub(text) for value in PEOPLE)
    assert one.scrub("Ruth Baker") != one.scrub("王磊")


def test_spelling_changes_neither_digest_nor_surrogate() -> None:
    """A person in capitals is the same person: same digest, same surrogate in capitals."""
    detector = ToldDetector({**PEOPLE, "RUTH BAKER": "PERSON"})
    hashed = Scrubber(detector, lambda _: "hash", key=KEY)
    assert hashed.scrub("Ruth Baker") == hashed.scrub("RUTH BAKER")
    named = Scrubber(detector, lambda _: "pseudonym", key=KEY)
    assert named.scrub("Ruth Baker").upper() == named.scrub("RUTH BAKER")


def test_encryption_needs_a_key_that_is_kept_and_is_undone_by_it() -> None:
    """Without a key encrypting is refused at once, with the way out; with it the text comes back."""
    detector = ToldDetector(PEOPLE)
    with pytest.raises(ValueError, match="takes a key that is kept; give one, or use 'hash'"):
        Scrubber(detector, lambda _: "encrypt")
    with pytest.raises(ValueError, match="at least 16"):
        Scrubber(detector, key=b"short")
    text = "Ruth Baker and 王磊 of ruth@corp.example"
    sealed = Scrubber(detector, lambda _: "encrypt", key=KEY).scrub(text)
    assert StandIns(KEY).decrypt(sealed) == text
    assert StandIns(KEY[::-1]).decrypt(sealed) == sealed
    assert StandIns(KEY).decrypt(sealed.replace("PERSON", "TERM")).count("<TERM_ENC:") == 2


def test_allowed_and_blocked_entities_are_reported_apart() -> None:
    """What the policy allows stays and is counted; a record with what it blocks is named."""
    scrubber = Scrubber(
        ToldDetector(PEOPLE), lambda entity: "allow" if entity == "EMAIL_ADDRESS" else "block"
    )
    scrubbed, report = scrubber.scrub_many(["ruth@corp.example", "Ruth Baker ruth@corp.example"])
    assert scrubbed == ["ruth@corp.example", "<PERSON> ruth@corp.example"]
    assert (report.counts, report.kept) == ({"PERSON": 1}, {"EMAIL_ADDRESS": 2})
    assert report.blocked == (1,)


def test_a_report_can_watch_every_finding() -> None:
    """The callback gets each finding with its text and action, shared ones included."""
    watched: list[tuple[int, str, str]] = []
    scrubber = Scrubber(
        ToldDetector(PEOPLE),
        lambda _: "mask",
        seen=lambda i, text, span, action: watched.append((i, span.of(text), action)),
    )
    scrubber.scrub_items(
        [("Ruth Baker", "hello ruth  baker")], lambda item, f: (f(item[0]), f(item[1]))
    )
    assert watched == [(0, "Ruth Baker", "mask"), (1, "ruth  baker", "mask")]


def test_scrubbing_fails_closed() -> None:
    """Where personal data cannot be looked for, no record comes out."""
    with pytest.raises(RedactionUnavailable):
        Scrubber(FailingDetector()).scrub_many(["anything"])


def test_surviving_values_are_seen_through_spelling() -> None:
    """A value is found in other case, spacing, width and digit grouping; a part of a word is not."""
    values = ["Ruth Baker", "4111 1111 1111 1111", "王磊", "Ann", "+44 191 496 0063"]
    assert surviving(values, "RUTH\nbaker 4111111111111111 请王磊来") == [0, 1, 2]
    assert surviving(values, "annual plan, 441914960063") == [4]
    assert surviving(values, "４１１１１１１１１１１１１１１１") == [1]
    assert surviving(values, "nobody") == []


def test_new_personal_data_is_what_the_prompt_did_not_bring() -> None:
    """Values of the prompt, their placeholders and its ordinary words are not new; others are."""
    detector = PatternDetector()
    known = RedactionSession(detector)
    known.redact("Please mail ann@corp.example or call +44 191 496 0063; code 555-123-4567-99")
    answer = (
        "I mailed <EMAIL_ADDRESS_1> (ann@corp.example), called 0044 1914960063 "
        "and eve@other.example at 415-555-2671."
    )
    new = find_new_personal_data(answer, known, detector)
    assert [span.of(answer) for span in new] == ["eve@other.example", "415-555-2671"]
    assert [span.entity for span in new] == ["EMAIL_ADDRESS", "PHONE_NUMBER"]


def test_a_finding_over_a_placeholder_is_judged_outside_it() -> None:
    """A detector that takes a placeholder for a name does not damage it."""
    detector = ToldDetector({"<PERSON_1> Miller": "PERSON"})
    known = RedactionSession(ToldDetector(PEOPLE))
    known.redact("Ruth Baker")
    answer = "Dear <PERSON_1> Miller"
    new = find_new_personal_data(answer, known, detector)
    assert [span.of(answer) for span in new] == [" Miller"]
