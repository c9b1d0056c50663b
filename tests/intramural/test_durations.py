"""Lengths of time as people write them."""

from datetime import timedelta

import pytest

from intramural.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("24h", timedelta(hours=24)),
        ("7d", timedelta(days=7)),
        ("8w", timedelta(weeks=8)),
    ],
)
def test_each_unit_counts_as_it_is_called(text: str, length: timedelta) -> None:
    """A number and a letter are that many of the unit."""
    assert parse_duration(text) == length


@pytest.mark.parametrize(
    "text", ["", "soon", "0h", "07d", "1.5h", "-3d", "3 d", "3D", "1234567s", "٣d", "3d\n"]
)
def test_anything_else_is_no_length(text: str) -> None:
    """Nothing is guessed from other spellings."""
    assert parse_duration(text) is None


def test_a_unit_that_is_not_offered_is_none() -> None:
    """A caller that takes no seconds gets none."""
    assert parse_duration("90s", "mhdw") is None


def test_a_length_beyond_the_last_time_is_none() -> None:
    """What would end after the year 9999 is refused before it overflows a date."""
    assert parse_duration("999999w") is None
    assert parse_duration("400000w") == timedelta(weeks=400000)
