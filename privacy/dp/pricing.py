"""The noise of a run: what a policy's training section asks of each department, and what it costs.

Hub and planner calibrate by the same function, so that a plan is what the hub will do. Charges
nothing, and sees public figures only.
"""

from policies.model import Policy, TrainingPolicy
from privacy.dp.accounting import calibrate_noise
from privacy.dp.events import MechanismEvent
from privacy.dp.plan import mechanism_event


def round_event(
    training: TrainingPolicy, declared_units: int, noise_multiplier: float
) -> MechanismEvent:
    """What one round of ``training`` costs a department of that public size.

    Raises:
        EventInvalid: clipping, bands and sampling rate that no mechanism combines.
    """
    return mechanism_event(
        sampling_rate=training.sampling_rate,
        steps=training.local_steps,
        noise_multiplier=noise_multiplier,
        expected_batch_size=training.sampling_rate * declared_units,
        clipping=training.clipping,
        bands=training.noise_bands,
    )


def run_noise(policy: Policy, training: TrainingPolicy, epsilon: float) -> float:
    """The one noise multiplier at which the whole run costs no department more than ``epsilon``.

    Calibrated for the worst department that there could be: the smallest delta of all, and the
    smallest declared size, which under adaptive clipping gives the least noise on the count. Each
    round is an event of its own, or two with a personal adapter, since correlated noise does not
    reach into the next.

    Raises:
        EventInvalid: no noise within reach gives this epsilon.
    """
    delta = min(policy.budget_of(name).accountant_delta for name in policy.departments)
    smallest = min(department.declared_units for department in policy.departments.values())

    def run(noise_multiplier: float) -> list[MechanismEvent]:
        count = training.rounds * training.events_per_round
        return [round_event(training, smallest, noise_multiplier)] * count

    return calibrate_noise(run, epsilon, delta)
