"""Frames on the agent's socket and in its state folder."""

import struct

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.errors import FrameInvalid
from client.frames import MAX_BODY, MAX_HEADER, Frame, pack, unpack

headers = st.dictionaries(st.text(max_size=8), st.text(max_size=20) | st.integers(), max_size=4)
names = st.text("abc.AB_", min_size=1, max_size=12)
arrays = npst.arrays(
    np.float32,
    npst.array_shapes(max_dims=3, max_side=4),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


@given(headers, st.dictionaries(names, arrays, max_size=3))
def test_frame_comes_back_as_it_was(header: dict, tensors: dict) -> None:
    """Reading what was written gives the same header and the same bits of every tensor."""
    frame = unpack(pack(Frame(header, tensors)))
    assert frame.header == header
    assert {n: (a.shape, a.tobytes()) for n, a in frame.tensors.items()} == {
        n: (a.shape, a.tobytes()) for n, a in tensors.items()
    }


@given(st.dictionaries(names, arrays, min_size=2, max_size=4))
def test_equal_frames_have_equal_bytes(tensors: dict) -> None:
    """The order in which tensors were added does not show in the bytes."""
    backwards = dict(reversed(tensors.items()))
    assert pack(Frame({}, tensors)) == pack(Frame({}, backwards))


@settings(max_examples=200)
@given(st.data())
def test_damaged_frame_is_refused_or_read(data: st.DataObject) -> None:
    """Any changed byte and any cut gives a frame or FrameInvalid, never another error."""
    whole = bytearray(pack(Frame({"a": "b"}, {"t": np.arange(6, dtype=np.float32)})))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(whole)))
    for candidate in (bytes(whole), bytes(whole[:cut])):
        try:
            unpack(candidate)
        except FrameInvalid:
            continue


@pytest.mark.parametrize(("header", "body"), [(MAX_HEADER + 1, 0), (2, MAX_BODY + 1)])
def test_length_beyond_its_bound_is_refused_before_reading(header: int, body: int) -> None:
    """A frame that announces too much is refused on its announcement."""
    with pytest.raises(FrameInvalid, match="exceeds the bound"):
        unpack(struct.pack(">4sIQ", b"IMA1", header, body))


def test_bytes_after_the_frame_are_refused() -> None:
    """A stored frame fills its file."""
    with pytest.raises(FrameInvalid, match="1 bytes follow"):
        unpack(pack(Frame({})) + b"x")


def test_tensor_that_is_not_finite_float32_is_refused() -> None:
    """No NaN and no other type crosses."""
    for bad in (np.array([np.nan], np.float32), np.array([1.0], np.float64)):
        with pytest.raises(FrameInvalid, match="tensor 't'"):
            pack(Frame({}, {"t": bad}))
