"""Everything that a department's node raises on purpose.

::

    ClientError
    └── AgentError                the node agent cannot do its work
        ├── AgentMisconfigured    what it was built from does not fit together
        ├── AgentUnavailable      nobody answers on its socket, or it stopped in between
        └── FrameInvalid          bytes on the socket or in the state folder are no frame of ours
"""


class ClientError(Exception):
    """Root of the tree; its text is written for the department's administrator."""


class AgentError(ClientError):
    """The node agent cannot do its work."""


class AgentMisconfigured(AgentError):
    """What the agent was built from does not fit together; nothing was spent."""


class AgentUnavailable(AgentError):
    """Nobody answers on the agent's socket, or it went away before its answer was complete."""


class FrameInvalid(AgentError):
    """Bytes on the socket or in the state folder are no frame of ours."""
