"""The audit of a run as a picture: how the canaries scored, and what that proves of the claim.

The only module that knows matplotlib. It shows scores by coin, so the picture is as private as the
coins are.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from intramural.auditing import DepartmentAudit
from privacy.files import write_atomic

BINS = 30
IN, OUT = "tab:orange", "tab:blue"


def plot_audit(
    audits: Sequence[tuple[DepartmentAudit, Sequence[float], Sequence[bool]]], path: Path
) -> None:
    """Write a PNG, for its owner's eyes alone: one row for each department.

    ``audits``: a department's figures with the score and the coin of each canary.
    """
    figure = Figure(figsize=(9, 3 * len(audits)), layout="constrained")
    axes = figure.subplots(len(audits), 2, squeeze=False, width_ratios=(2, 1))
    for (audit, scores, included), (left, right) in zip(audits, axes, strict=True):
        values, coins = np.asarray(scores), np.asarray(included, dtype=bool)
        edges = np.histogram_bin_edges(values, BINS)
        left.hist(values[coins], edges, color=IN, alpha=0.6, label="trained on")
        left.hist(values[~coins], edges, color=OUT, alpha=0.6, label="left out")
        left.set_title(f"{audit.name}: {audit.bound.canaries} canaries", loc="left")
        left.set_xlabel("loss before less loss after (nats per token)")
        left.set_ylabel("canaries")
        left.legend()
        bars = {
            "claimed": audit.epsilon_run,
            "largest provable": audit.bound.ceiling,
            "proved": audit.bound.epsilon,
        }
        drawn = right.barh(list(bars), list(bars.values()), color=["0.4", "0.8", IN])
        right.bar_label(drawn, fmt="%.2f", padding=3)
        right.set_xlim(right=1.2 * max(bars.values()) or 1.0)
        right.set_xlabel(f"epsilon of this run, delta {audit.delta:g}")
        right.set_title("REFUTED" if audit.refuted else "not refuted", loc="left")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_atomic(path, picture.getvalue(), mode=0o600)
