"""What crosses the wall is validated, complete and nothing else."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from proof_kit import receipt

from privacy.errors import ExchangeInvalid
from privacy.exchange import Decline, RoundReply, RoundRequest, adapter_digest, check_tensors
from privacy.signing import SigningKey

REQUEST = RoundRequest(
    run_id="run-1",
    round=1,
    rounds=4,
    steps=6,
    sampling_rate=0.25,
    noise_multiplier=1.5,
    clipping_norm=0.5,
    clipping="flat",
    noise_bands=1,
    optimiser="adam",
    learning_rate=5e-3,
    rank=8,
    alpha=16.0,
    targets=("q_proj", "v_proj"),
    last_layers=8,
    factors="B",
    max_tokens=256,
    unit="record",
    examples_per_unit=1,
    declared_units=500,
    base_model_digest="a" * 64,
    policy_digest="b" * 64,
    expected_delta=1e-5,
)


def test_a_request_comes_back_from_its_json() -> None:
    """Nothing is lost or changed on the way."""
    assert RoundRequest.from_json(REQUEST.to_json()) == REQUEST
    assert REQUEST.event().steps == 6


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sampling_rate", 0),
        ("sampling_rate", 1.5),
        ("noise_multiplier", 0),
        ("steps", 0),
        ("steps", "6"),
        ("steps", 6.5),
        ("round", 5),
        ("clipping_norm", -1),
        ("expected_delta", 1),
        ("factors", "A"),
        ("unit", "department"),
        ("targets", []),
        ("targets", ["q_proj", "q_proj"]),
        ("targets", ["../secret"]),
        ("base_model_digest", "a" * 63),
        ("run_id", "run\n1"),
        ("code", "import os"),
    ],
)
def test_a_request_outside_its_bounds_is_refused_by_field(field: str, value: object) -> None:
    """The error names the field; an unknown field is refused too."""
    changed = json.loads(REQUEST.to_json()) | {field: value}
    with pytest.raises(ExchangeInvalid, match=r"RoundRequest: "):
        RoundRequest.from_json(json.dumps(changed))


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"run_id": NaN}'])
def test_what_is_no_request_is_refused(text: str) -> None:
    """Broken JSON raises the documented error."""
    with pytest.raises(ExchangeInvalid):
        RoundRequest.from_json(text)


def test_errors_never_repeat_what_was_sent() -> None:
    """A message may hold anything, so its values stay out of errors."""
    with pytest.raises(ExchangeInvalid) as caught:
        RoundRequest.from_json('{"run_id": "Anna Nowak, 1981"}')
    assert "Nowak" not in str(caught.value)


def test_a_decline_has_a_known_code() -> None:
    """A code that programs do not know is no code."""
    decline = Decline(code="budget_exhausted", reason="epsilon=9.2 would exceed 8.0")
    assert Decline.from_json(decline.to_json()) == decline
    with pytest.raises(ExchangeInvalid, match="code"):
        Decline.from_json('{"code":"tired","reason":"x"}')


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"a": np.zeros(2)},
        {"a": np.array([np.nan], np.float32)},
        {"a": np.array([np.inf], np.float32)},
        {"a": [1.0]},
    ],
)
def test_an_update_is_finite_float32(tensors: dict[str, np.ndarray], key: SigningKey) -> None:
    """Anything else cannot even be put into a reply."""
    with pytest.raises(ExchangeInvalid):
        RoundReply(tensors, receipt(key).sign(key))


def test_the_adapter_digest_does_not_depend_on_order_or_memory_layout() -> None:
    """The same names and values give the same digest."""
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    one = {"a": matrix, "b": np.ones(2, np.float32)}
    two = {"b": np.ones(2, np.float32), "a": np.asfortranarray(matrix)}
    assert adapter_digest(one) == adapter_digest(two)
    assert adapter_digest(one) == adapter_digest({"a": matrix.astype(">f4"), "b": one["b"]})


@given(st.integers(0, 5), st.sampled_from(["value", "name", "shape", "dtype"]))
def test_the_adapter_digest_sees_every_change(place: int, what: str) -> None:
    """Value, name, shape and dtype are all covered."""
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}
    check_tensors(tensors)
    changed = tensors["a"].copy()
    changed.flat[place] += 1
    others = {
        "value": {"a": changed},
        "name": {"b": tensors["a"]},
        "shape": {"a": tensors["a"].reshape(3, 2)},
        "dtype": {"a": tensors["a"].view(np.int32)},
    }
    assert adapter_digest(others[what]) != adapter_digest(tensors)
