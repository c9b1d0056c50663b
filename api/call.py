"""What is known about one request while it is answered. Holds no text of anybody."""

import secrets
import time
from dataclasses import dataclass, field

from fastapi import Request

from policies.grants import Caller
from policies.roles import Retention


@dataclass
class Call:
    """Filled in on the way; the audit entry and the metrics are made from it.

    Attributes:
        request_id: made here, never taken from the caller.
        operation: what the policy calls it; ``unknown`` until a route is reached.
        principal: who asks; empty until authenticated.
        key_id, role, department: of the credential that was used.
        caller: all that is known about who asks, for decisions.
        retention: what the audit entry keeps of texts.
        release: id of the release that answers.
        personal: department whose own adapter is on top of it; empty where none is.
        outcome: ``ok`` or the code of the error that was answered.
        stream: whether the answer is streamed.
        digests: keyed digests of texts, by what they are of.
        entities: personal data found in the request, counted by type.
        guards: names of the guards that found something in the prompt.
        answer_entities: personal data that only the answer held, counted by type.
        prompt_tokens, completion_tokens: usage so far.
        audit_index: index of the entry that covers the answer.
        ended: whether no entry is missing: the answer was whole, or the end of its stream is recorded.
    """

    request_id: str = field(default_factory=lambda: f"req_{secrets.token_hex(16)}")
    started: float = field(default_factory=time.monotonic)
    operation: str = "unknown"
    principal: str = ""
    key_id: str = ""
    role: str = ""
    department: str = ""
    caller: Caller | None = None
    retention: Retention = "digests"
    release: str = ""
    personal: str = ""
    outcome: str = "ok"
    stream: bool = False
    digests: dict[str, str] = field(default_factory=dict)
    entities: dict[str, int] = field(default_factory=dict)
    guards: tuple[str, ...] = ()
    answer_entities: dict[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    audit_index: int | None = None
    ended: bool = False

    @classmethod
    def of(cls, request: Request) -> "Call":
        """The call that the gate made for this request."""
        call = request.scope["state"]["call"]
        if not isinstance(call, cls):
            raise TypeError("the gate must stand before every route")
        return call
