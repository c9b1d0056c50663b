"""What a policy may say about combining updates, and what contradicts itself."""

import pytest

from policies.errors import PolicyError
from policies.load import parse_policy
from policies.model import Policy, TrainingPolicy, least_cohort


def policy(training: str, departments: int = 9) -> Policy:
    named = "\n".join(f"[departments.d{i}]" for i in range(departments))
    text = f'version = 1\norganisation = "E"\n{named}\n[training]\n{training}\n'
    return parse_policy(text.encode(), "toml")


def test_defaults_are_the_plain_mean() -> None:
    """A policy that says nothing averages, without a server optimiser and personal adapters."""
    training = policy("").training
    assert (training.aggregation, training.server_optimiser, training.personal) == (
        "mean",
        "none",
        False,
    )


@pytest.mark.parametrize(
    ("rule", "faulty", "least"),
    [
        ("mean", 4, 1),
        ("median", 0, 1),
        ("median", 1, 3),
        ("trimmed_mean", 2, 5),
        ("krum", 0, 3),
        ("krum", 1, 5),
        ("krum", 3, 9),
    ],
)
def test_cohort_must_bear_the_faulty_nodes(rule: str, faulty: int, least: int) -> None:
    """2 f + 1 for median and trimmed mean, 2 f + 3 for Krum; one node fewer is refused."""
    assert least_cohort(rule, faulty) == least  # type: ignore[arg-type]
    text = f'aggregation = "{rule}"\nfaulty_nodes = {faulty}\nminimum_nodes = '
    assert policy(f"{text}{least}").training.minimum_nodes == least
    if least > 1:
        with pytest.raises(PolicyError, match=rf"needs at least {least} contributions"):
            policy(f"{text}{least - 1}")


def test_server_rate_without_an_optimiser_is_refused() -> None:
    """A figure that nothing would use is a mistake, not a setting."""
    with pytest.raises(PolicyError, match=r"training\.server_learning_rate"):
        policy("server_learning_rate = 0.5")
    assert policy('server_learning_rate = 0.5\nserver_optimiser = "avgm"')


@pytest.mark.parametrize("field", ["maximum_update_norm", "server_learning_rate"])
def test_bounds_are_above_zero(field: str) -> None:
    """A norm or rate of zero would refuse or undo every update."""
    with pytest.raises(PolicyError, match=field):
        policy(f'server_optimiser = "adam"\n{field} = 0.0')


def test_personal_adapters_are_charged() -> None:
    """A round with them costs its mechanism twice."""
    assert TrainingPolicy().events_per_round == 1
    assert TrainingPolicy(personal=True).events_per_round == 2
