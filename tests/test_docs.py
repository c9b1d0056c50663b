"""What the documentation names exists: files, headings, commands, options, make targets."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest
from docs_kit import (
    FENCE,
    PAGES,
    ROOMS,
    ROOT,
    blocks,
    each_page,
    prose,
    read,
    shell_commands,
    spans,
)

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


# --- links and files ------------------------------------------------------------------------------


@cache
def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@each_page
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    """A link to a file or a heading of ours finds it."""
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target} leads nowhere"
        assert not anchor or anchor in anchors(file), f"{target}: no such heading"


@each_page
def test_every_file_named_exists(page: Path) -> None:
    """A path of the repository in code type is there."""
    first = (*ROOMS, "docs", "tests", "benchmarks")
    for span in spans(page):
        if re.fullmatch(rf"(?:{'|'.join(first)})/[\w./-]*", span):
            assert (ROOT / span).exists(), f"{span} does not exist"


def test_every_page_is_reached_from_the_index() -> None:
    """A reader who begins at the index, and follows links, misses no page."""
    seen: set[Path] = set()
    ahead = [ROOT / "docs" / "index.md"]
    while ahead:
        page = ahead.pop()
        seen.add(page)
        targets = (target.partition("#")[0] for target in LINK.findall(prose(page)))
        linked = ((page.parent / t).resolve() for t in targets if t.endswith(".md"))
        ahead += [other for other in linked if other not in seen]
    assert set(PAGES) <= seen, f"not linked: {sorted(map(str, set(PAGES) - seen))}"


# --- commands -------------------------------------------------------------------------------------


@cache
def command_line() -> click.Command:
    import typer.main

    from intramural.cli import build

    return typer.main.get_command(build())


def check_command(words: list[str]) -> None:
    """Walk the command tree along ``words``; fails at what it does not know."""
    command = command_line()
    given = list(words)
    while isinstance(command, click.Group) and given and not given[0].startswith("-"):
        name = given.pop(0)
        found = command.commands.get(name)
        assert found is not None, f"there is no command {name!r} in `intramural {' '.join(words)}`"
        command = found
    known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    for word in given:
        option = word.partition("=")[0]
        if re.fullmatch(r"--[a-z][a-z-]*", option):
            assert option in known, f"`intramural {' '.join(words)}` has no option {option}"


def named_commands(page: Path) -> Iterator[list[str]]:
    """Every command line of a page, in blocks and in code type."""
    for language, body in FENCE.findall(read(page)):
        if language == "sh":
            yield from shell_commands(body)
    for span in spans(page):
        if span.startswith(("intramural ", "make ")):
            yield from shell_commands(span)


@each_page
def test_every_intramural_command_named_exists(page: Path) -> None:
    """Each `intramural …` of the pages is a command of the command line, with its options."""
    for words in named_commands(page):
        if words[0] == "intramural":
            check_command(words[1:])


def test_every_command_is_in_the_readme() -> None:
    """The README's table names every command that there is."""

    def leaves(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if isinstance(command, click.Group):
            for name, inner in command.commands.items():
                yield from leaves(inner, (*path, name))
        else:
            yield path

    named = {tuple(words[1:]) for words in named_commands(ROOT / "README.md")}
    assert set(leaves(command_line(), ())) <= named


@each_page
def test_every_make_target_named_exists(page: Path) -> None:
    """Each `make …` of the pages is a target of the Makefile, with variables that it reads."""
    makefile = read("Makefile")
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", makefile, re.MULTILINE))
    for words in named_commands(page):
        if words[0] != "make":
            continue
        for word in words[1:]:
            name, assigned, _ = word.partition("=")
            if assigned and not name.startswith("PIP_"):
                assert f"$({name})" in makefile, f"the Makefile reads no {name}"
            elif not assigned:
                assert name in targets, f"the Makefile has no target {name!r}"


@each_page
def test_every_environment_variable_named_is_read(page: Path) -> None:
    """Each INTRAMURAL_… of the pages is read somewhere in the code."""
    code = "".join(file.read_text() for room in ROOMS for file in (ROOT / room).rglob("*.py"))
    for name in set(re.findall(r"INTRAMURAL_[A-Z_]*[A-Z]", read(page))):
        assert name in code, f"nothing reads {name}"


# --- examples -------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", blocks("toml"))
def test_every_policy_example_is_a_policy(example: str) -> None:
    """A reader can copy a policy from the pages and use it, without a warning."""
    from policies.load import parse_policy, policy_warnings

    assert policy_warnings(parse_policy(example.encode(), "toml")) == ()


@pytest.mark.parametrize("example", blocks("python"))
def test_every_python_example_is_python(example: str) -> None:
    """A Python example has no syntax error."""
    ast.parse(example)


# --- words ----------------------------------------------------------------------------------------

# Put together here, so that this file does not hold them itself.
FORBIDDEN = (
    *("/".join(("", folder, "")) for folder in ("work", "root", "home", "tmp")),
    *(".".join(host) for host in (("pypi", "org"), ("pythonhosted", "org"), ("huggingface", "co"))),
    *(
        ".".join(host)
        for host in (("download", "pytorch", "org"), ("npmjs", "org"), ("ghcr", "io"))
    ),
)


@each_page
def test_no_page_names_a_machine_or_a_registry(page: Path) -> None:
    """Pages speak of the reader's machine and the reader's index."""
    assert [word for word in FORBIDDEN if word in read(page)] == []


def test_no_file_names_the_folders_of_a_developer() -> None:
    """No path of the machine where something was written is left in it."""
    folders = [ROOT / room for room in (*ROOMS, "tests", "docs", "benchmarks")]
    files = [f for folder in folders for f in folder.rglob("*") if f.suffix in (".py", ".md")]
    files += [ROOT / name for name in ("Makefile", "pyproject.toml", "requirements.lock")]
    own = (*FORBIDDEN[:2], f"{ROOT}/")
    bad = [(f.name, word) for f in files for word in own if word in f.read_text(encoding="utf-8")]
    assert bad == []
