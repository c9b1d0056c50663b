"""Levels of personal data, and what a release may meet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.sensitivity import DEFAULT_SENSITIVITY, SensitivityPolicy
from privacy.pii.entities import ENTITIES

LEVELS = ("none", "internal", "confidential", "restricted")
KINDS = {"internal": "LOCATION", "confidential": "PERSON", "restricted": "SECRET"}


def test_defaults_name_only_kinds_that_exist() -> None:
    """A misspelt kind would silently be confidential."""
    assert set(DEFAULT_SENSITIVITY) <= ENTITIES


@pytest.mark.parametrize("maximum", LEVELS)
def test_a_release_meets_nothing_above_its_maximum(maximum: str) -> None:
    """Each level lets through itself and what is below."""
    policy = SensitivityPolicy.model_validate({"maximum": maximum})
    allowed = LEVELS[1 : LEVELS.index(maximum) + 1]
    for level, kind in KINDS.items():
        assert policy.allows("any", kind) == (level in allowed)


def test_nothing_is_refused_unless_it_is_asked_for() -> None:
    """Redaction is the default protection; a maximum comes on top."""
    assert all(SensitivityPolicy().allows("any", entity) for entity in ENTITIES)


@given(st.lists(st.sampled_from(LEVELS), min_size=1, max_size=4))
def test_the_strictest_pattern_that_fits_counts(levels: list[str]) -> None:
    """Whatever their order; a pattern that does not fit counts for nothing."""
    patterns = dict(zip(("support@*", "*@3", "support@3", "s*"), levels, strict=False))
    policy = SensitivityPolicy.model_validate(
        {"releases": patterns | {"other": "none"}, "maximum": "none"}
    )
    assert policy.maximum_of("support@3") == min(levels, key=LEVELS.index)
    assert policy.maximum_of("unknown") == "none"


def test_the_level_of_a_kind_can_be_changed() -> None:
    """Both ways."""
    policy = SensitivityPolicy.model_validate(
        {"maximum": "internal", "entities": {"PERSON": "internal", "URL": "restricted"}}
    )
    allowed = {kind: policy.allows("any", kind) for kind in ("PERSON", "URL", "EMAIL_ADDRESS")}
    assert allowed == {"PERSON": True, "URL": False, "EMAIL_ADDRESS": False}
