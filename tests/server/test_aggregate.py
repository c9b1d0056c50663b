"""Averaging against an exact oracle, and what makes a contribution unacceptable."""

from dataclasses import replace
from fractions import Fraction

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from federation_kit import first_adapter, make_policy, request_for
from hypothesis import given
from hypothesis import strategies as st

from privacy.dp.adapter import AdapterConfig
from privacy.dp.events import PoissonGaussian
from privacy.exchange import RoundReply, adapter_digest
from privacy.receipts import Receipt
from privacy.signing import SigningKey
from server.aggregate import apply_update, mean_update, trained_shapes, verify_reply
from server.errors import UpdateRejected

POLICY = make_policy()
KEY = SigningKey.generate()
CONFIG = AdapterConfig(2, 16, ("q_proj",), None, "B")
finite = st.floats(-1e6, 1e6, width=32)


@given(
    st.lists(npst.arrays(np.float32, (3, 2), elements=finite), min_size=1, max_size=5),
    st.lists(st.integers(1, 1000), min_size=5, max_size=5),
)
def test_mean_is_the_exact_mean_rounded_to_float32(
    updates: list[np.ndarray], weights: list[int]
) -> None:
    """Each entry is the weighted mean in rational arithmetic, to float64 accuracy, then rounded."""
    pairs = [({"t": u}, float(w)) for u, w in zip(updates, weights, strict=False)]
    result = mean_update(pairs)["t"]
    assert result.dtype == np.float32
    total = sum(weights[: len(updates)])
    for place in np.ndindex(3, 2):
        exact = (
            sum(Fraction(float(u[place])) * w for u, w in zip(updates, weights, strict=False))
            / total
        )
        largest = max(abs(float(u[place])) for u in updates)
        assert abs(float(result[place]) - float(exact)) <= 2**-23 * max(largest, 1e-30)


def test_with_a_frozen_the_mean_of_b_is_the_mean_of_the_products() -> None:
    """Averaging B averages the adapter itself, which averaging A and B does not."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((2, 6)).astype(np.float32)
    bs = [rng.standard_normal((4, 2)).astype(np.float32) for _ in range(3)]
    mean = mean_update([({"b": b}, 1.0) for b in bs])["b"]
    products = np.mean([b.astype(np.float64) @ a for b in bs], axis=0)
    np.testing.assert_allclose(mean.astype(np.float64) @ a, products, atol=1e-6)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_weight_that_is_no_weight_is_refused(weight: float) -> None:
    """A weight is finite and positive."""
    with pytest.raises(ValueError, match="weight"):
        mean_update([({"t": np.zeros(1, np.float32)}, weight)])


def test_mean_of_nothing_is_refused() -> None:
    """No update has no mean."""
    with pytest.raises(ValueError, match="no update"):
        mean_update([])


def test_applying_keeps_the_frozen_tensors() -> None:
    """Only what was trained is replaced."""
    adapter = {"a": np.zeros(2, np.float32), "b": np.zeros(2, np.float32)}
    after = apply_update(adapter, {"b": np.ones(2, np.float32)})
    assert after["a"] is adapter["a"]
    assert after["b"].tolist() == [1, 1]
    with pytest.raises(ValueError, match="no tensor"):
        apply_update(adapter, {"c": np.ones(2, np.float32)})


REQUEST = request_for(POLICY)
ADAPTER = first_adapter(POLICY)
SHAPES = trained_shapes(ADAPTER, CONFIG)


def good_update() -> dict[str, np.ndarray]:
    return {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}


def receipt_for(update: dict[str, np.ndarray], **changes: object) -> Receipt:
    receipt = Receipt(
        run_id=REQUEST.run_id,
        round=REQUEST.round,
        department="hr",
        block="1",
        event=REQUEST.event(),
        epsilon=4.0,
        lifetime_epsilon=4.0,
        delta=REQUEST.expected_delta,
        unit="record",
        policy_digest=POLICY.digest,
        code_digest="c" * 64,
        adapter_before=adapter_digest(ADAPTER),
        adapter_after=adapter_digest(update),
        key_id=KEY.key_id,
    )
    return replace(receipt, **changes)


def verify(reply: RoundReply) -> Receipt:
    return verify_reply(
        "hr",
        reply,
        request=REQUEST,
        sent_digest=adapter_digest(ADAPTER),
        shapes=SHAPES,
        key=KEY.verify_key,
    )


def test_sound_contribution_is_accepted() -> None:
    """The receipt of an accepted contribution is the one that was signed."""
    update = good_update()
    assert verify(RoundReply(update, receipt_for(update).sign(KEY))).department == "hr"


@pytest.mark.parametrize(
    "changes",
    [
        {"department": "finance"},
        {"run_id": "another-run"},
        {"round": 2},
        {"event": PoissonGaussian(0.25, 0.1, 2)},
        {"delta": 1e-3},
        {"unit": "subject"},
        {"policy_digest": "0" * 64},
        {"adapter_before": "0" * 64},
        {"adapter_after": "0" * 64},
    ],
)
def test_receipt_about_something_else_is_rejected(changes: dict[str, object]) -> None:
    """A validly signed receipt is worth nothing for another request, round, mechanism or update."""
    update = good_update()
    reply = RoundReply(update, receipt_for(update, **changes).sign(KEY))
    (field,) = changes
    with pytest.raises(UpdateRejected, match=rf"department 'hr' .* states {field}="):
        verify(reply)


def test_receipt_of_another_key_is_rejected() -> None:
    """Only the enrolled key speaks for a department."""
    update, other = good_update(), SigningKey.generate()
    reply = RoundReply(update, receipt_for(update, key_id=other.key_id).sign(other))
    with pytest.raises(UpdateRejected, match="names key"):
        verify(reply)


def test_receipt_changed_after_signing_is_rejected() -> None:
    """A lower epsilon written into a signed receipt is found."""
    update = good_update()
    signed = receipt_for(update).sign(KEY)
    forged = replace(signed, receipt=replace(signed.receipt, epsilon=0.1))
    with pytest.raises(UpdateRejected, match="signature"):
        verify(RoundReply(update, forged))


def test_update_changed_after_signing_is_rejected() -> None:
    """One changed value of the update is found by its digest."""
    update = good_update()
    signed = receipt_for(update).sign(KEY)
    name = next(iter(update))
    update[name][0, 0] += 1
    with pytest.raises(UpdateRejected, match="adapter_after"):
        verify(RoundReply(update, signed))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda u: u.popitem(), "is missing"),
        (lambda u: u.update(extra=np.ones(1, np.float32)), "'extra' was not asked for"),
        (lambda u: u.update({n: a.T.copy() for n, a in u.items()}), "has shape"),
        (lambda u: u.update({n: np.full_like(a, np.nan) for n, a in u.items()}), "not finite"),
        (lambda u: u.update({n: np.full_like(a, np.inf) for n, a in u.items()}), "not finite"),
        (lambda u: u.update({n: a.astype(np.float64) for n, a in u.items()}), "not float32"),
    ],
)
def test_update_of_another_form_is_rejected(spoil, message: str) -> None:
    """Tensors that are missing, extra, misshapen or not finite never reach the average."""
    update = good_update()
    reply = RoundReply(update, receipt_for(update).sign(KEY))
    spoil(reply.update)
    with pytest.raises(UpdateRejected, match=message):
        verify(reply)


def test_trained_shapes_follow_the_factors() -> None:
    """With factors B a node sends B alone, with AB both."""
    assert all("lora_B" in name for name in SHAPES)
    assert trained_shapes(ADAPTER, replace(CONFIG, factors="AB")).keys() == ADAPTER.keys()
