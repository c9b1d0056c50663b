"""One frame: a JSON header and float32 tensors. On the agent's socket and in its state folder.

Layout (big-endian): ``IMA1``, header length (4 bytes), body length (8 bytes), header (canonical
JSON object), body (safetensors, or empty for no tensors). Lengths are checked against bounds before
anything is read, and neither part can carry code.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from client.errors import FrameInvalid
from privacy.canonical import canonical_json, parse_canonical
from privacy.errors import CanonicalError, ExchangeInvalid
from privacy.exchange import Array, read_tensors, write_tensors

MAX_HEADER = 1 << 20
MAX_BODY = 1 << 30
_PREFIX = struct.Struct(">4sIQ")
_MAGIC = b"IMA1"


@dataclass(frozen=True)
class Frame:
    """A JSON object and tensors by name."""

    header: dict[str, Any]
    tensors: Mapping[str, Array] = field(default_factory=dict)


def pack(frame: Frame) -> bytes:
    """The frame's bytes; equal frames give equal bytes.

    Raises:
        FrameInvalid: a part exceeds its bound, or a tensor is not finite float32.
    """
    header = canonical_json(frame.header)
    try:
        body = write_tensors(frame.tensors) if frame.tensors else b""
    except ExchangeInvalid as error:
        raise FrameInvalid(str(error)) from None
    _check_lengths(len(header), len(body))
    return _PREFIX.pack(_MAGIC, len(header), len(body)) + header + body


def read(take: Callable[[int], bytes]) -> Frame:
    """Read one frame; ``take(n)`` returns exactly ``n`` bytes or raises.

    Raises:
        FrameInvalid: other magic, a length beyond its bound, no JSON object, no valid tensors.
    """
    magic, header_length, body_length = _PREFIX.unpack(take(_PREFIX.size))
    if magic != _MAGIC:
        raise FrameInvalid(f"a frame begins with {_MAGIC!r}, this one does not")
    _check_lengths(header_length, body_length)
    try:
        header = parse_canonical(take(header_length))
    except CanonicalError as error:
        raise FrameInvalid(f"the frame's header: {error}") from None
    if not isinstance(header, dict):
        raise FrameInvalid(f"the frame's header is {type(header).__name__}, not an object")
    return Frame(header, _tensors(take(body_length)) if body_length else {})


def unpack(data: bytes) -> Frame:
    """Read a frame that fills ``data`` entirely.

    Raises:
        FrameInvalid: as :func:`read`, or bytes are missing or left over.
    """
    position = 0

    def take(count: int) -> bytes:
        nonlocal position
        part = data[position : position + count]
        if len(part) != count:
            raise FrameInvalid(f"the frame ends after {len(data)} bytes, in the middle")
        position += count
        return part

    frame = read(take)
    if position != len(data):
        raise FrameInvalid(f"{len(data) - position} bytes follow the frame")
    return frame


def _tensors(body: bytes) -> dict[str, Array]:
    try:
        return read_tensors(body)
    except ExchangeInvalid as error:
        raise FrameInvalid(f"the frame's body: {error}") from None


def _check_lengths(header: int, body: int) -> None:
    if header > MAX_HEADER:
        raise FrameInvalid(f"a header of {header} bytes exceeds the bound of {MAX_HEADER}")
    if body > MAX_BODY:
        raise FrameInvalid(f"a body of {body} bytes exceeds the bound of {MAX_BODY}")
