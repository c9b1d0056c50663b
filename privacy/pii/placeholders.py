"""The form of a placeholder, and the ways in which language models rewrite it.

A placeholder is ``<ENTITY_n>``, or ``<ENTITY_n.m>`` for another spelling of the same value. Models
change it: case and spaces (``< Person 1 >``), brackets (``[PERSON_1]``, ``【PERSON_1】``), none
at all (``PERSON_1``), a plural or a genitive inside (``<PERSON_1's>``), escapes of Markdown, HTML
and JSON (``\\<PERSON\\_1\\>``, ``&lt;PERSON_1&gt;``, ``\\u003cPERSON_1\\u003e``). All of these are
read as the placeholder; what stands around it stays.

Without brackets, and in round ones, only capitals and no plain space are read: "person 1" is prose.
"""

import html
import json
from typing import Any, Final

import regex

from privacy.pii.entities import ENTITIES

LITERAL: Final = "TEXT"
"""Stands for input that already looked like a placeholder."""

_NAMES: Final = tuple(sorted(ENTITIES | {LITERAL}, key=len, reverse=True))
_LINK: Final = r"(?:\\?[_ -])"
_LOOSE: Final = "|".join(name.replace("_", _LINK) for name in _NAMES)
_STRICT: Final = "|".join(name.replace("_", r"(?:\\?[_-])") for name in _NAMES)
_INDEX: Final = r"[0-9]{1,6}"
_VARIANT: Final = r"[0-9]{1,4}"
_SUFFIX: Final = r"(?:['’]?s)?"
# "(" is not among them: round brackets stand around ordinary words.
_PAIRS: Final = (
    ("<", ">"),
    (r"\\<", r"\\>"),
    ("&lt;", "&gt;"),
    (r"\\u003c", r"\\u003e"),
    (r"\[", r"\]"),
    (r"\{", r"\}"),
    ("＜", "＞"),
    ("〈", "〉"),
    ("《", "》"),
    ("【", "】"),
    ("［", "］"),
    ("「", "」"),
)
_BODY: Final = (
    rf"\s{{0,2}}(?P<entity>{_LOOSE})(?:e?s)?(?:{_LINK}|[:#]\s?|)(?P<index>{_INDEX})"
    rf"(?:\.(?P<variant>{_VARIANT}))?(?P<suffix>{_SUFFIX})\s{{0,2}}"
)
_BARE: Final = rf"(?P<entity>{_STRICT})\\?[_-](?P<index>{_INDEX})(?:[.-](?P<variant>{_VARIANT}))?"
# Case matters in both of these, so they stand outside the part that ignores it.
_ROUND: Final = (
    rf"(?P<closed>[(（]\s{{0,2}}{_BARE.replace('[_-](?P<index>', '[_ -](?P<index>')}\s{{0,2}}[)）])"
)
_BRACKETED: Final = "|".join(
    f"(?P<closed>(?P<open>{left}){_BODY}{right})" for left, right in _PAIRS
)
_ENCLOSED: Final = f"(?i:{_BRACKETED})|{_ROUND}"
GRAMMAR: Final = f"{_ENCLOSED}|(?P<bare>{_BARE})"
"""Every form, the bare one also inside words. Group ``closed`` is set where no further character
could change the match, ``bare`` where the next one could."""

BOUNDED: Final = f"{_ENCLOSED}|(?<![A-Za-z0-9_])(?P<bare>{_BARE})(?![0-9_])"
"""The same, the bare form only as a word of its own: what is restored."""

_OPENERS: Final = r"<&\\\[{(（＜〈《【［「"
STARTS: Final = rf"[{_OPENERS}]|(?<![A-Za-z0-9_])[A-Z]"
"""What a form begins with."""

BEGINS: Final = rf"(?=[{_OPENERS}]|[A-Z]{{2}})"
"""The same with one more character, where there is one: cheap to look for first."""

LOOKS_LIKE: Final[Any] = regex.compile(f"{BEGINS}(?:{GRAMMAR})")
"""Input of this form is escaped. Wider than what is restored: no boundaries, as what stands beside
it in the input may be replaced."""

_ESCAPED: Final = max(len(r"\u003c") + len(r"\u003e"), len("&lt;") + len("&gt;"))
LONGEST: Final = (
    (_ESCAPED + 4 + max(2 * name.count("_") + len(name) - name.count("_") for name in _NAMES))
    + len("es")
    + 2
    + 6
    + 5
    + len("'s")
)
"""No form of a placeholder has more characters, so no stream holds back more for one."""


def write(entity: str, index: int, variant: int = 0) -> str:
    """The placeholder of one value; ``variant`` counts its other spellings."""
    return f"<{entity}_{index}.{variant}>" if variant else f"<{entity}_{index}>"


def bare(placeholder: str) -> str:
    """The form without brackets, for fields that take no ``<``: ``PERSON_1``, ``PERSON_1-2``."""
    return placeholder.strip("<>").replace(".", "-")


def read(match: Any) -> tuple[str, str]:
    """The placeholder that a match of :data:`GRAMMAR` means, and the same without its variant."""
    entity = match["entity"].upper().replace("\\", "").replace(" ", "_").replace("-", "_")
    index, variant = int(match["index"]), int(match["variant"] or 0)
    return write(entity, index, variant), write(entity, index)


def in_json(value: str) -> str:
    """``value`` as it stands between the quotes of a JSON string."""
    return json.dumps(value, ensure_ascii=False)[1:-1]


def in_form(value: str, match: Any) -> str:
    """``value`` as it must be written in the surroundings that the match's brackets tell of."""
    opened = (match["open"] or "").lower()
    if opened == "&lt;":
        return html.escape(value, quote=False)
    return in_json(value) if opened == r"\u003c" else value
