"""What comes of a prompt in which a guard of the service finds something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from policies.roles import Name
from policies.section import Section

GuardAction = Literal["off", "log", "block"]
"""`off`: the guard is not asked. `log`: its finding is in the audit entry and the metrics. `block`:
the prompt is refused as well."""


def _not_built_in(own: Mapping[str, GuardAction]) -> Mapping[str, GuardAction]:
    for name in own:
        if name in ("secrets", "injection"):
            raise ValueError(f"names {name!r}, which is built in: write guards.{name} instead")
    return own


class GuardsPolicy(Section):
    """The built-in guards, and by their names those that are installed beside the service.

    `secrets` finds what redaction knows as SECRET, `injection` the usual phrases that give a model
    new orders. Both only record by default: secrets are replaced before a model sees them, and
    phrases are a heuristic.
    """

    secrets: GuardAction = "log"
    injection: GuardAction = "log"
    own: Annotated[Mapping[Name, GuardAction], AfterValidator(_not_built_in)] = Field(
        default_factory=dict
    )

    def actions(self) -> dict[str, GuardAction]:
        """What comes of the findings of every guard, by its name."""
        return {"secrets": self.secrets, "injection": self.injection, **self.own}
