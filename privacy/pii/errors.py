"""What can go wrong while finding and replacing personal data.

::

    PiiError
    ├── DetectorNotReady       a configured language has no usable model; raised at construction
    ├── RedactionUnavailable   detection failed; the text must not go on
    └── RefusedEntity          the policy refuses texts with this kind of personal data

No message ever holds the text or a part of it.
"""


class PiiError(Exception):
    """Root of the errors of this package."""


class DetectorNotReady(PiiError):
    """A detector cannot be built as configured. There is no weaker stand-in: fail closed."""


class RedactionUnavailable(PiiError):
    """Personal data could not be looked for, so nothing is known about the text."""


class RefusedEntity(PiiError):
    """The text holds personal data of a kind that the policy refuses."""

    def __init__(self, entity: str) -> None:
        super().__init__(f"the policy refuses texts that hold {entity}; remove it and send again")
        self.entity = entity
