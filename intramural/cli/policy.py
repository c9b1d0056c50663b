"""``intramural policy``: check a policy file, and show what it means."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from intramural.cli.options import DepartmentOption, JsonOption, WorkspaceOption, find_workspace
from intramural.cli.output import facts, note, print_json, print_table, say, table
from intramural.cli.parser import CommandGroup

if TYPE_CHECKING:
    from policies.errors import Fault
    from policies.model import Policy

app = CommandGroup("Check a policy file, and show what it means.")


@app.command("check")
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Policy file, TOML or YAML.")],
    json_output: JsonOption = False,
) -> None:
    """Check a policy file.

    Names every fault at once, each by its key, with the value and the bound, and warns of what is
    allowed but probably not meant. The digest is the SHA-256 of the file, as it will stand in
    receipts, releases and audit entries. Exits with 1 where the policy cannot be used.

    \b
    Example:
      intramural policy check policy.toml
    """
    from intramural.parts import read_policy
    from policies.errors import PolicyError
    from policies.load import policy_warnings

    try:
        policy = read_policy(file)
    except PolicyError as error:
        if not json_output:
            raise
        print_json({"file": str(file), "valid": False, "faults": _faults(error.faults)})
        note(f"error: {error}")
        raise typer.Exit(1) from None
    warnings = policy_warnings(policy)
    if json_output:
        print_json(
            {
                "file": str(file),
                "valid": True,
                "digest": policy.digest,
                "departments": sorted(policy.departments),
                "warnings": _faults(warnings),
            }
        )
        return
    say(f"{file} is a valid policy of {policy.organisation} for {', '.join(policy.departments)}.")
    say(f"SHA-256 {policy.digest}")
    for warning in warnings:
        say(f"warning: {warning}")


@app.command("show")
def show(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="Policy file; by default the workspace's."),
    ] = None,
    department: DepartmentOption = None,
    workspace: WorkspaceOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show a policy with all defaults filled in.

    What a file leaves out has a default; this shows what is in force: budgets of the departments,
    the training run, what happens to personal data, and what each role may do. With --department,
    only what concerns that department.

    \b
    Example:
      intramural policy show policy.toml --department hr
    """
    from intramural.parts import read_policy, workspace_policy
    from policies.load import dump_policy

    policy = workspace_policy(find_workspace(workspace)) if file is None else read_policy(file)
    names = list(policy.departments)
    if department is not None:
        policy.department(department)
        names = [department]
    budgets = {name: _budget(policy, name) for name in names}
    if json_output:
        value: dict[str, Any] = {"digest": policy.digest, "budgets": budgets}
        if department is None:
            value["policy"] = dump_policy(policy)
        print_json(value)
        return
    facts([("organisation", policy.organisation), ("SHA-256", policy.digest)])
    made = table("department", "epsilon", "delta", "declared units", "title", right=(1, 2, 3))
    for name, budget in budgets.items():
        made.add_row(
            name,
            f"{budget['epsilon']:g}",
            f"{budget['delta']:g}",
            str(budget["declared_units"]),
            str(budget["title"]),
        )
    print_table(made)
    say(f"Unit of privacy: one {policy.privacy.unit}; adjacency: add or remove one.")
    say("")
    _show_training(policy)
    if department is None:
        _show_rules(policy)


def _show_training(policy: "Policy") -> None:
    training = policy.training
    layers = "all" if training.last_layers is None else f"last {training.last_layers}"
    trained = "B (A stays frozen)" if training.factors == "B" else "A and B"
    facts(
        [
            ("one run", f"{training.rounds} rounds of {training.local_steps} steps"),
            ("epsilon of one run", f"at most {policy.run_epsilon():g}"),
            ("sampling rate", f"{training.sampling_rate:g} (Poisson)"),
            ("clipping norm", f"{training.clipping_norm:g}"),
            ("learning rate", f"{training.learning_rate:g}"),
            ("adapter", f"rank {training.rank}, alpha {training.alpha}, {layers} layers"),
            ("adapted modules", ", ".join(training.targets)),
            ("trained factors", trained),
            ("longest record", f"{training.max_tokens} tokens"),
            ("departments needed", f"{training.minimum_nodes} a round"),
        ]
    )


def _show_rules(policy: "Policy") -> None:
    pii = policy.pii
    say("")
    rules = [f"{entity}: {action}" for entity, action in sorted(pii.entities.items())]
    for key, section in policy.pii_tables().items():
        rules += [f"{key}.{entity}: {action}" for entity, action in section.entities.items()]
        if section.default_action is not None:
            rules.append(f"{key}: {section.default_action}")
    facts(
        [
            ("personal data", f"{pii.default_action}, unless said otherwise"),
            ("rules", ", ".join(rules) or "none"),
            ("languages", ", ".join(pii.languages)),
            ("least score", f"{pii.threshold:g}"),
            ("never personal", f"{len(pii.allow)} phrases"),
            ("always personal", f"{len(pii.deny)} phrases"),
            ("audit log", f"kept for {policy.retention.audit_days} days"),
        ]
    )
    made = table("role", "operations", "releases", "req/min", "tokens", right=(3, 4))
    for name, role in policy.roles.items():
        made.add_row(
            name,
            ", ".join(role.operations),
            ", ".join(role.releases),
            str(role.requests_per_minute),
            str(role.max_tokens),
        )
    print_table(made)


def _budget(policy: "Policy", name: str) -> dict[str, Any]:
    budget, department = policy.budget_of(name), policy.departments[name]
    return {
        "epsilon": float(budget.epsilon),
        "delta": budget.stated_delta,
        "block": budget.block,
        "unit": policy.privacy.unit,
        "declared_units": department.declared_units,
        "title": department.title,
        "run_epsilon": float(policy.run_epsilon()),
    }


def _faults(faults: "tuple[Fault, ...]") -> list[dict[str, str]]:
    return [{"key": fault.key, "message": fault.message} for fault in faults]
