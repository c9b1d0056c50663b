"""Reading the documentation: its pages, fenced blocks, code spans and tables."""

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("api", "client", "intramural", "policies", "privacy", "server")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


def read(page: Path | str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose(page: Path) -> str:
    return FENCE.sub("", read(page))


def spans(page: Path) -> list[str]:
    return SPAN.findall(prose(page))


def blocks(language: str) -> list[Any]:
    """Fenced blocks of a language in all pages, as test parameters."""
    return [
        pytest.param(body, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        for number, (kind, body) in enumerate(FENCE.findall(read(page)))
        if kind == language
    ]


def shell_commands(text: str) -> Iterator[list[str]]:
    """The words of each command of a shell block, without the variables before it."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if words:
            yield words


def table_rows(page: str, heading: str) -> list[list[str]]:
    """Cells of the body rows of every table under a heading, down to the next one of its level."""
    level = heading.partition(" ")[0]
    section = re.split(rf"^{heading}$", read(page), flags=re.MULTILINE)[1]
    section = re.split(rf"^#{{1,{len(level)}}} ", section, flags=re.MULTILINE)[0]
    rows: list[list[str]] = []
    lines = section.splitlines()
    for before, line in pairwise(lines):
        if line.startswith("|") and before.startswith("|") and not line.startswith("|---"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows
