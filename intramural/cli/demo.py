"""``intramural demo``: the main job once through, with invented people."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from intramural.cli.options import DEFAULT_WORKSPACE, JsonOption
from intramural.cli.output import console, note, print_json, print_table, say, table, upper
from intramural.cli.simulate import show_evaluation

if TYPE_CHECKING:
    from intramural.demo.run import DemoResult


def demo(
    workdir: Annotated[
        Path, typer.Option("--workdir", metavar="DIR", help="Folder of the demonstration.")
    ] = DEFAULT_WORKSPACE,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=100, help="Rounds of the federation.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", metavar="PATH", exists=True, file_okay=False, help="Another base model."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer records and rounds: minutes less, learns less.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show the whole path: department files, scrubbing, private training, release, service.

    Three departments of an invented company have several hundred records each, full of personal
    data of people who do not exist. Their records are scrubbed, a language model learns from all
    of them under a privacy budget, the result is signed and served, and a prompt with personal
    data goes through the service, seen from both sides.

    An interrupted demonstration goes on where it stopped; a finished one starts afresh. The folder
    is a workspace: every other command works on it.

    \b
    Example:
      intramural demo --quick
      intramural budget show --workspace intramural-demo
    """
    from intramural.quiet import quiet

    note("· loading the libraries")
    quiet()
    from intramural.demo.run import DemoOptions, run_demo
    from intramural.progress import RunProgress

    with RunProgress(console(stderr=True)) as progress:
        result = run_demo(DemoOptions(workdir, rounds, model, quick), progress.display)
    if json:
        print_json(result.to_json())
    else:
        _show(result)
    if not result.audit.ok:
        raise typer.Exit(1)


def _show(result: "DemoResult") -> None:
    run, views = result.simulation, result.redaction
    root = run.workspace.root
    say("")
    say("What the application sent, what the model saw, and what came back:")
    chat = table("", "text")
    chat.add_row("sent", views.sent)
    chat.add_row("seen by the model", views.seen_by_model)
    chat.add_row("returned", views.returned)
    print_table(chat)
    show_evaluation(run)
    budgets = table("department", "epsilon spent", "of budget", "delta", right=(1, 2, 3))
    for part in run.departments:
        budgets.add_row(part.name, upper(part.epsilon), f"{part.budget:g}", f"{part.delta:g}")
    print_table(budgets)
    say("Go on:")
    say(f"  intramural keys create --principal me --role app --workspace {root}")
    say(f"  intramural serve --workspace {root}      then http://127.0.0.1:8080/docs")
    say(f"  intramural release show --workspace {root}")
    say(f"  intramural audit show --workspace {root}")
    say("")
    for line in _summary(result):
        say(line)


def _summary(result: "DemoResult") -> list[str]:
    """The last lines: release, epsilon per department, metric, audit."""
    from intramural.demo.run import metric

    run, figure = result.simulation, metric(result.simulation)
    spent = ", ".join(f"{d.name} {upper(d.epsilon)} of {d.budget:g}" for d in run.departments)
    after = "[{:.3f}, {:.3f}]".format(*figure["after_interval"])
    state = "verified" if result.audit.ok else f"NOT VERIFIED: {'; '.join(result.audit.faults)}"
    return [
        f"release  {run.release.id}  in {run.release.path}",
        f"epsilon  {spent}  (delta {run.departments[0].delta:g}, unit: one record, add or remove)",
        f"metric   {figure['name']}: {figure['before']:.3f} before, {figure['after']:.3f} after {after}",
        f"audit    {result.audit.entries} entries, {state}",
    ]
