"""Which stand-in a value of one conversation has, and the way back.

The same value keeps its stand-in, two values never share one, and no stand-in is a text that the
conversation already held. This is the map: it lives in memory, and nothing shows or stores it.
"""

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Final, NoReturn

import regex

from policies.model import Action
from privacy.pii.finishing import normalise
from privacy.pii.placeholders import LITERAL, LOOKS_LIKE, write
from privacy.pii.restoring import AnyOf, Originals, folded
from privacy.pii.scripts import HAN
from privacy.pii.stand_ins import StandIns, mask

REVERSIBLE: Final[frozenset[Action]] = frozenset({"replace", "hash", "pseudonym", "encrypt"})
"""Actions whose stand-ins the map of a conversation restores."""

_ATTEMPTS: Final = 8
_GIVE_UP: Final = 50
"""After so many values of a kind without a surrogate its lists are used up: no more are tried."""

_LATIN: Final = regex.compile(r"[\p{Latin}\p{Mn}0-9]+")
_NAME: Final = regex.compile(r"[\p{L}\p{Mn}]+")
_SHORTEST_PART: Final = 3
# "37" or "Saturday" would be found, and replaced, where an answer means just that.
_COMMON: Final = frozenset({"AGE", "NATIONALITY", "TITLE"})
_LEAST_CHARACTERS: Final = {"han": 2, "other": 5}


class Assigned:
    """The stand-ins of one conversation.

    Args:
        stand_ins: makes keyed ones.
    """

    def __init__(self, stand_ins: StandIns) -> None:
        self._made = stand_ins
        self._placeholders: dict[str, str] = {}
        self._literals: dict[str, str] = {}
        self._taken: dict[str, str] = {}
        self._parts: dict[str, dict[str, str]] = {}
        self._alone: dict[str, str] = {}
        self._numbers: dict[str, str] = {}
        self._index: dict[tuple[str, str], int] = {}
        self._next: Counter[str] = Counter()
        self._spellings: dict[str, dict[tuple[str, bool], int]] = {}
        self._surrogates: dict[tuple[str, str], str | None] = {}
        self._words: set[str] = set()
        self._pairs: set[str] = set()
        self._without: Counter[str] = Counter()
        self._cache: dict[bool, Originals] = {}
        self._look_alike: AnyOf | None = None

    def __reduce__(self) -> NoReturn:
        raise TypeError("the map of a conversation is never stored or sent")

    @property
    def placeholders(self) -> dict[str, str]:
        """Placeholder -> original. Personal data."""
        return self._placeholders

    def said(self, text: str) -> None:
        """Note a text of the conversation, so that no surrogate equals a part of it."""
        self._words.update(word.casefold() for word in _LATIN.findall(text))
        if HAN.search(text):
            self._pairs.update(map("".join, pairwise(text)))

    def stand_in(self, value: str, entity: str, action: Action, *, number: bool = False) -> str:
        """What stands for a value. ``number``: it was a number in JSON, and is to be one again."""
        if action == "mask":
            return mask(value, entity)
        if action == "redact":
            return f"<{entity}>"
        if action == "pseudonym" and (made := self._pseudonym(value, entity)) is not None:
            return made
        if action in ("hash", "encrypt"):
            make = self._made.digest if action == "hash" else self._made.encrypt
            token = make(value, entity)
            spelling = self._spelling(token, value, number)
            made = f"{token[:-1]}.{spelling}>" if spelling else token
        else:
            made = self._placeholder(value, entity, number)
            self._keep(self._placeholders, made, value, number)
            return made
        self._taken[made.casefold()] = value
        self._keep(self._literals, made, value, number)
        return made

    def originals(self, *, json: bool = False) -> Originals:
        """The way back, for text or for JSON source."""
        found = self._cache.get(json)
        if found is None:
            found = self._cache[json] = Originals(**self.export(), json=json)
        return found

    def export(self) -> dict[str, Mapping[str, str]]:
        """What :class:`Originals` is made of, by the names of its arguments."""
        parts = {
            part: next(iter(known.values()))
            for part, known in self._parts.items()
            if len(known) == 1
        }
        return {
            "placeholders": self.placeholders,
            "literals": parts | self._literals,
            "numbers": self._numbers,
        }

    def look_alikes(self, text: str) -> list[tuple[int, int]]:
        """[start, end) of input that would be restored if it came back."""
        found = [match.span() for match in LOOKS_LIKE.finditer(text)]
        if self._literals:
            if self._look_alike is None:
                self._look_alike = AnyOf([*self._literals, *self._parts], bounded=False)
            low = folded(text)
            place = self._look_alike.find(low)
            while place is not None:
                found.append(place)
                place = self._look_alike.find(low, place[1])
        return found

    def _keep(self, kept: dict[str, str], made: str, value: str, number: bool) -> None:
        if made in kept:
            return
        kept[made] = value
        if number:
            self._numbers[made] = value
        # Placeholders alone are looked up as they are; all else is part of compiled patterns.
        if number or kept is not self._placeholders:
            self._cache.clear()
            self._look_alike = None

    def _placeholder(self, value: str, entity: str, number: bool) -> str:
        same = value if entity == LITERAL else normalise(value.replace("_", " "), entity)
        key = (entity, same)
        if key not in self._index:
            self._next[entity] += 1
            self._index[key] = self._next[entity]
        index = self._index[key]
        return write(entity, index, self._spelling(write(entity, index), value, number))

    def _spelling(self, of: str, value: str, number: bool) -> int:
        """Which spelling of its value this is, from 0."""
        known = self._spellings.setdefault(of, {})
        return known.setdefault((value, number), len(known))

    def _pseudonym(self, value: str, entity: str) -> str | None:
        """A surrogate that can be told from all that was said; None where there is none."""
        key = (entity, value)
        if key not in self._surrogates:
            self._surrogates[key] = self._chosen(value, entity)
            made = self._surrogates[key]
            if made is not None:
                self._taken[made.casefold()] = value
                self._keep(self._literals, made, value, number=False)
                for part, original in _parts(made, value, entity):
                    self._parts.setdefault(part.casefold(), {}).setdefault(
                        original.casefold(), original
                    )
                    self._alone.setdefault(original, part)
        return self._surrogates[key]

    def _chosen(self, value: str, entity: str) -> str | None:
        if entity in _COMMON or self._without[entity] > _GIVE_UP:
            return None
        if entity == "PERSON" and value in self._alone:
            # A word of a name that is known: the word that stands for it there.
            made = self._alone[value]
            if not self._is_taken(made, value, entity):
                return made
        for attempt in range(_ATTEMPTS):
            made = self._made.pseudonym(value, entity, attempt)
            if not _telling(made, entity):
                return None
            if not self._is_taken(made, value, entity) and not self._was_said(made, entity):
                return made
        self._without[entity] += 1
        return None

    def _is_taken(self, made: str, value: str, entity: str) -> bool:
        """Whether the surrogate, or a word of it, stands for another value already."""
        if self._taken.get(made.casefold(), value) != value:
            return True
        for part, original in [(made, value), *_parts(made, value, entity)]:
            part, same = part.casefold(), original.casefold()
            if self._taken.get(part, original).casefold() != same:
                return True
            if self._parts.get(part, {}).keys() - {same}:
                return True
        return False

    def _was_said(self, made: str, entity: str) -> bool:
        words = [word.casefold() for word in _LATIN.findall(made)]
        if words and not HAN.search(made):
            # One word of a name is enough: answers use first names.
            some = any if entity == "PERSON" else all
            return some(word in self._words for word in words if len(word) >= _SHORTEST_PART)
        # Where all its pairs were said, it may have been.
        return all("".join(pair) in self._pairs for pair in pairwise(made))


def _parts(made: str, value: str, entity: str) -> list[tuple[str, str]]:
    """Words of a surrogate name, each with the word in its place: answers use first names."""
    if entity != "PERSON":
        return []
    if HAN.search(made):
        pairs = [(made[1:], value[1:])] if len(made) == len(value) == 3 else []
    else:
        left, right = _NAME.findall(made), _NAME.findall(value)
        pairs = list(zip(left, right, strict=True)) if len(left) == len(right) > 1 else []
        pairs = [pair for pair in pairs if len(pair[0]) >= _SHORTEST_PART]
    return [(part, original) for part, original in pairs if part != original]


def _telling(made: str, entity: str) -> bool:
    """Whether a surrogate is unlike anything that an answer would say by itself."""
    if entity in ("DATE_TIME", "DATE_OF_BIRTH") and not regex.search("[0-9]", made):
        return False
    script = "han" if HAN.search(made) else "other"
    return sum(character.isalnum() for character in made) >= _LEAST_CHARACTERS[script]
