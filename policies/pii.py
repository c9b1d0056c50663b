"""What counts as personal data, and what happens to each kind of it, where and for whom.

Five sources can name an action: a role for one direction, a role, a direction, the section `pii`
itself, and everywhere a default beside the rules. :func:`rule_for` says which one wins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from policies.limits import Number
from policies.section import Distinct, Phrase, Section

Action = Literal["replace", "mask", "hash", "pseudonym", "encrypt", "redact", "block", "allow"]
"""What happens to a finding.

`replace` puts a typed, numbered placeholder, `mask` stars, `hash` a keyed digest, `pseudonym` a
realistic stand-in of the same kind, `encrypt` a token that the key opens, `redact` the bare type;
`block` refuses the text and `allow` leaves it. In a conversation `replace`, `hash`, `pseudonym` and
`encrypt` are restored in the answer through the request's map; `mask` and `redact` never are."""

Direction = Literal["training", "prompt", "answer"]
"""Where a text is going: into a training set, to a model, or from a model to an application."""

Language = Literal["en", "zh"]

OLD_NAMES: Mapping[str, str] = {"keep": "allow", "refuse": "block"}
"""Former names of actions; policies that say them are read as before."""


def _new_name(value: object) -> object:
    return OLD_NAMES.get(value, value) if isinstance(value, str) else value


ActionName = Annotated[Action, BeforeValidator(_new_name)]
EntityName = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,59}\z")]
Score = Annotated[Number, Field(ge=0, le=1)]


class PiiRules(Section):
    """Actions for one direction. What it does not name is taken from the section `pii`."""

    default_action: ActionName | None = None
    entities: Mapping[EntityName, ActionName] = Field(default_factory=dict)


class RolePii(PiiRules):
    """Actions for the holders of one role, in both directions, or in one of them."""

    prompt: PiiRules = PiiRules()
    answer: PiiRules = PiiRules()


class PiiPatternPolicy(Section):
    """A regular expression of the organisation's own identifiers, and the kind that it finds.

    A word of `context` shortly before a match raises its `score`. The expression is compiled and
    tried, for its form and for the time that it may take, where it is used: `privacy.pii.custom`.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,39}\z")]
    entity: EntityName
    regex: Annotated[str, StringConstraints(min_length=1, max_length=1000)]
    score: Annotated[Number, Field(gt=0, le=1)] = 0.6
    context: Annotated[tuple[Phrase, ...], *Distinct] = ()


def _named_apart(patterns: tuple[PiiPatternPolicy, ...]) -> tuple[PiiPatternPolicy, ...]:
    names = [pattern.name for pattern in patterns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"names {twice[0]!r} twice")
    return patterns


class PiiPolicy(Section):
    """What counts as personal data, and what happens to it.

    `threshold` is the least score of a finding, `thresholds` that of findings of one kind. `allow`
    lists texts that are never personal data, `deny` texts that always are (both compared without
    regard to case by the detector). `patterns` are regular expressions besides the built-in ones.
    `training`, `prompt` and `answer` change actions for one direction.
    """

    languages: Annotated[tuple[Language, ...], Field(min_length=1), *Distinct] = ("en", "zh")
    threshold: Score = 0.5
    thresholds: Mapping[EntityName, Score] = Field(default_factory=dict)
    entities: Mapping[EntityName, ActionName] = Field(default_factory=dict)
    default_action: ActionName = "replace"
    training: PiiRules = PiiRules()
    prompt: PiiRules = PiiRules()
    answer: PiiRules = PiiRules()
    allow: Annotated[tuple[Phrase, ...], *Distinct] = ()
    deny: Annotated[tuple[Phrase, ...], *Distinct] = ()
    patterns: Annotated[
        tuple[PiiPatternPolicy, ...],
        Field(max_length=200),
        *Distinct,
        AfterValidator(_named_apart),
    ] = ()

    def tables(self) -> dict[str, PiiRules]:
        """The rules of each direction by the key of their table."""
        return {f"pii.{name}": getattr(self, name) for name in ("training", "prompt", "answer")}

    def named(self) -> dict[str, str]:
        """Every kind of personal data that the section names, with the key that does.

        Kinds that are found on request only are looked for when they are among these.
        """
        keys = {f"pii.thresholds.{entity}": entity for entity in self.thresholds}
        keys |= {f"pii.entities.{entity}": entity for entity in self.entities}
        keys |= {f"pii.patterns.{one.name}": one.entity for one in self.patterns}
        keys |= keys_of(self.tables())
        return {entity: key for key, entity in reversed(keys.items())}


def keys_of(tables: Mapping[str, PiiRules]) -> dict[str, str]:
    """The key of every rule in tables, such as `pii.answer.entities.PERSON`, with its kind."""
    return {
        f"{prefix}.entities.{entity}": entity
        for prefix, rules in tables.items()
        for entity in rules.entities
    }


UNSURROGATED: Mapping[str, str] = {
    "TERM": "a term is any phrase of pii.deny, so nothing realistic can stand for it",
    "SECRET": "an invented secret would be taken for one that opens something",
}
"""Kinds for which no realistic stand-in exists, with the reason."""


def clashes(
    tables: Mapping[str, PiiRules], default_action: Action, entities: Mapping[str, Action]
) -> Iterator[tuple[str, str]]:
    """(key, message) of every action that could not do what it says, in `pii` and all `tables`.

    `tables` maps the key of a table, such as `pii.answer`, to its rules.
    """
    every: dict[str, tuple[Action | None, Mapping[str, Action]]] = {
        "pii": (default_action, entities)
    }
    every |= {key: (rules.default_action, rules.entities) for key, rules in tables.items()}
    for prefix, (default, rules) in every.items():
        for entity, chosen in rules.items():
            if chosen == "pseudonym" and entity in UNSURROGATED:
                yield (
                    f"{prefix}.entities.{entity}",
                    f"is 'pseudonym', but {UNSURROGATED[entity]}; use 'replace' or 'hash'",
                )
        if prefix.rpartition(".")[2] != "answer":
            continue
        named = {f"{prefix}.entities.{entity}": action for entity, action in rules.items()}
        for key, action in {f"{prefix}.default_action": default, **named}.items():
            if action == "encrypt":
                message = (
                    "is 'encrypt', but whoever reads an answer has no key to open it; use "
                    "'redact', or 'hash' to tell values apart"
                )
                yield key, message


def rule_for(
    sources: tuple[tuple[Mapping[str, Action], Action | None], ...], entity: str, default: Action
) -> Action:
    """The action for `entity` by `sources`, (rules, default) with the most specific first.

    A rule that names the entity beats every default, so that no default of a role loosens what
    the organisation said about one kind.
    """
    for rules, _ in sources:
        if entity in rules:
            return rules[entity]
    for _, fallback in sources:
        if fallback is not None:
            return fallback
    return default
