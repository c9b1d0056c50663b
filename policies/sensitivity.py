"""How sensitive a kind of personal data is, and the most that a release may meet."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final, Literal, get_args

from pydantic import Field

from policies.pii import EntityName
from policies.section import Phrase, Section

Sensitivity = Literal["internal", "confidential", "restricted"]
"""From the least to the most sensitive."""

Maximum = Literal["none", "internal", "confidential", "restricted"]
"""`none` is less than every kind: no personal data at all."""

_ORDER: Final[tuple[Maximum, ...]] = get_args(Maximum)

DEFAULT_SENSITIVITY: Final[Mapping[str, Sensitivity]] = {
    "AGE": "internal",
    "BANK_ACCOUNT": "restricted",
    "CREDIT_CARD": "restricted",
    "CRYPTO": "restricted",
    "DATE_TIME": "internal",
    "DRIVER_LICENSE": "restricted",
    "IBAN_CODE": "restricted",
    "LOCATION": "internal",
    "NATIONALITY": "internal",
    "NATIONAL_ID": "restricted",
    "ORGANIZATION": "internal",
    "PASSPORT": "restricted",
    "POSTCODE": "internal",
    "SECRET": "restricted",
    "TITLE": "internal",
    "URL": "internal",
}
"""Every other kind is `confidential`."""


class SensitivityPolicy(Section):
    """How sensitive each kind of personal data is, and the most that each release may meet.

    `entities` changes the level of a kind. `releases` are shell-style patterns over the names of
    models (`fnmatch.fnmatchcase`), of which the strictest that fits counts; `maximum` is for all
    that no pattern fits. A prompt that holds something above it is refused, although it would be
    redacted; an answer in which a model says something above it by itself is withheld.
    """

    maximum: Maximum = "restricted"
    releases: Mapping[Phrase, Maximum] = Field(default_factory=dict)
    entities: Mapping[EntityName, Sensitivity] = Field(default_factory=dict)

    def maximum_of(self, release: str) -> Maximum:
        """The most sensitive level that `release` may meet."""
        fitting = [
            level for pattern, level in self.releases.items() if fnmatchcase(release, pattern)
        ]
        return min(fitting, key=_ORDER.index, default=self.maximum)

    def level(self, entity: str) -> Sensitivity:
        """How sensitive a kind of personal data is."""
        return self.entities.get(entity) or DEFAULT_SENSITIVITY.get(entity, "confidential")

    def allows(self, release: str, entity: str) -> bool:
        """Whether `release` may meet personal data of this kind."""
        return _ORDER.index(self.level(entity)) <= _ORDER.index(self.maximum_of(release))

    def named(self) -> dict[str, str]:
        """Every kind that the section names, with the key that does."""
        return {entity: f"sensitivity.entities.{entity}" for entity in self.entities}
