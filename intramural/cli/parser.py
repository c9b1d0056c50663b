"""The option parser as all commands use it: plain help of 80 columns, no colours, no boxes."""

from collections.abc import Callable
from typing import Any, Final

import click
import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import CommandFunctionType

_SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 80}


def _plain(text: str) -> str:
    # typer escapes brackets for rich's markup also where markup is switched off.
    return text.replace("\\[", "[")


class _Command(TyperCommand):
    def get_help(self, ctx: click.Context) -> str:
        return _plain(super().get_help(ctx))


class _Group(TyperGroup):
    def get_help(self, ctx: click.Context) -> str:
        return _plain(super().get_help(ctx))


class CommandGroup(typer.Typer):
    """A group of commands; ``help`` says what they have in common."""

    def __init__(self, help: str) -> None:  # noqa: A002 - typer's own name
        super().__init__(
            help=help,
            cls=_Group,
            no_args_is_help=True,
            add_completion=False,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
            context_settings=_SETTINGS,
        )

    def command(
        self, name: str | None = None, **options: Any
    ) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """Register a function as a command; its docstring is the help."""
        options.setdefault("cls", _Command)
        options.setdefault("context_settings", _SETTINGS)
        return super().command(name, **options)
