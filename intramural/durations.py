"""Lengths of time as people write them: 90s, 30m, 24h, 7d, 8w."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_duration(text: str, units: str = "smhdw") -> timedelta | None:
    """The length of time that ``text`` names in one of ``units``.

    None where it names none, or one that would lead beyond the last time that there is.
    """
    match = _DURATION.fullmatch(text)
    if match is None or match[2] not in units:
        return None
    length = timedelta(**{_UNITS[match[2]]: int(match[1])})
    # A time of ours ends with the year 9999.
    return length if length < datetime.max.replace(tzinfo=UTC) - datetime.now(UTC) else None
