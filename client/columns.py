"""What to say about a file whose columns are not recognised."""

from __future__ import annotations

import re
from collections.abc import Sequence

from client.rows import CONTENT, ColumnMap

_TEXTS = ("body", "content", "message", "sentence", "utterance", "document", "description")
_QUESTIONS = ("instruction", "question", "input", "query", "source")
_ANSWERS = ("output", "answer", "response", "target", "summary")
_LOOKS_LIKE_A_NAME = re.compile(r"[^\W\d][\w-]{0,29}(?: [\w-]{1,20}){0,2}")
_DIGITS = re.compile(r"\d{4}")


def columns_found(found: Sequence[str], columns: ColumnMap) -> str:
    """Why no row could be used: which columns there are, and which mapping would help.

    The first line of a file without a header is a record: names are shown only where every one of
    them looks like the name of a column.
    """
    missing = [
        f"{name}={column}"
        for name, column in columns.mapped.items()
        if name in CONTENT and column not in found
    ]
    problem = (
        f"the mapped column is not there ({', '.join(missing)})"
        if missing
        else "no column is known to us (messages; prompt and completion; text and label; text)"
    )
    names = [str(name) for name in found]
    if not names:
        return f"{problem}; the rows have no columns"
    if not all(_LOOKS_LIKE_A_NAME.fullmatch(n) and not _DIGITS.search(n) for n in names):
        return f"{problem}; its {len(names)} columns do not look named: is a header line missing?"
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return f"{problem}; found: {shown}; map what you mean, as in {_advice(names)}"


def _advice(names: Sequence[str]) -> str:
    question, answer = _first(names, _QUESTIONS), _first(names, _ANSWERS)
    if question and answer:
        return f"{_option('prompt', question)} {_option('completion', answer)}"
    return _option("text", _first(names, _TEXTS) or question or answer or names[0])


def _option(name: str, column: str) -> str:
    return f'--column "{name}={column}"' if " " in column else f"--column {name}={column}"


def _first(names: Sequence[str], likely: Sequence[str]) -> str | None:
    by_folded = {name.casefold(): name for name in names}
    return next((by_folded[name] for name in likely if name in by_folded), None)
