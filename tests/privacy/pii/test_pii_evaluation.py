"""Figures of an evaluation follow from labels and findings, and say how sure they are."""

import pytest

from privacy.pii.entities import ENTITIES, Span
from privacy.pii.evaluation import Evaluation, Mark, f_score, kinds_of, wilson


def test_figures_are_those_of_the_characters() -> None:
    """Precision, recall and F follow from the characters that labels and findings share."""
    evaluation = Evaluation()
    # 10 labelled, 12 found, 8 in common.
    evaluation.add(30, [Mark(0, 10, "PERSON")], [Span(2, 14, "PERSON", 0.9)])
    scores = evaluation.scores()
    assert scores.precision.value == pytest.approx(8 / 12)
    assert scores.recall.value == pytest.approx(8 / 10)
    assert scores.f1.value == pytest.approx(2 * 8 / 22)
    assert scores.f2.value == pytest.approx(5 * 8 / (4 * 10 + 12))
    assert scores.f2.value == pytest.approx(f_score(8 / 12, 8 / 10, 2) or 0)
    assert scores.unlabelled == {"PERSON": 4}


def test_overlapping_labels_count_a_character_once() -> None:
    """A character under two labels is one labelled character, and each label has its own recall."""
    evaluation = Evaluation()
    marks = [Mark(0, 8, "STREET_ADDRESS"), Mark(4, 8, "GPE")]
    evaluation.add(10, marks, [Span(4, 8, "LOCATION", 0.9)])
    scores = evaluation.scores()
    assert scores.labelled == 8
    assert {kind.label: kind.recall.value for kind in scores.kinds} == {
        "STREET_ADDRESS": 0.5,
        "GPE": 1.0,
    }


def test_strict_recall_asks_for_the_right_type() -> None:
    """What is found as something else is covered, but not as what it is."""
    evaluation = Evaluation()
    evaluation.add(20, [Mark(0, 5, "US_SSN"), Mark(6, 9, "GPE")], [Span(0, 5, "PHONE_NUMBER", 0.9)])
    ssn, place = evaluation.scores().kinds
    assert (ssn.label, ssn.recall.value, ssn.strict_recall.value, ssn.whole) == ("US_SSN", 1, 0, 1)
    assert (place.label, place.recall.value, place.precision.value) == ("GPE", 0, None)


def test_unknown_labels_count_by_characters_only() -> None:
    """A label without a meaning here has a recall under its own name, and no strict one."""
    evaluation = Evaluation()
    evaluation.add(10, [Mark(0, 4, "SHOE_SIZE")], [Span(0, 4, "AGE", 0.9)])
    (kind,) = evaluation.scores().kinds
    assert (kind.label, kind.kinds, kind.recall.value) == ("SHOE_SIZE", (), 1)
    assert kind.strict_recall.value is None
    assert kind.f2 is None


def test_nothing_is_no_perfect_score() -> None:
    """Without labels or without findings the figures that would divide by nothing are absent."""
    evaluation = Evaluation()
    assert evaluation.scores().f2.value is None
    evaluation.add(10, [], [])
    scores = evaluation.scores()
    assert (scores.precision.value, scores.recall.value, scores.f1.value) == (None, None, None)
    evaluation.add(10, [Mark(0, 5, "PERSON")], [])
    scores = evaluation.scores()
    assert (scores.precision.value, scores.recall.value, scores.f2.value) == (None, 0, 0)


def test_intervals_hold_the_figures_and_narrow_with_records() -> None:
    """Every interval holds its figure, and a hundred times the records make it much narrower."""
    widths = []
    for copies in (1, 100):
        evaluation = Evaluation()
        for _ in range(copies):
            for start in range(10):
                evaluation.add(40, [Mark(0, 10, "PERSON")], [Span(start, start + 9, "PERSON", 0.9)])
        scores = evaluation.scores()
        for share in (scores.precision, scores.recall, scores.f1, scores.f2):
            assert share.value is not None
            assert share.least is not None
            assert share.greatest is not None
            assert share.least <= share.value <= share.greatest
        widths.append((scores.f2.greatest or 0) - (scores.f2.least or 0))
    assert 0 < widths[1] < widths[0] / 5


def test_perfect_scores_are_not_certain() -> None:
    """Where nothing was missed in a few records, the interval still says how few they were."""
    evaluation = Evaluation()
    for _ in range(5):
        evaluation.add(9, [Mark(0, 9, "PERSON")], [Span(0, 9, "PERSON", 0.9)])
    scores = evaluation.scores()
    assert (scores.recall.value, scores.recall.greatest) == (1, 1)
    assert scores.recall.least == pytest.approx(wilson(5, 5, 5).least or 0)
    assert 0.5 < (scores.recall.least or 0) < 0.6


def test_wilson_agrees_with_the_published_example() -> None:
    """The score interval of 81 successes in 263 trials (Newcombe 1998, table I) is [.2553, .3662]."""
    share = wilson(81, 263, 263)
    assert (share.least, share.greatest) == (
        pytest.approx(0.2553, abs=5e-5),
        pytest.approx(0.3662, abs=5e-5),
    )


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("STREET_ADDRESS", "ADDRESS"),
        ("B-PER", "PERSON"),
        ("first name", "PERSON"),
        ("GPE", "LOCATION"),
        ("ZIP_CODE", "POSTCODE"),
        ("NRP", "NATIONALITY"),
        ("US_SSN", "NATIONAL_ID"),
        ("US_DRIVER_LICENSE", "DRIVER_LICENSE"),
        ("UK_NHS", "NATIONAL_ID"),
        ("DOMAIN_NAME", "URL"),
        ("CREDIT_CARD_NUMBER", "CREDIT_CARD"),
        ("TITLE", "TITLE"),
        ("身份证号", "NATIONAL_ID"),
        ("SHOE_SIZE", None),
    ],
)
def test_labels_of_common_corpora_are_understood(label: str, kind: str | None) -> None:
    """Names that corpora use mean a kind of ours, whatever their case, prefix and separators."""
    assert next(iter(kinds_of(label)), None) == kind


def test_every_kind_is_a_label_of_itself() -> None:
    """Predictions can be read back as labels, and every label means kinds that exist."""
    for kind in ENTITIES:
        assert kinds_of(kind)[0] == kind
        assert set(kinds_of(kind)) <= ENTITIES
