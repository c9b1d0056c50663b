"""The page on redaction says what the code does."""

import doctest
import re
from typing import get_args

import pytest

from policies.pii import Action
from privacy.pii import custom, limits
from privacy.pii.entities import ON_REQUEST, PERSONAL
from tests.docs_kit import SPAN, blocks, read, table_rows

PAGE = "docs/redaction.md"


def test_the_page_names_every_kind() -> None:
    """The table has every kind, and says which are looked for always."""
    stated: dict[str, set[str]] = {}
    for row in table_rows(PAGE, "## What is looked for"):
        stated.setdefault(row[2], set()).add(row[0].strip("`"))
    assert stated == {"always": PERSONAL, "on request": ON_REQUEST}


def test_the_page_names_every_action() -> None:
    """The table has every action of the policy, and no other."""
    rows = table_rows(PAGE, "## What happens to a finding")
    assert sorted(row[0].strip("`") for row in rows) == sorted(get_args(Action))


def test_the_page_states_the_limits() -> None:
    """Every limit of the page is the code's."""
    stated = [row[1] for row in table_rows(PAGE, "## Limits")]
    default = limits.DEFAULT_LIMITS
    assert stated == [
        f"{default.characters:,} characters",
        f"{default.findings:,} findings",
        f"{default.seconds:,.0f} seconds",
        f"{custom.LONGEST_PATTERN:,} characters",
        f"{custom.SECONDS:g} second",
    ]
    page = re.sub(r"\s+", " ", read(PAGE))
    assert f"pieces of {limits.LONGEST_PIECE:,} characters that share {limits.OVERLAP}" in page
    assert f"{custom.CONTEXT_BONUS} more where one" in page
    assert f"within {custom.CONTEXT_DISTANCE} characters before" in page


def test_the_page_names_errors_that_exist() -> None:
    """Each error named in the table of limits can be raised by this package."""
    from privacy.pii import errors

    for row in table_rows(PAGE, "## Limits"):
        (name,) = SPAN.findall(row[2])
        assert issubclass(getattr(errors, name), errors.PiiError)


def test_the_examples_of_the_page_run() -> None:
    """A reader who types the examples, one after the other, sees what the page shows."""
    text = "\n".join(param.values[0] for param in blocks("pycon") if "redaction" in str(param.id))
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(doctest.DocTestParser().get_doctest(text, {}, PAGE, PAGE, 0))
    assert runner.tries >= 10
    assert runner.failures == 0


@pytest.mark.parametrize("example", [p.values[0] for p in blocks("toml") if "redaction" in p.id])
def test_the_pattern_of_the_page_does_what_it_says(example: str) -> None:
    """The page's own pattern counts beside its words, and only there."""
    from policies.load import parse_policy
    from privacy.pii.patterns import PatternDetector

    pii = parse_policy(example.encode(), "toml").pii
    patterns = [
        custom.CustomPattern(p.name, p.entity, p.regex, p.score, p.context) for p in pii.patterns
    ]
    detector = PatternDetector(patterns=patterns, threshold=pii.threshold, entities={"PERSON"})
    assert detector.detect("see AK-471147 above") == ()
    assert [s.source for s in detector.detect("案号AK-471147")] == ["policy:case-number"]
