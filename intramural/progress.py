"""Shows a run as it goes: bars on a terminal, plain lines in a log. Writes to stderr only."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed
from rich.table import Table

from client.errors import list_faults
from intramural.simulation import DepartmentData, Display
from server.events import Event, NodeDeclined, NodeReplied, RoundFinished, RoundStarted, RunBegan
from server.rounds import RunPlan


class RunProgress:
    """``with RunProgress(console) as progress: simulate(options, progress.display)``."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            Elapsed(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._round = 0
        self._data: list[DepartmentData] = []
        self.display = Display(
            stage=self.say,
            scrubbing=self._scrubbing,
            scrubbed=self._scrubbed,
            planned=self._planned,
            training=self._training,
            event=self._event,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def say(self, line: str) -> None:
        """One line about what happens now."""
        self.console.print(f"· {line}", markup=False, highlight=False)

    def _bar(self, name: str, done: int, total: int) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total)
        self._bars.update(self._tasks[name], completed=done, total=total)
        if done >= total:
            self._bars.remove_task(self._tasks.pop(name))

    def _scrubbing(self, department: str, done: int, total: int) -> None:
        self._bar(f"{department}: scrubbing", done, total)
        if done >= total and not self.console.is_terminal:
            self.say(f"{department}: {total} records scrubbed")

    def _scrubbed(self, data: DepartmentData) -> None:
        self._data.append(data)
        for line in list_faults(data.faults):
            self.say(f"skipped {line}")
        if data.left_out:
            parts = ", ".join(f"{count} by {name}" for name, count in data.left_out.items())
            self.say(f"{data.department}: rows left out: {parts}")

    def _planned(self, plan: RunPlan) -> None:
        self.console.print(findings_table(self._data))
        self.say(
            f"plan: {plan.rounds} rounds of {plan.steps} steps, sampling rate "
            f"{plan.sampling_rate:g}, noise multiplier {plan.noise_multiplier:.3f}, clipping norm "
            f"{plan.clipping_norm:g}: at most epsilon {plan.target_epsilon:g} for the whole run"
        )

    def _training(self, department: str, step: int, steps: int) -> None:
        self._bar(f"round {self._round}  {department}", step, steps)

    def _event(self, event: Event) -> None:
        match event:
            case RunBegan(run_id=run_id, round=done, rounds=rounds):
                again = f", going on after round {done}" if 0 < done < rounds else ""
                self.say(f"run {run_id}: {rounds} rounds{again}")
            case RoundStarted(round=number, rounds=rounds, departments=departments):
                self._round = number
                self.say(f"round {number}/{rounds}: asking {', '.join(departments)}")
            case NodeReplied(department=department, epsilon=epsilon):
                self.say(f"round {self._round}: {department} contributed, epsilon {epsilon:.3f}")
            case NodeDeclined(department=department, code=code, reason=reason):
                self.say(f"round {self._round}: {department} is not part of it ({code}): {reason}")
            case RoundFinished(round=number, contributed=contributed):
                self.say(f"round {number}: averaged {len(contributed)} contributions")


def findings_table(data: list[DepartmentData]) -> Table:
    """What each department found in its records, by type."""
    table = Table(title="Personal data replaced, by type (known to the department alone)")
    table.add_column("entity")
    for part in data:
        table.add_column(part.department, justify="right")
    entities = sorted({entity for part in data for entity in part.findings})
    for entity in entities:
        table.add_row(entity, *(_count(part.findings, entity) for part in data))
    table.add_section()
    table.add_row("records", *(str(part.records) for part in data))
    return table


def _count(findings: Mapping[str, int], entity: str) -> str:
    return str(findings[entity]) if entity in findings else "-"
