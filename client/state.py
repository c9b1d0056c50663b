"""The replies that a node has given, kept so that the same question gets the same bytes.

Without this, a hub that repeats a round would either get a second noised answer for free, or make
the department pay twice. The store knows no ledger and no Flower.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from client.errors import AgentMisconfigured, FrameInvalid
from client.frames import Frame, pack, unpack
from privacy.canonical import canonical_json
from privacy.crashpoints import reached
from privacy.errors import ExchangeInvalid, ReceiptInvalid
from privacy.exchange import Array, RoundReply, RoundRequest, adapter_digest
from privacy.files import write_atomic
from privacy.receipts import SignedReceipt
from privacy.signing import VerifyKey

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """What identifies a round that may be asked for again: every field and every tensor of it."""

    run_id: str
    round: int
    request_digest: str
    adapter_digest: str

    @classmethod
    def of(cls, request: RoundRequest, adapter: Mapping[str, Array]) -> "Question":
        """The identity of a request together with the adapter it came with."""
        text = request.to_json().encode()
        return cls(
            request.run_id,
            request.round,
            hashlib.sha256(text).hexdigest(),
            adapter_digest(adapter),
        )

    @property
    def name(self) -> str:
        """64 hexadecimal digits, a file name."""
        parts = [self.run_id, self.round, self.request_digest, self.adapter_digest]
        return hashlib.sha256(canonical_json(parts)).hexdigest()


class ReplyStore:
    """Replies by question, one file each, in a folder that only the node's user can read."""

    def __init__(self, folder: Path, key: VerifyKey) -> None:
        self._folder = Path(folder)
        self._key = key
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise AgentMisconfigured(
                f"the state folder {folder} cannot be made: {error.strerror}"
            ) from None

    def load(self, question: Question) -> RoundReply | None:
        """The stored reply; None where there is none.

        A file that is damaged, or not signed by this node, counts as none: the round then costs
        budget again, which is safe, instead of handing out bytes that no receipt covers.
        """
        path = self._path(question)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return self._parse(data, question)
        except (FrameInvalid, ReceiptInvalid, ExchangeInvalid) as error:
            _log.warning("the stored reply %s is ignored: %s", path.name, error)
            return None

    def save(self, question: Question, reply: RoundReply) -> None:
        """Store a reply: durable once this returns."""
        data = pack(Frame({"receipt": reply.receipt.to_json()}, reply.update))
        reached("state.before-write")
        # A crash before: no reply exists and none has left; the reservation stays spent.
        # A crash after: asked again, the node finds this file and gives the same bytes.
        write_atomic(self._path(question), data, mode=0o600)
        reached("state.after-write")

    def _parse(self, data: bytes, question: Question) -> RoundReply:
        frame = unpack(data)
        line = frame.header.get("receipt")
        if set(frame.header) != {"receipt"} or not isinstance(line, str):
            raise FrameInvalid("a stored reply has the one field 'receipt'")
        reply = RoundReply(dict(frame.tensors), SignedReceipt.from_json(line))
        receipt = reply.receipt.verify(self._key)
        belongs = (
            receipt.run_id == question.run_id
            and receipt.round == question.round
            and receipt.adapter_before == question.adapter_digest
            and receipt.adapter_after == adapter_digest(reply.update)
        )
        if not belongs:
            raise FrameInvalid("the receipt belongs to another question or another update")
        return reply

    def _path(self, question: Question) -> Path:
        return self._folder / f"{question.name}.reply"
