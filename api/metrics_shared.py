"""Figures of all workers in every scrape, whichever worker answers it.

Each worker writes its figures to a file of its own once a second. The one that is asked gives its own
as they are now and the others' from their files. Every series carries the label ``worker``: figures
add up by ``sum without (worker)``, and a restarted worker begins its counters anew.
"""

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client import Metric

Collect = Callable[[], Iterable[Metric]]
_SECONDS = 1.0


class SharedFigures:
    """Args:
    folder: of this service's workers alone; they must not outlive each other's files.
    worker: the number of this one.
    """

    def __init__(self, folder: Path, worker: int) -> None:
        self._folder = folder
        self._worker = worker
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, collect: Collect) -> None:
        """Write what ``collect`` gives, now and every second, until :meth:`close`."""
        self._write(collect())

        def keep() -> None:
            while not self._stop.wait(_SECONDS):
                with suppress(OSError):  # a full disk: the others see old figures until it is not
                    self._write(collect())

        self._thread = threading.Thread(target=keep, name="figures", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def merged(self, own: Iterable[Metric]) -> Iterator[Metric]:
        """The figures of all workers, this one's as they are given."""
        families: dict[str, Metric] = {}
        for number in sorted({self._worker, *(int(f.stem) for f in self._folder.glob("*.json"))}):
            file = self._folder / f"{number}.json"
            plain = _plain(own) if number == self._worker else json.loads(file.read_bytes())
            for name, text, kind, samples in plain:
                family = families.setdefault(name, Metric(name, text, kind))
                for sample, labels, value in samples:
                    family.add_sample(sample, {**labels, "worker": str(number)}, value)
        yield from families.values()

    def _write(self, own: Iterable[Metric]) -> None:
        written = self._folder / f".{self._worker}"
        written.write_text(json.dumps(_plain(own)))
        written.replace(self._folder / f"{self._worker}.json")  # nobody reads a half


def _plain(families: Iterable[Metric]) -> list[Any]:
    return [
        [
            family.name,
            family.documentation,
            family.type,
            [[sample.name, sample.labels, sample.value] for sample in family.samples],
        ]
        for family in families
    ]
