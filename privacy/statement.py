"""What a release claims about privacy, in data and in prose.

Built from verified receipts, never from figures that somebody typed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from privacy.canonical import canonical_json
from privacy.errors import ReleaseInvalid
from privacy.receipts import ADJACENCY, Receipt, Unit


@dataclass(frozen=True, kw_only=True)
class ReleaseStatement:
    """The public facts of the run behind a release.

    Attributes:
        run_id: the run.
        created: UTC time of publishing, RFC 3339.
        base_model: name of the base model, without any path.
        base_model_digest: its digest, 64 hexadecimal digits.
        rounds: rounds that the run took.
        clipping_norm: L2 bound of one unit's gradient.
        factors: which LoRA factors were trained, "B" or "AB".
        policy_digest, code_digest: of the hub.
        accountant: how epsilon was computed.
    """

    run_id: str
    created: str
    base_model: str
    base_model_digest: str
    rounds: int
    clipping_norm: float
    factors: str
    policy_digest: str
    code_digest: str
    accountant: str

    def to_json(self) -> dict[str, Any]:
        """All fields, by name."""
        return dict(vars(self))


@dataclass(frozen=True)
class DepartmentStatement:
    """A department's part of the guarantee.

    Attributes:
        block: the data block that it trained on.
        epsilon, delta: cost of all that was spent on that block up to this release.
        lifetime_epsilon: cost of all that it ever spent, over every block.
        rounds: how many rounds of this run it contributed to.
        key: its public key, ``ed25519:…``.
    """

    block: str
    epsilon: float
    lifetime_epsilon: float
    delta: float
    rounds: int
    key: str


@dataclass(frozen=True)
class PrivacyStatement:
    """The guarantee of a release.

    Attributes:
        unit: what one addition or removal adds or removes.
        departments: each department's part, by name.
        mechanisms: the distinct mechanisms that were used, each as its event's JSON without steps.
    """

    unit: Unit
    departments: dict[str, DepartmentStatement]
    mechanisms: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, receipts: Sequence[Receipt], keys: Mapping[str, str]) -> Self:
        """Derive the guarantee from receipts.

        Raises:
            ReleaseInvalid: no receipt at all, or receipts of different units, or of one department
                with several deltas or data blocks.
        """
        units = {receipt.unit for receipt in receipts}
        if len(units) != 1:
            raise ReleaseInvalid(
                f"a release has one unit of privacy, its receipts have {sorted(units) or 'none'}"
            )
        departments = {}
        for name in sorted({receipt.department for receipt in receipts}):
            own = [receipt for receipt in receipts if receipt.department == name]
            deltas = {receipt.delta for receipt in own}
            if len(deltas) != 1:
                raise ReleaseInvalid(f"department {name!r} states several deltas: {sorted(deltas)}")
            blocks = {receipt.block for receipt in own}
            if len(blocks) != 1:
                raise ReleaseInvalid(f"department {name!r} states several blocks: {sorted(blocks)}")
            departments[name] = DepartmentStatement(
                block=own[0].block,
                # Composed over all that was spent, so the largest is the one after the last round.
                epsilon=max(receipt.epsilon for receipt in own),
                lifetime_epsilon=max(receipt.lifetime_epsilon for receipt in own),
                delta=own[0].delta,
                rounds=len({receipt.round for receipt in own}),
                key=keys[name],
            )
        used = {canonical_json({**r.event.to_json(), "steps": 0}): r.event for r in receipts}
        mechanisms = tuple(
            {name: value for name, value in used[key].to_json().items() if name != "steps"}
            for key in sorted(used)
        )
        return cls(units.pop(), departments, mechanisms)

    @property
    def largest_epsilon(self) -> float:
        """The guarantee of a person whom one department knows."""
        return max(part.epsilon for part in self.departments.values())

    @property
    def sum_epsilon(self) -> float:
        """The guarantee of a person whom every department knows (basic composition)."""
        return sum(part.epsilon for part in self.departments.values())

    @property
    def largest_lifetime_epsilon(self) -> float:
        """The guarantee of a person whom one department knows, whatever the block of a record."""
        return max(part.lifetime_epsilon for part in self.departments.values())

    @property
    def sum_lifetime_epsilon(self) -> float:
        """The same for a person whom every department knows (basic composition)."""
        return sum(part.lifetime_epsilon for part in self.departments.values())

    def to_json(self) -> dict[str, Any]:
        """The guarantee with both readings of it, by name."""
        return {
            "unit": self.unit,
            "adjacency": ADJACENCY,
            "mechanism": "DP-SGD: Poisson sampling, per-unit clipping, Gaussian noise",
            "mechanisms": [dict(mechanism) for mechanism in self.mechanisms],
            "departments": {name: dict(vars(part)) for name, part in self.departments.items()},
            "largest_epsilon": self.largest_epsilon,
            "largest_delta": max(part.delta for part in self.departments.values()),
            "sum_epsilon": self.sum_epsilon,
            "largest_lifetime_epsilon": self.largest_lifetime_epsilon,
            "sum_lifetime_epsilon": self.sum_lifetime_epsilon,
            "sum_delta": sum(part.delta for part in self.departments.values()),
        }


def model_card(run: ReleaseStatement, privacy: PrivacyStatement, metrics: Mapping[str, Any]) -> str:
    """The release's README in Markdown, with the front matter that PEFT adapters carry."""
    rows = "\n".join(
        f"| {name} | {part.block} | {_upper(part.epsilon)} | {_upper(part.lifetime_epsilon)} "
        f"| {part.delta:g} | {part.rounds} |"
        for name, part in sorted(privacy.departments.items())
    )
    mechanisms = "; ".join(_mechanism(mechanism) for mechanism in privacy.mechanisms)
    trained = "B (A frozen)" if run.factors == "B" else "A and B"
    sum_delta = sum(part.delta for part in privacy.departments.values())
    return f"""---
base_model: {json.dumps(run.base_model, ensure_ascii=False)}
library_name: peft
tags:
  - lora
  - federated-learning
  - differential-privacy
---

# Adapter of run {run.run_id}

A LoRA adapter for {run.base_model}, trained by {len(privacy.departments)} departments in
{run.rounds} rounds. No record left its department; every update was noised on the department's
own node before it left.

## Privacy

- **Unit of privacy**: {privacy.unit}. **Adjacency**: add or remove one {privacy.unit}.
- **Mechanism**: DP-SGD with Poisson-sampled batches, per-unit clipping at {run.clipping_norm:g} and
  Gaussian noise ({mechanisms}).
- **Accountant**: {run.accountant}; composed over each department's
  history, not this run alone: *epsilon* over all that was spent on the data block that was trained
  on, *lifetime* over every block there ever was.

| department | block | epsilon | lifetime | delta | rounds in this run |
|---|---|---|---|---|---|
{rows}

- A {privacy.unit} known to **one** department: epsilon at most {_upper(privacy.largest_epsilon)};
  one that was in several data blocks, or was edited: at most {_upper(privacy.largest_lifetime_epsilon)}.
- A person with one {privacy.unit} in **every** department: epsilon at most {_upper(privacy.sum_epsilon)}
  (lifetime {_upper(privacy.sum_lifetime_epsilon)}), delta at most {sum_delta:g} (basic composition).

What this does not promise: a {privacy.unit} is what is protected, not everything that a person wrote;
redaction is a second layer and no part of these figures; whoever holds the base model's training data
holds what the base model may reveal.

## Evaluation

{_metrics(metrics)}

## Provenance

| | |
|---|---|
| base model digest | `{run.base_model_digest}` |
| trained factors | {trained} |
| policy digest | `{run.policy_digest}` |
| code digest | `{run.code_digest}` |
| created | {run.created} |

`receipts.jsonl` holds every department's signed receipts, `manifest.json` the digests of all files,
`manifest.sig` the signature. Check with `intramural release verify`.
"""


def _upper(epsilon: float) -> str:
    """Four decimals, rounded up: a bound must not be printed below itself."""
    printed = f"{epsilon:.4f}"
    return printed if float(printed) >= epsilon else f"{epsilon + 1e-4:.4f}"


def _mechanism(event: Mapping[str, Any]) -> str:
    named = {name: value for name, value in event.items() if name not in ("mechanism", "version")}
    parts = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in named.items())
    return f"{event['mechanism'].replace('_', ' ')}: {parts}"


def _metrics(metrics: Mapping[str, Any]) -> str:
    if not metrics:
        return "No metric was computed for this release."
    lines = ["On public data:", ""]
    for name, value in sorted(metrics.items()):
        if isinstance(value, Mapping):
            parts = ", ".join(f"{key} {_number(item)}" for key, item in sorted(value.items()))
            lines.append(f"- {name}: {parts}")
        else:
            lines.append(f"- {name}: {_number(value)}")
    return "\n".join(lines)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_number(item) for item in value) + "]"
    return str(value)
