"""What an agent checks about a round's tensors, and whether training read any unit."""

from collections.abc import Iterator, Mapping, Sequence
from typing import overload

import numpy as np

from privacy.dp.adapter_config import AdapterConfig
from privacy.dp.encode import Unit
from privacy.dp.errors import TrainingFailed
from privacy.errors import ExchangeInvalid
from privacy.exchange import Array, check_tensors


class WatchedUnits(Sequence[Unit]):
    """Units that remember whether anything of them was ever read, their number included.

    While ``read`` is False, nothing that was computed can depend on the units.
    """

    def __init__(self, units: Sequence[Unit]) -> None:
        self._units = units
        self.read = False

    @overload
    def __getitem__(self, index: int) -> Unit: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Unit]: ...
    def __getitem__(self, index: int | slice) -> Unit | Sequence[Unit]:
        self.read = True
        return self._units[index]

    def __len__(self) -> int:
        self.read = True
        return len(self._units)

    def __iter__(self) -> Iterator[Unit]:
        self.read = True
        return iter(self._units)


def mismatch(adapter: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """In which tensor an adapter is not of these shapes, in words, or None."""
    for name in sorted(shapes.keys() ^ adapter.keys()):
        state = "missing" if name in shapes else "unknown"
        return f"the adapter's tensor {name!r} is {state}"
    for name, shape in shapes.items():
        if adapter[name].shape != shape:
            return f"the adapter's tensor {name!r} has shape {adapter[name].shape}, not {shape}"
    return None


def check_update(
    adapter: Mapping[str, Array], update: Mapping[str, Array], config: AdapterConfig
) -> None:
    """Every trained tensor, and only those, came back finite and moved.

    A tensor that did not move was not trained at all (Opacus issue 820), although its noise was
    paid for.

    Raises:
        TrainingFailed: otherwise.
    """
    trained = {name for name in adapter if config.is_trained(name)}
    if update.keys() != trained:
        raise TrainingFailed(f"training returned other tensors: {sorted(update.keys() ^ trained)}")
    try:
        check_tensors(update)
    except ExchangeInvalid as error:
        raise TrainingFailed(str(error)) from None
    for name, tensor in update.items():
        if tensor.shape != adapter[name].shape:
            raise TrainingFailed(f"{name} came back with shape {tensor.shape}")
        if np.array_equal(tensor, adapter[name]):
            raise TrainingFailed(f"{name} did not move")
