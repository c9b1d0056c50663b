"""What every benchmark here needs: machine facts, memory, paired ratios, fits and tables.

Knows nothing of models or of privacy.
"""

import ctypes
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

MIB = 2**20


@dataclass(frozen=True)
class Machine:
    """Facts without which a time means nothing."""

    cpu: str
    cores: int
    accelerator: str | None
    python: str
    torch: str
    threads: int

    def __str__(self) -> str:
        return (
            f"{self.cpu}, {self.cores} cores, accelerator {self.accelerator or 'none'}; "
            f"Python {self.python}, torch {self.torch}, {self.threads} thread(s)"
        )


def machine(threads: int) -> Machine:
    """The machine that this process runs on."""
    import torch  # here, so that benchmarks without tensors do not pay for it

    return Machine(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        accelerator=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        python=platform.python_version(),
        torch=torch.__version__,
        threads=threads,
    )


def _cpu_model() -> str:
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def give_back_memory() -> None:
    """Return to the system what the C library's allocator keeps of freed memory."""
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


class PeakMemory:
    """Highest memory of this process since :meth:`start`, above what it held then, in bytes.

    Device memory where there is a CUDA device, else resident memory (Linux only). The kernel's
    high-water mark is reset first: what loading needed for a moment (a float32 copy of a bfloat16
    model, say) is not what a step needs.
    """

    def __init__(self) -> None:
        import torch

        self._cuda = torch.cuda if torch.cuda.is_available() else None
        self._base = 0

    def start(self) -> None:
        """Give freed memory back to the system, then mark the present level."""
        if self._cuda is not None:
            self._cuda.reset_peak_memory_stats()
            self._base = self._cuda.memory_allocated()
            return
        give_back_memory()
        Path("/proc/self/clear_refs").write_text("5")
        self._base = _status_bytes("VmRSS")

    def above_start(self) -> int:
        """Bytes by which the highest level since :meth:`start` exceeds the level then."""
        if self._cuda is not None:
            return self._cuda.max_memory_allocated() - self._base
        return _status_bytes("VmHWM") - self._base


def resident_bytes() -> int:
    """What this process has in memory now (Linux only)."""
    return _status_bytes("VmRSS")


def _status_bytes(field: str) -> int:
    for line in _lines("/proc/self/status"):
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}; peak memory is measured on Linux only")


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []


@dataclass
class Timings:
    """Wall and process CPU time of each counted step in seconds, in the order of the rounds.

    ``peak``: bytes above the loaded model. ``missing``: why the variant could not be had; nothing
    else is set then. ``note``: what of its set-up a reader must know.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak: int = 0
    note: str = ""
    missing: str = ""


@dataclass(frozen=True)
class Spread:
    """Median of some figures with their least and greatest."""

    median: float
    least: float
    greatest: float

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.least:.2f}, {self.greatest:.2f}]"

    def as_json(self) -> dict[str, float]:
        """The fields by name."""
        return asdict(self)


def spread(values: Sequence[float]) -> Spread:
    """The spread of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def paired_ratio(values: Sequence[float], reference: Sequence[float]) -> Spread:
    """Spread of ``values[i] / reference[i]``: both were taken in round i, moments apart.

    Load that lasts longer than a round falls on both and cancels, which a ratio of two medians
    would not guarantee.
    """
    return spread([v / r for v, r in zip(values, reference, strict=True)])


@dataclass(frozen=True)
class Line:
    """Least-squares line through points, and the share of variance that it explains."""

    intercept: float
    slope: float
    r_squared: float


def fit_line(x: Sequence[float], y: Sequence[float]) -> Line:
    """Ordinary least squares through at least two points with different ``x``."""
    slope, intercept = statistics.linear_regression(x, y)
    return Line(intercept, slope, statistics.correlation(x, y) ** 2)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned to their widest cell, the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = []
    for row in [header, ["-" * w for w in widths], *rows]:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
