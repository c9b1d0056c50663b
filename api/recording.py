"""Audit entries about calls: keyed digests, counts and names of ours. Never a text.

The only module of the service that speaks to the audit log. Entries of kind ``call`` have the
fields below; ``phase`` is ``answered`` for a whole answer, ``started`` before the first byte of a
stream, ``ended`` after its last text.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from anyio import to_thread

from api.call import Call
from privacy.audit.entries import AuditEntry
from privacy.audit.log import AuditLog
from privacy.canonical import canonical_json


class Recorder:
    """Appends what happened with a call; ``measured`` stands around each append."""

    def __init__(
        self,
        audit: AuditLog,
        policy_digest: str,
        measured: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._measured = measured
        self._audit = audit
        self._policy_digest = policy_digest

    @property
    def available(self) -> bool:
        """Whether the next entry may be accepted."""
        return self._audit.available

    def digest(self, texts: Sequence[str]) -> str:
        """Keyed digest of texts in order: whoever has the texts and the log's key can compare."""
        return self._audit.text_digest(canonical_json(list(texts)).decode())

    async def record(self, call: Call, status: int) -> None:
        """Append the entry that covers the answer, and note its index in the call.

        Durable once this returns.

        Raises:
            PrivacyError: it was not appended; the call must not be answered.
        """
        phase = "started" if call.stream and status == 200 else "answered"
        call.ended = phase == "answered"
        call.audit_index = await self._append(call, phase, {"status": status})

    async def record_end(self, call: Call) -> None:
        """Append how a stream ended, with what it used until then.

        Also where the wait for it is cut off: the entry is under way then, and is not to be
        appended again.

        Raises:
            PrivacyError: it was not appended.
        """
        data: dict[str, Any] = {} if call.audit_index is None else {"started_at": call.audit_index}
        call.ended = True
        try:
            await self._append(call, "ended", data)
        except Exception:
            call.ended = False
            raise

    async def _append(self, call: Call, phase: str, data: dict[str, Any]) -> int:
        entry = AuditEntry.now(
            "call",
            call.key_id or "anonymous",
            {
                **data,
                "phase": phase,
                "request": call.request_id,
                "operation": call.operation,
                "outcome": call.outcome,
                "principal": call.principal,
                "role": call.role,
                "release": call.release,
                "personal": call.personal,
                "policy": self._policy_digest,
                "digests": dict(call.digests) if call.retention == "digests" else {},
                "entities": dict(call.entities),
                "guards": list(call.guards),
                "answer_entities": dict(call.answer_entities),
                "prompt_tokens": call.prompt_tokens,
                "completion_tokens": call.completion_tokens,
                "milliseconds": int(1000 * (time.monotonic() - call.started)),
            },
        )
        with self._measured():
            appended = await to_thread.run_sync(self._audit.append, entry)
        return appended.index
