"""Which characters may come next in JSON under a grammar.

A grammar is followed character by character; whoever makes a text under it can only make one that
fits. It writes compactly: at most one blank after ``:`` and ``,``. How a JSON schema becomes one is
in :mod:`api.engines.json_schema`.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

_MOST_STATES: Final = 4000
_MOST_DIGITS: Final = 15
MOST_NESTED: Final = 24
_HEX: Final = frozenset("0123456789abcdefABCDEF")


class SchemaRefused(Exception):
    """The schema cannot be followed; the message names the keyword."""


Stack = tuple["Symbol", Any] | None
"""What is still to come: a symbol and the stack below it; ``None`` where nothing is."""


class Symbol:
    """A part of the grammar: it takes a character, or stands for other symbols."""

    def take(self, char: str, below: Stack) -> Iterable[Stack]:
        """Stacks after ``char``; none where it does not fit."""
        return ()

    def expand(self, below: Stack) -> Iterable[Stack] | None:
        """Stacks that it stands for without taking a character; None for a terminal."""
        return None


@dataclass(frozen=True)
class Text(Symbol):
    """Exactly this text, which is not empty."""

    text: str

    def take(self, char: str, below: Stack) -> Iterable[Stack]:
        if self.text[0] != char:
            return ()
        return (((Text(self.text[1:]), below) if len(self.text) > 1 else below),)


@dataclass(frozen=True)
class Blank(Symbol):
    """One blank, or none."""

    def take(self, char: str, below: Stack) -> Iterable[Stack]:
        return (below,) if char == " " else ()

    def expand(self, below: Stack) -> Iterable[Stack]:
        return (below,)


@dataclass(frozen=True)
class Chars(Symbol):
    """The rest of a string, with its closing quote."""

    least: int = 0
    most: int | None = None
    count: int = 0

    def take(self, char: str, below: Stack) -> Iterable[Stack]:
        if char == '"':
            return (below,) if self.count >= self.least else ()
        if char < " " or (self.most is not None and self.count >= self.most):
            return ()
        # Without bounds the count does not matter, and states stay few.
        counted = self.least or self.most is not None
        after = replace(self, count=self.count + 1) if counted else self
        if char == "\\":
            return ((Escape(), (after, below)),)
        return ((after, below),)


@dataclass(frozen=True)
class Escape(Symbol):
    """What follows a backslash; ``hexes``: so many hexadecimal digits are left."""

    hexes: int = 0

    def take(self, char: str, below: Stack) -> Iterable[Stack]:
        if self.hexes:
            # No surrogates: two escapes would have to fit together.
            if char not in _HEX or (self.hexes == 4 and char in "dD"):
                return ()
            return ((Escape(self.hexes - 1), below),) if self.hexes > 1 else (below,)
        if char == "u":
            return ((Escape(4), below),)
        return (below,) if char in '"\\/bfnrt' else ()


@dataclass(frozen=True)
class Number(Symbol):
    """A number, or the rest of one that began with ``text``."""

    whole: bool
    lowest: float | None = None
    highest: float | None = None
    text: str = ""

    def take(self, char: str, below: Stack) -> Iterable[Stack]:
        text = self.text + char
        if not self._begins(text):
            return ()
        return ((replace(self, text=text), below),)

    def expand(self, below: Stack) -> Iterable[Stack]:
        return (below,) if self._complete() else ()

    def _begins(self, text: str) -> bool:
        digits = text.lstrip("-")
        if len(text) - len(digits) > 1 or len(digits) > _MOST_DIGITS:
            return False
        if not digits:
            return self.lowest is None or self.lowest < 0
        integer, point, fraction = digits.partition(".")
        if (
            not integer.isascii()
            or not integer.isdecimal()
            or (len(integer) > 1 and integer[0] == "0")
        ):
            return False
        if point and (
            self.whole or (fraction and not (fraction.isascii() and fraction.isdecimal()))
        ):
            return False
        value = float(f"{'-' if text[0] == '-' else ''}{integer}")
        # More digits lead further from zero, never back.
        if text[0] == "-":
            return self.lowest is None or value >= self.lowest
        return self.highest is None or value <= self.highest

    def _complete(self) -> bool:
        if not self.text or not self.text[-1].isdecimal() or self.text == "-0":
            return False
        value = float(self.text)
        return (self.lowest is None or value >= self.lowest) and (
            self.highest is None or value <= self.highest
        )


@dataclass(frozen=True, eq=False)
class Choice(Symbol):
    """One of several sequences."""

    options: tuple[tuple[Symbol, ...], ...]

    def expand(self, below: Stack) -> Iterable[Stack]:
        return [_pushed(option, below) for option in self.options]


@dataclass(frozen=True, eq=False)
class Members(Symbol):
    """The rest of an object, with its brace: declared members from ``at`` on, in order."""

    members: tuple[tuple[str, Symbol, bool], ...]
    at: int = 0
    first: bool = True

    def expand(self, below: Stack) -> Iterable[Stack]:
        for i in range(self.at, len(self.members)):
            name, value, required = self.members[i]
            lead = () if self.first else (Text(","), Blank())
            rest = Members(self.members, i + 1, False)
            yield _pushed(
                (*lead, Text(f"{json.dumps(name, ensure_ascii=False)}:"), Blank(), value, rest),
                below,
            )
            if required:
                return
        yield (Text("}"), below)


@dataclass(frozen=True, eq=False)
class FreeMembers(Symbol):
    """The rest of an object of any members, with its brace."""

    value: Symbol
    first: bool = True

    def expand(self, below: Stack) -> Iterable[Stack]:
        lead = () if self.first else (Text(","), Blank())
        rest = FreeMembers(self.value, False)
        yield _pushed((*lead, Text('"'), Chars(1), Text(":"), Blank(), self.value, rest), below)
        yield (Text("}"), below)


@dataclass(frozen=True, eq=False)
class Items(Symbol):
    """The rest of an array, with its bracket."""

    value: Symbol
    least: int = 0
    most: int | None = None
    count: int = 0

    def expand(self, below: Stack) -> Iterable[Stack]:
        if self.most is None or self.count < self.most:
            lead = (Text(","), Blank()) if self.count else ()
            # Beyond the least number the count matters only against the most.
            count = self.count + 1
            if self.most is None:
                count = min(count, max(self.least, 1))
            yield _pushed((*lead, self.value, replace(self, count=count)), below)
        if self.count >= self.least:
            yield (Text("]"), below)


@dataclass(frozen=True, eq=False)
class Any_(Symbol):  # noqa: N801 - Any is taken
    """Any JSON value, nested at most ``depth`` deep."""

    depth: int = MOST_NESTED

    def expand(self, below: Stack) -> Iterable[Stack]:
        yield _pushed((Text('"'), Chars()), below)
        yield (Number(whole=False), below)
        for word in ("true", "false", "null"):
            yield (Text(word), below)
        if self.depth:
            inner = Any_(self.depth - 1)
            yield _pushed((Text("{"), FreeMembers(inner)), below)
            yield _pushed((Text("["), Items(inner)), below)


class Reference(Symbol):
    """A part of the schema that is read when it is reached, so that schemas may be recursive."""

    def __init__(self, read: Callable[[], Symbol]) -> None:
        self._read = read

    def expand(self, below: Stack) -> Iterable[Stack]:
        return ((self._read(), below),)


ANY_OBJECT: Final[tuple[Symbol, ...]] = (Text("{"), FreeMembers(Any_()))


class Walk:
    """A text under a grammar, character by character; immutable, so that steps can be tried."""

    def __init__(self, symbols: Iterable[Symbol]) -> None:
        self._stacks = _closed([_pushed(tuple(symbols), None)])

    @property
    def complete(self) -> bool:
        """Whether the text may end here."""
        return None in self._stacks

    def after(self, text: str) -> "Walk | None":
        """The walk after more text; None where that does not fit."""
        stacks = self._stacks
        for char in text:
            stacks = _closed(
                after
                for stack in stacks
                if stack is not None
                for after in stack[0].take(char, stack[1])
            )
            if not stacks:
                return None
        made = Walk.__new__(Walk)
        made._stacks = stacks
        return made


def _pushed(symbols: Iterable[Symbol], below: Stack) -> Stack:
    for symbol in reversed(tuple(symbols)):
        below = (symbol, below)
    return below


def _closed(stacks: Iterable[Stack]) -> frozenset[Stack]:
    """The stacks and all that they stand for, as far as a character can be taken or all is done."""
    found: set[Stack] = set()
    waiting = list(stacks)
    seen: set[Stack] = set()
    while waiting:
        stack = waiting.pop()
        if stack in seen:
            continue
        seen.add(stack)
        if len(seen) > _MOST_STATES:
            raise SchemaRefused("the schema leaves too many ways to go on; make it simpler")
        expanded = None if stack is None else stack[0].expand(stack[1])
        if expanded is None or isinstance(stack and stack[0], Number | Blank):
            found.add(stack)
        waiting += expanded or ()
    return frozenset(found)
