"""What the sections of a policy have in common: how strict they are, lists, phrases."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints

T = TypeVar("T")


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    seen: set[T] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"names {value!r} twice")
        seen.add(value)
    return values


Phrase = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"\S")]
Distinct = (BeforeValidator(_as_tuple), AfterValidator(_distinct))


class Section(BaseModel):
    """A part of the policy: frozen, no unknown keys, no silent conversions, no NaN, no infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
