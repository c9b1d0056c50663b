"""What an API key is good for: some operations, some releases, from some networks."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from ipaddress import ip_address, ip_network

from api.errors import KeyRequestInvalid
from policies.roles import OPERATIONS
from privacy.canonical import canonical_json


@dataclass(frozen=True)
class Scope:
    """The part of a role that one key has; None: all of it.

    ``releases`` are shell-style patterns over release ids, ``networks`` those from which the key
    may be used, such as ``10.2.0.0/16``. Made by :meth:`of`, which checks.
    """

    operations: tuple[str, ...] | None = None
    releases: tuple[str, ...] | None = None
    networks: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls,
        operations: Sequence[str] = (),
        releases: Sequence[str] = (),
        networks: Sequence[str] = (),
    ) -> "Scope":
        """A scope; what is left empty is not narrowed.

        Raises:
            KeyRequestInvalid: an unknown operation, or a network that is none.
        """
        for operation in operations:
            if operation not in OPERATIONS:
                raise KeyRequestInvalid(
                    f"there is no operation {operation!r}; there are {', '.join(OPERATIONS)}"
                )
        found = []
        for network in networks:
            try:
                found.append(str(ip_network(network)))
            except ValueError as error:
                raise KeyRequestInvalid(f"network {network!r}: {error}") from None
        return cls(tuple(operations) or None, tuple(releases) or None, tuple(found) or None)

    @classmethod
    def parse(cls, text: str) -> "Scope":
        """What :meth:`text` wrote."""
        if not text:
            return cls()
        return cls(**{name: tuple(values) for name, values in json.loads(text).items()})

    def text(self) -> str:
        """Canonical JSON of what is narrowed; ``""`` where nothing is."""
        narrowed = {name: list(part) for name, part in asdict(self).items() if part is not None}
        return canonical_json(narrowed).decode() if narrowed else ""

    def admits(self, origin: str | None) -> bool:
        """Whether a caller at this address may use the key; an unknown address only if any may."""
        if self.networks is None:
            return True
        try:
            address = ip_address(origin or "")
        except ValueError:
            return False
        # A dual-stack listener shows IPv4 callers as ::ffff:10.2.3.4.
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in ip_network(network) for network in self.networks)
