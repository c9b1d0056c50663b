"""What can go wrong while finding and replacing personal data.

::

    PiiError
    ├── DetectorNotReady       a configured language has no usable model; raised at construction
    │   └── PatternRefused     a pattern of the policy is unusable or could run without end
    ├── CannotRedact           images, sound or files, which cannot be looked into
    ├── InvalidText            what was given is no text
    ├── RedactionUnavailable   detection failed; the text must not go on
    │   └── LimitExceeded      the text is longer, or takes longer, than the limits allow
    └── RefusedEntity          the policy refuses texts with this kind of personal data

No message ever holds the text or a part of it.
"""


class PiiError(Exception):
    """Root of the errors of this package."""


class DetectorNotReady(PiiError):
    """A detector cannot be built as configured. There is no weaker stand-in: fail closed."""


class PatternRefused(DetectorNotReady):
    """A pattern of the policy cannot be used. Names it and says why."""


class CannotRedact(PiiError):
    """A request holds something that is no text, so personal data in it would go unseen."""


class InvalidText(PiiError):
    """Bytes that are no UTF-8, or no text at all, so nothing can be looked for."""


class RedactionUnavailable(PiiError):
    """Personal data could not be looked for, so nothing is known about the text."""


class LimitExceeded(RedactionUnavailable):
    """A text or a call is beyond a stated limit: nothing was redacted and nothing may go on."""


class RefusedEntity(PiiError):
    """The text holds personal data of a kind that the policy refuses."""

    def __init__(self, entity: str) -> None:
        super().__init__(f"the policy refuses texts that hold {entity}; remove it and send again")
        self.entity = entity
