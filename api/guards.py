"""Guards: they look at a prompt before a model does, and the policy says what comes of it.

Two are built in. Others are installed beside the service: an entry point of the group
``intramural.guards`` by the name that the policy's ``guards.own`` has for it. A guard only finds;
it changes nothing, and its finding is recorded by its name alone.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Final, Protocol

from api.call import Call
from api.errors import ServiceError, invalid_request, unavailable
from api.guard_injection import finds_injection
from policies.guards import GuardAction, GuardsPolicy

_log = logging.getLogger(__name__)
GROUP: Final = "intramural.guards"


@dataclass(frozen=True)
class Prompt:
    """What a guard looks at.

    Attributes:
        texts: what was sent, as it was sent, but for the words of the application itself: system
            and developer turns, instructions, definitions of tools.
        entities: personal data and secrets found in all that was sent, counted by type.
    """

    texts: Sequence[str]
    entities: Mapping[str, int]


class Guard(Protocol):
    """Called in several threads at once."""

    def __call__(self, prompt: Prompt) -> bool:
        """Whether there is something in it that this guard is for.

        Whatever it raises refuses the request; the text of the exception goes nowhere.
        """
        ...


class GuardUnusable(ServiceError):
    """A guard that the policy names is not installed, or cannot be loaded."""


def secrets(prompt: Prompt) -> bool:
    """Whether the detector found keys, passwords or tokens."""
    return prompt.entities.get("SECRET", 0) > 0


def injection(prompt: Prompt) -> bool:
    """Whether a text gives orders to the model; see :mod:`api.guard_injection`."""
    return finds_injection(prompt.texts)


BUILT_IN: Final[Mapping[str, Guard]] = {"secrets": secrets, "injection": injection}


class Guards:
    """The guards that a policy has switched on.

    Raises:
        GuardUnusable: one of them cannot be had. Nothing may be served without it.
    """

    def __init__(self, policy: GuardsPolicy) -> None:
        self._guards: dict[str, tuple[Guard, GuardAction]] = {
            name: (BUILT_IN.get(name) or _installed(name), action)
            for name, action in policy.actions().items()
            if action != "off"
        }

    def check(self, prompt: Prompt, call: Call) -> None:
        """Ask every guard, and note in the call which of them found something.

        Raises:
            HttpError: 400 where the policy blocks what was found, 503 where a guard failed.
        """
        found = []
        for name, (guard, _) in self._guards.items():
            try:
                if guard(prompt):
                    found.append(name)
            except Exception as error:
                _log.error("guard %s failed: %s", name, type(error).__name__)
                raise unavailable(
                    f"guard {name!r} failed, so the request is refused", code="guard_unavailable"
                ) from None
        call.guards = tuple(found)
        blocked = [name for name in found if self._guards[name][1] == "block"]
        if blocked:
            raise invalid_request(
                f"the policy refuses prompts in which guard {blocked[0]!r} finds something; "
                "take it out and send again",
                code="prompt_refused",
            )


def _installed(name: str) -> Guard:
    there = entry_points(group=GROUP)
    if name not in there.names:
        known = ", ".join(sorted(there.names)) or "none"
        raise GuardUnusable(
            f"guards.own.{name}: no guard of this name is installed; installed in the group "
            f"{GROUP}: {known}"
        )
    try:
        guard: Guard = there[name].load()
    except Exception as error:
        raise GuardUnusable(
            f"guards.own.{name}: cannot be loaded: {type(error).__name__}"
        ) from None
    if not callable(guard):
        raise GuardUnusable(
            f"guards.own.{name}: {there[name].value} is no guard: it must be callable"
        )
    return guard
