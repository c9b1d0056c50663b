"""The port between what speaks Flower and what owns the department's data.

Importing this module loads neither torch nor Flower: the process that Flower starts for each message
holds nothing but a translation and a socket.
"""

from collections.abc import Mapping
from typing import Protocol

from privacy.exchange import Array, Decline, RoundReply, RoundRequest


class Agent(Protocol):
    """What a department's node answers with; in the same process or behind a socket."""

    def handle(
        self, request: RoundRequest, adapter: Mapping[str, Array], manifest: str | None = None
    ) -> RoundReply | Decline:
        """Answer one round of the run whose signed manifest (its JSON text) is ``manifest``.

        Promises: nothing is looked at before the manifest is verified and asks for exactly this
        request; budget is reserved durably before the first gradient; a reply is durable before it
        is returned, and the same request and adapter get the same bytes again, without a second
        charge; nothing private is in the answer. A request that the department does not accept is
        a :class:`~privacy.exchange.Decline`, never an exception.

        Raises:
            client.errors.AgentUnavailable: only where the agent is another process and that
                process cannot be reached. Whether it spent anything is then unknown here, and
                known in its ledger.
        """
        ...
