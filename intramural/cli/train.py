"""``intramural train``: runs of a deployed federation, planned, signed, watched, resumed."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from intramural.cli.deployed import HUB, HubOption, hub_home, private_files
from intramural.cli.options import JsonOption
from intramural.cli.output import facts, figure, note, print_json, print_table, say, table, upper
from intramural.cli.parser import CommandGroup

app = CommandGroup("Runs of a deployed federation: plan, start, watch, cancel, resume.")

_LOOK = 1.0

RunArgument = Annotated[
    str | None,
    typer.Argument(metavar="[RUN]", help="Id of the run, or how it begins; the latest if none."),
]
FileArgument = Annotated[
    Path, typer.Argument(metavar="RUN.toml", help="What the run is to be, within the policy.")
]


@app.callback()
def private(context: typer.Context) -> None:
    """Runs of a deployed federation: plan, start, watch, cancel, resume."""
    private_files(context)


@app.command("plan")
def plan(file: FileArgument, directory: HubOption = HUB, json_output: JsonOption = False) -> None:
    """Check a run file and tell what the run would cost each department. Charges nothing.

    What was spent is what the hub knows from receipts: a node's own ledger may hold more, and each
    node decides by its own policy, limits and ledger. Exits with 1 where too few departments could
    take part in the whole run.

    \b
    Example:
      intramural train plan run.toml
    """
    from intramural.deployment.training import plan_run

    planned = plan_run(hub_home(directory), file)
    if json_output:
        print_json(planned.to_json())
    else:
        run = planned.plan
        facts(
            [
                ("run", f"{run.rounds} rounds of {run.steps} steps"),
                ("base model", planned.base_model_name),
                (
                    "noise multiplier",
                    f"{run.noise_multiplier:g}, for epsilon {run.target_epsilon:g}",
                ),
                ("strategy", f"{run.aggregation}, server optimiser {run.server_optimiser}"),
                ("a round needs", f"{run.minimum_nodes} of {len(planned.costs)} departments"),
                ("a round waits", f"{planned.wish.round_seconds:g} s at most"),
                ("adjacency", f"add or remove one {run.unit}"),
                ("signed by", ", ".join(planned.accounts) or "nobody yet: there is no account"),
            ]
        )
        made = table("department", "this run", "spent", "after it", "budget", "delta", "can",
                     right=(1, 2, 3, 4, 5))  # fmt: skip
        for cost in planned.costs:
            can = "yes" if cost.enrolled and not cost.approval else "no"
            made.add_row(cost.name, upper(cost.run), upper(cost.spent), upper(cost.after),
                         f"{cost.budget:g}", f"{cost.delta:g}", can)  # fmt: skip
        print_table(made)
        say("Epsilon, rounded up; spent is what the hub's receipts state.")
        for cost in planned.costs:
            for needed in cost.approval:
                say(f"{cost.name}: {needed}")
    if not planned.can_start:
        note("error: the run cannot start: it needs an account and its minimum of departments")
        raise typer.Exit(1)


@app.command("start")
def start(
    file: FileArgument,
    account: Annotated[
        str | None,
        typer.Option(
            "--account",
            metavar="NAME|DIR",
            envvar="INTRAMURAL_ACCOUNT",
            show_envvar=True,
            help="Who signs: a name, or the folder with account.key and token.",
        ),
    ] = None,
    directory: HubOption = HUB,
    json_output: JsonOption = False,
) -> None:
    """Sign a run and hand it to the hub, which starts it and goes on with it until it is finished.

    The manifest says all that the run will be; its digest is the run's id. Nothing starts without a
    hub account.

    \b
    Example:
      intramural train start run.toml --account ada
    """
    from intramural.deployment.homes import is_running
    from intramural.deployment.training import start_run
    from intramural.quiet import quiet

    quiet()
    home = hub_home(directory)
    manifest = start_run(home, file, account)
    told = {
        "run_id": manifest.run_id,
        "account": manifest.account,
        "departments": list(manifest.departments),
        "rounds": manifest.terms.rounds,
        "valid_until": manifest.valid_until,
    }
    if json_output:
        print_json(told)
    else:
        shown = told | {"departments": ", ".join(manifest.departments)}
        facts([(name.replace("_", " "), value) for name, value in shown.items()])
    if not is_running(home.root):
        note("the hub is not running: the run begins once `intramural hub start` does")


@app.command("status")
def status(
    run: RunArgument = None, directory: HubOption = HUB, json_output: JsonOption = False
) -> None:
    """List the runs, or tell all about one: rounds, who took part, who did not and why.

    Reasons have codes: a node's own, or the hub's `offline`, `late`, `no_reply`, `node_error`,
    `rejected` and `not_enrolled`. Epsilon is what each department's last receipt states. Figures are
    those of the hub's public records, once the last round is complete.

    \b
    Example:
      intramural train status run-1f0c
    """
    from intramural.deployment.training import brief, status_of
    from server.runs import find_run, run_folders

    home = hub_home(directory)
    if run is None:
        runs = [brief(found) for found in run_folders(home.runs)]
        if json_output:
            print_json({"runs": runs})
        elif not runs:
            say("No run yet; start one with `intramural train start RUN.toml`.")
        else:
            made = table("run", "state", "rounds", "account", "created")
            for told in runs:
                done = f"{told.get('rounds_done', '?')}/{told.get('rounds', '?')}"
                made.add_row(told["run_id"], told["state"], done, told.get("account", "?"),
                             told.get("created", "?"))  # fmt: skip
            print_table(made)
        return
    told = status_of(home, find_run(home.runs, run))
    if json_output:
        print_json(told)
    else:
        _show(told)


@app.command("watch")
def watch(
    run: RunArgument = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="Give up after so long.")
    ] = None,
    directory: HubOption = HUB,
    json_output: JsonOption = False,
) -> None:
    """Follow a run until it is over. Exits with 0 once it is finished, else with 1.

    \b
    Example:
      intramural train watch
    """
    from intramural.deployment.training import status_of
    from server.runs import OVER, find_run

    home = hub_home(directory)
    found = find_run(home.runs, run)
    ends = None if timeout is None else time.monotonic() + timeout
    before: list[str] = []
    while True:
        told = status_of(home, found)
        lines = _lines(told)
        for line in lines:
            if line not in before:
                note(line)
        before += [line for line in lines if line not in before]
        over = told["state"] in OVER
        if over or (ends is not None and time.monotonic() >= ends):
            break
        time.sleep(_LOOK)
    if json_output:
        print_json(told)
    else:
        _show(told)
    if told["state"] != "finished":
        raise typer.Exit(1)


@app.command("cancel")
def cancel(
    run: RunArgument = None, directory: HubOption = HUB, json_output: JsonOption = False
) -> None:
    """Stop a run. What its rounds cost stays spent; `train resume` goes on with it.

    \b
    Example:
      intramural train cancel run-1f0c
    """
    from intramural.deployment.training import cancel_run
    from server.runs import find_run

    home = hub_home(directory)
    found = find_run(home.runs, run)
    state = cancel_run(home, found)
    if json_output:
        print_json({"run_id": found.run_id, "state": state, "wanted": "stop"})
    else:
        facts([("run", found.run_id), ("wanted", "stop"), ("state", state)])


@app.command("resume")
def resume(
    run: RunArgument = None, directory: HubOption = HUB, json_output: JsonOption = False
) -> None:
    """Let a run that was cancelled or has failed go on after its last completed round.

    Interrupted runs are resumed by the hub itself. A round that is asked again gets each node's
    stored bytes, or is paid for again.

    \b
    Example:
      intramural train resume run-1f0c
    """
    from intramural.deployment.training import resume_run
    from server.runs import find_run

    home = hub_home(directory)
    found = find_run(home.runs, run)
    resume_run(home, found)
    if json_output:
        print_json({"run_id": found.run_id, "state": "waiting", "wanted": "run"})
    else:
        facts([("run", found.run_id), ("state", "waiting")])


def _lines(told: dict[str, Any]) -> list[str]:
    """What has happened in a run so far, one thing a line."""
    total, lines = told["rounds"], []
    for item in told["per_round"]:
        lines.append(
            f"round {item['round']} of {total}: {', '.join(item['contributed'])} contributed"
        )
        lines += [_decline(item["round"], declined) for declined in item["declined"]]
    lines += [
        f"interrupted at {item['at']}, before round {item['round']} was complete: {item['reason']}"
        for item in told["interruptions"]
    ]
    now = told["round_under_way"]
    if now is not None:
        lines.append(
            f"round {now['round']} of {total}: asked {', '.join(now['asked']) or 'nobody'}"
        )
        lines += [f"round {now['round']}: {name} has answered" for name in now["contributed"]]
        lines += [_decline(now["round"], declined) for declined in now["declined"]]
    reason = f": {told['reason']}" if told["reason"] else ""
    lines.append(f"{told['run_id']} is {told['state']}{reason}")
    return lines


def _decline(number: int, declined: dict[str, Any]) -> str:
    return f"round {number}: {declined['department']}: {declined['code']}: {declined['reason']}"


def _show(told: dict[str, Any]) -> None:
    rows: list[tuple[str, object]] = [
        ("run", told["run_id"]),
        ("state", told["state"]),
        ("signed by", told["account"]),
        ("rounds", f"{told['rounds_done']} of {told['rounds']}"),
        ("a round needs", f"{told['minimum_nodes']} of {len(told['departments'])} departments"),
        ("release", told["release"] or "none yet"),
    ]
    if told["reason"]:
        rows.insert(2, ("because", told["reason"]))
    rows += [(name, figure(value)) for name, value in sorted((told["metrics"] or {}).items())]
    facts(rows)
    made = table("department", "rounds", "epsilon", "lifetime", "delta", right=(1, 2, 3, 4))
    for part in told["departments"]:
        made.add_row(part["name"], str(part["rounds_contributed"]), upper(part["epsilon"]),
                     upper(part["lifetime_epsilon"]), f"{part['delta']:g}")  # fmt: skip
    print_table(made)
    for line in _lines(told)[:-1]:
        say(line)
