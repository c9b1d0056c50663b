"""The demo's policy: three departments with a budget each, and the public shape of the run."""

from dataclasses import dataclass

TEMPLATE = """\
# The policy of the demonstration. Everything that is allowed stands here; `intramural policy show`
# explains it with its defaults, docs/policy-reference.md names every key.
version = 1
organisation = "Intramural demonstration"

[privacy]
unit = "record"      # what one addition or removal adds or removes
epsilon = 10.0       # lifetime budget of each department
delta = 1e-5

# declared_units is a public, rounded figure, never an exact count.
[departments.finance]
title = "Finance"
declared_units = {units}

[departments.hr]
title = "Human resources"
declared_units = {units}

[departments.it_support]
title = "IT support"
declared_units = {units}

[training]
rounds = {rounds}
local_steps = {local_steps}
sampling_rate = {sampling_rate}
target_epsilon = 8.0  # what this whole run may cost each department
clipping_norm = {clipping_norm}
learning_rate = {learning_rate}
rank = {rank}
alpha = {alpha}
last_layers = {last_layers}
max_tokens = 128
minimum_nodes = 2

[pii]
languages = ["en", "zh"]

[roles.app]
operations = ["chat", "completions", "models", "redact"]
"""


@dataclass(frozen=True)
class Scale:
    """How much the demonstration does."""

    records: int
    held_out: int
    rounds: int
    local_steps: int
    sampling_rate: float
    clipping_norm: float = 0.5
    learning_rate: float = 0.1
    rank: int = 4
    alpha: int = 8
    last_layers: int = 4


FULL = Scale(records=400, held_out=72, rounds=4, local_steps=6, sampling_rate=0.25)
QUICK = Scale(records=200, held_out=72, rounds=3, local_steps=3, sampling_rate=0.25)


def policy_text(scale: Scale, rounds: int | None = None) -> str:
    """The policy as TOML; ``rounds`` overrides the scale's."""
    return TEMPLATE.format(
        units=scale.records,
        rounds=rounds if rounds is not None else scale.rounds,
        local_steps=scale.local_steps,
        sampling_rate=scale.sampling_rate,
        clipping_norm=scale.clipping_norm,
        learning_rate=scale.learning_rate,
        rank=scale.rank,
        alpha=scale.alpha,
        last_layers=scale.last_layers,
    )
