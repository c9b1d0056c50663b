"""The option parser as all commands use it: plain help of 80 columns, no colours, no boxes."""

from collections.abc import Callable
from typing import Any, Final, get_args, get_type_hints

import click
import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup
from typer.models import ArgumentInfo, CommandFunctionType

_SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 80}


def _plain(text: str) -> str:
    # typer escapes brackets for rich's markup also where markup is switched off.
    return text.replace("\\[", "[")


class Command(TyperCommand):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        function = getattr(self.callback, "__wrapped__", None)
        hints = {} if function is None else get_type_hints(function, include_extras=True)
        for parameter in self.params:
            for extra in get_args(hints.get(parameter.name or "")):
                # click 8.5 resets what typer 0.20 had set before it: the help of arguments.
                if isinstance(extra, ArgumentInfo) and isinstance(parameter, TyperArgument):
                    parameter.help = extra.help

    def get_help(self, ctx: click.Context) -> str:
        return _plain(super().get_help(ctx))

    def format_arguments(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Nothing: typer lists the arguments with the options, click 8.5 would list them again."""


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
        options.setdefault("cls", Command)
        options.setdefault("context_settings", _SETTINGS)
        return super().command(name, **options)
