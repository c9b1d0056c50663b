"""What makes a contribution unacceptable."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from federation_kit import first_adapter, make_policy, request_for

from privacy.dp.adapter import AdapterConfig
from privacy.dp.events import PoissonGaussian
from privacy.exchange import RoundReply, adapter_digest
from privacy.receipts import Receipt
from privacy.signing import SigningKey
from server.aggregation.checks import apply_update, check_norm, trained_shapes, verify_reply
from server.errors import UpdateRejected

POLICY = make_policy()
KEY = SigningKey.generate()
CONFIG = AdapterConfig(2, 16, ("q_proj",), None, "B")


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


@pytest.mark.parametrize(
    ("changes", "maximum", "bound"),
    [
        ({}, None, 2 * 0.1 * 2 * 16**0.5),
        ({"learning_rate": 0.01}, None, 2 * 0.01 * 2 * 16**0.5),
        ({}, 3.0, 3.0),
        ({"optimiser": "sgd"}, 3.0, 3.0),
    ],
)
def test_update_beyond_its_norm_is_rejected(changes, maximum: float | None, bound: float) -> None:
    """Just within the bound an update counts, just beyond it its department is named."""
    request = request_for(POLICY, **changes)
    values = sum(int(np.prod(shape)) for shape in SHAPES.values())
    assert values == 16
    start = {name: tensor + 1 for name, tensor in ADAPTER.items()}

    def moved(norm: float) -> dict[str, np.ndarray]:
        return {name: start[name] + np.float32(norm / values**0.5) for name in SHAPES}

    check_norm("hr", moved(bound * 0.999), start, request=request, maximum_norm=maximum)
    with pytest.raises(UpdateRejected, match=r"department 'hr' .* norm=.* is beyond"):
        check_norm("hr", moved(bound * 1.001), start, request=request, maximum_norm=maximum)


def test_sgd_has_a_norm_bound_only_where_the_policy_states_one() -> None:
    """Steps of SGD reach as far as the noise carries them, so nothing is derived for them."""
    request = request_for(POLICY, optimiser="sgd")
    far = {name: np.full(shape, 1e6, np.float32) for name, shape in SHAPES.items()}
    check_norm("hr", far, ADAPTER, request=request, maximum_norm=None)


@pytest.mark.parametrize("steps", [1, 3, 200])
def test_no_gradients_take_adam_beyond_the_derived_bound(steps: int) -> None:
    """The worst that gradients can do to Adam, growing as its moments forget, stays within it."""
    parameter = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([parameter], lr=0.1, betas=(0.9, 0.98))
    for step in range(steps):
        # Cauchy-Schwarz is tight where the gradients grow by b2 / b1 from step to step.
        parameter.grad = torch.full_like(parameter, (0.98 / 0.9) ** step)
        optimiser.step()
    reached = abs(parameter.item())
    assert 0.09 * steps < reached < 2 * 0.1 * steps
