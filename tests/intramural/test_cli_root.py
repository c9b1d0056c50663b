"""The command line as a whole: help that teaches, fast start, exit codes, and no traceback."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

import intramural.parts
from intramural.cli import build
from intramural.workspace import Workspace
from tests.intramural.cli_kit import Cli

GOLDEN = Path(__file__).parents[1] / "golden" / "cli"
HEAVY = {
    "alembic",
    "dp_accounting",
    "fastapi",
    "flwr",
    "numpy",
    "openai",
    "peft",
    "presidio_analyzer",
    "pydantic",
    "pyarrow",
    "spacy",
    "sqlalchemy",
    "torch",
    "transformers",
    "uvicorn",
}
PYTHON = [sys.executable, "-c", "import sys; from intramural.cli import main; sys.exit(main())"]


def commands(
    command: click.Command | None = None, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """Every command and group, the whole command line included."""
    command = command or typer.main.get_command(build())
    yield path
    if isinstance(command, click.Group):
        for name, inner in sorted(command.commands.items()):
            yield from commands(inner, (*path, name))


@pytest.mark.parametrize("path", list(commands()), ids=lambda path: "-".join(path) or "intramural")
def test_help_reads_as_it_was_written(path: tuple[str, ...], cli: Cli) -> None:
    """Each command's help is what was reviewed (set WRITE_GOLDEN=1 to write it anew)."""
    done = cli(*path, "--help")
    assert (done.code, done.err) == (0, "")
    golden = GOLDEN / f"{'-'.join(path) or 'intramural'}.txt"
    if os.environ.get("WRITE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(done.out, encoding="utf-8")
    assert done.out == golden.read_text(encoding="utf-8")


def test_every_golden_help_belongs_to_a_command() -> None:
    """No golden file outlives its command."""
    assert {file.stem for file in GOLDEN.iterdir()} == {
        "-".join(path) or "intramural" for path in commands()
    }


@pytest.mark.parametrize(
    "path", [p for p in commands() if len(p) > 1 or p in {("serve",), ("demo",), ("simulate",)}]
)
def test_help_of_a_command_teaches(path: tuple[str, ...], cli: Cli) -> None:
    """One line says what a command is for, an example shows it, every parameter is explained."""
    text = cli(*path, "--help").out
    assert "Example:\n    intramural " + " ".join(path) in text
    assert all(len(line) <= 80 for line in text.splitlines())
    command = typer.main.get_command(build())
    for name in path:
        command = command.commands[name]  # type: ignore[attr-defined]
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{parameter.name} has no help"


def test_help_loads_none_of_the_heavy_libraries() -> None:
    """`intramural --help` imports no model, database or web framework: a second of CPU at most."""
    code = (
        "import resource, sys\n"
        "from intramural.cli import main\n"
        "code = main(['--help'])\n"
        f"print(sorted({HEAVY!r} & sys.modules.keys()), file=sys.stderr)\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(used.ru_utime + used.ru_stime, file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    loaded, seconds = done.stderr.splitlines()
    assert loaded == "[]"
    assert float(seconds) < 1.0


def test_version(cli: Cli) -> None:
    """`--version` prints the installed version."""
    from importlib.metadata import version

    assert cli("--version").out == f"intramural {version('intramural')}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("frobnicate",),
        ("policy", "frobnicate"),
        ("policy", "check"),
        ("policy", "check", "a.toml", "--frobnicate"),
        ("serve", "--port", "70000"),
        ("audit", "show", "--limit", "0"),
    ],
)
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...], cli: Cli) -> None:
    """What the parser does not understand is a usage error, with the way to the help."""
    done = cli(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert "--help`" in done.err


def test_group_without_command_shows_its_help(cli: Cli) -> None:
    """`intramural keys` alone says what there is."""
    done = cli("keys")
    assert done.code == 2
    assert "create" in done.err
    assert not done.err.startswith("error")


def test_usage_error_is_json_too(cli: Cli) -> None:
    """With --json even a usage error is one JSON value."""
    done = cli("audit", "show", "--limit", "0", "--json")
    assert done.code == 2
    assert done.json["error"]["type"] == "BadParameter"


def test_no_workspace_is_a_usage_error(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --workspace, variable and default folder, the error names all three."""
    monkeypatch.chdir(tmp_path)
    done = cli("budget", "show")
    assert done.code == 2
    for part in ("--workspace", "INTRAMURAL_WORKSPACE", "./intramural-demo"):
        assert part in done.err


def test_workspace_is_found_in_its_three_places(
    cli: Cli, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Option, environment variable, and ./intramural-demo name the workspace, in this order."""
    assert cli("release", "list", "--workspace", workspace.root).code == 0
    monkeypatch.chdir(workspace.root.parent)
    workspace.root.rename("intramural-demo")
    assert cli("release", "list").code == 0
    monkeypatch.setenv("INTRAMURAL_WORKSPACE", "nowhere")
    done = cli("release", "list")
    assert (done.code, done.err) == (
        1,
        "error: there is no workspace at nowhere: it is no folder\n",
    )


def test_interruption_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends with 130 and one line."""

    def interrupt(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(intramural.parts, "read_policy", interrupt)
    done = cli("policy", "check", "policy.toml")
    assert (done.code, done.out, done.err) == (130, "", "interrupted\n")


def test_unforeseen_error_tells_its_place_not_its_text(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours shows no traceback and does not quote what it stumbled over."""

    def fail(path: Path) -> None:
        raise TypeError("4111 1111 1111 1111")

    monkeypatch.setattr(intramural.parts, "read_policy", fail)
    done = cli("policy", "check", "policy.toml")
    assert done.code == 1
    assert "unexpected TypeError at test_cli_root.py:" in done.err
    assert "4111" not in done.err


def test_missing_package_names_the_extra(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command whose packages are not installed says which extra brings them."""

    def fail(path: Path) -> None:
        raise ModuleNotFoundError("No module named 'fastapi'", name="fastapi")

    monkeypatch.setattr(intramural.parts, "read_policy", fail)
    done = cli("policy", "check", "policy.toml")
    assert done.code == 1
    assert "'fastapi'" in done.err
    assert "extra api" in done.err


def test_operating_system_errors_name_the_file(cli: Cli, tmp_path: Path) -> None:
    """What the operating system refuses is told with the file and the reason."""
    (tmp_path / "records.jsonl").write_text('{"text": "a"}\n')
    done = cli(
        "data", "scrub", tmp_path / "records.jsonl", tmp_path / "out.jsonl", "--key", tmp_path
    )
    assert done.code == 1
    assert str(tmp_path) in done.err
    assert not (tmp_path / "out.jsonl").exists()


def test_reader_who_leaves_early_is_no_fault(workspace: Workspace) -> None:
    """A closed pipe ends a command without a word."""
    command = [*PYTHON, "policy", "show", str(workspace.root / "policy.toml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
