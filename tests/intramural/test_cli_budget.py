"""``intramural budget``: figures rest on ledgers that verify."""

import shutil
from pathlib import Path

import pytest

from intramural.workspace import Workspace
from policies.load import load_policy
from privacy.dp.accounting import calibrate_noise, epsilon
from privacy.dp.events import PoissonGaussian
from server.rounds import RunPlan
from tests.intramural.cli_kit import EVENT, POLICY, ROUNDS, Cli, flip

SPENT = epsilon([EVENT] * ROUNDS, 1e-5)


def test_show_composes_the_whole_history(cli: Cli, pristine: Workspace) -> None:
    """Epsilon is that of all reserved rounds together, with its delta, unit and adjacency."""
    done = cli("budget", "show", "--workspace", pristine.root, "--json")
    assert done.code == 0
    value = done.json
    assert (value["unit"], value["adjacency"]) == ("record", "add_or_remove_one")
    assert value["verified"] is True
    finance, hr = value["departments"]
    assert (finance["name"], finance["budget"], hr["name"], hr["budget"]) == (
        "finance",
        8.0,
        "hr",
        4.0,
    )
    for part in (finance, hr):
        assert part["epsilon"] == pytest.approx(SPENT)
        assert (part["delta"], part["reservations"], part["committed"]) == (1e-5, ROUNDS, ROUNDS)
        assert part["state"] == "closed"
    assert value["largest_epsilon"] == pytest.approx(SPENT)
    assert value["sum_epsilon"] == pytest.approx(2 * SPENT)


def test_show_reads_well_in_80_columns(cli: Cli, pristine: Workspace) -> None:
    """A person sees each department's epsilon, never below the computed one."""
    done = cli("budget", "show", "--workspace", pristine.root)
    assert done.code == 0
    assert all(len(line) <= 80 for line in done.out.splitlines())
    (row,) = [line.split() for line in done.out.splitlines() if line.startswith("hr ")]
    assert row[1] == "1"
    assert SPENT <= float(row[2]) < SPENT + 2e-4
    assert (row[3], row[4]) == ("4.0", row[2])


def test_show_tells_a_new_block_and_the_lifetime_apart(cli: Cli, workspace: Workspace) -> None:
    """A new data block has its whole budget; what was spent before stands beside it, never reset."""
    path = workspace.root / "policy.toml"
    path.write_text(path.read_text().replace("epsilon = 4.0\n", 'epsilon = 4.0\nblock = "2027"\n'))
    done = cli("budget", "show", "--workspace", workspace.root)
    assert all(len(line) <= 80 for line in done.out.splitlines())
    (row,) = [line.split() for line in done.out.splitlines() if line.startswith("hr ")]
    assert row[1:4] == ["2027", "0.0000", "4.0"]
    assert SPENT <= float(row[4]) < SPENT + 2e-4
    _, hr = cli("budget", "show", "--workspace", workspace.root, "--json").json["departments"]
    assert (hr["block"], hr["epsilon"], hr["remaining"]) == ("2027", 0.0, 4.0)
    assert hr["lifetime_epsilon"] == pytest.approx(SPENT)
    old, new = hr["blocks"]
    assert (old["block"], old["reservations"], new["block"]) == ("1", ROUNDS, "2027")
    assert old["epsilon"] == pytest.approx(SPENT)


def test_department_without_ledger_has_spent_nothing(cli: Cli, tmp_path: Path) -> None:
    """Before the first run nothing is spent, and verifying says that there is no ledger."""
    (tmp_path / "policy.toml").write_text(POLICY)
    value = cli("budget", "show", "--workspace", tmp_path, "--json").json
    assert [(d["epsilon"], d["state"]) for d in value["departments"]] == [(0.0, "absent")] * 2
    assert cli("budget", "verify", "--workspace", tmp_path).code == 0


def test_verify_names_each_ledger(cli: Cli, pristine: Workspace) -> None:
    """Sound ledgers end with 0, their entries counted."""
    done = cli("budget", "verify", "--workspace", pristine.root, "--json")
    assert done.code == 0
    assert done.json["verified"] is True
    assert [ledger["entries"] for ledger in done.json["ledgers"]] == [2 * ROUNDS] * 2


@pytest.mark.parametrize("file", ["ledger.db", "ledger.db.seal", "signing.pub"])
@pytest.mark.parametrize("command", ["show", "verify"])
def test_changed_ledger_is_named(cli: Cli, workspace: Workspace, file: str, command: str) -> None:
    """One changed byte ends with 1, names the department, and its figures are not shown."""
    flip(workspace.node("hr").root / file)
    done = cli("budget", command, "--workspace", workspace.root)
    assert done.code == 1
    assert "error: hr: " in done.err
    assert "finance:" not in done.err
    value = cli("budget", command, "--workspace", workspace.root, "--json").json
    assert value["verified"] is False
    if command == "show":
        finance, hr = value["departments"]
        assert hr["epsilon"] is None
        assert hr["faults"]
        assert finance["epsilon"] == pytest.approx(SPENT)


@pytest.mark.parametrize("place", [0, 100, 5000, -1])
def test_any_byte_of_the_ledger_counts(cli: Cli, workspace: Workspace, place: int) -> None:
    """Wherever the byte lies, the change is found."""
    flip(workspace.node("finance").ledger, place)
    assert cli("budget", "verify", "--workspace", workspace.root).code == 1


def test_removed_ledger_is_found_by_its_receipts(cli: Cli, workspace: Workspace) -> None:
    """A ledger that was taken away is missed, because a release carries its receipts."""
    shutil.rmtree(workspace.node("hr").root)
    done = cli("budget", "verify", "--workspace", workspace.root)
    assert done.code == 1
    assert "hr: release r-" in done.err
    assert "never charged" in done.err
    assert cli("budget", "show", "--workspace", workspace.root).code == 1


def test_changed_release_makes_the_comparison_impossible(cli: Cli, workspace: Workspace) -> None:
    """Where a release does not verify, the ledgers cannot be compared to it: exit 1."""
    (release,) = workspace.releases.iterdir()
    flip(release / "receipts.jsonl")
    done = cli("budget", "verify", "--workspace", workspace.root)
    assert done.code == 1
    assert "receipts.jsonl" in done.err


def test_plan_calibrates_as_the_hub_does(cli: Cli, pristine: Workspace) -> None:
    """The planned cost is that of the noise which the hub would choose for the same run."""
    done = cli("budget", "plan", pristine.root / "policy.toml", "--json")
    assert done.code == 0
    value = done.json
    noise = calibrate_noise(lambda noise: [PoissonGaussian(0.2, noise, 4)], 3.0, 1e-5)
    assert (value["noise_multiplier"], value["target_epsilon"]) == (noise, 3.0)
    assert (
        noise
        == RunPlan.from_policy(
            load_policy(pristine.root / "policy.toml"), "0" * 64
        ).noise_multiplier
    )
    run = epsilon([PoissonGaussian(0.2, noise, 4)], 1e-5)
    for part in value["departments"]:
        assert part["epsilon_run"] == part["epsilon_after"] == pytest.approx(run)
        assert part["epsilon_run"] <= 3.0
        assert (part["epsilon_spent"], part["fits"]) == (0.0, True)


def test_plan_prices_a_named_noise(cli: Cli, pristine: Workspace) -> None:
    """With --noise-multiplier nothing is calibrated: epsilon is what that noise costs."""
    done = cli("budget", "plan", pristine.root / "policy.toml", "--noise-multiplier", "1.6", "--json",
               "--workspace", pristine.root)  # fmt: skip
    value = done.json
    assert (value["noise_multiplier"], value["target_epsilon"]) == (1.6, None)
    for part in value["departments"]:
        assert part["epsilon_run"] == epsilon([PoissonGaussian(0.2, 1.6, 4)], 1e-5)
        assert part["epsilon_after"] == epsilon([EVENT] * ROUNDS + [EVENT] * 2, 1e-5)


@pytest.mark.parametrize(
    ("clipping", "bands", "told"),
    [
        ("adaptive", 1, "adaptive clipping, independent noise"),
        ("automatic", 2, "automatic clipping, noise correlated over 2 steps"),
    ],
)
def test_plan_prices_the_mechanism_of_the_policy(
    cli: Cli, tmp_path: Path, clipping: str, bands: int, told: str
) -> None:
    """Counts of unclipped units and correlated noise are in the price, by the worst department."""
    from privacy.dp.plan import mechanism_event

    path = tmp_path / "policy.toml"
    path.write_text(
        POLICY.replace("[departments.hr]", "[departments.hr]\ndeclared_units = 300").replace(
            "[training]", f'[training]\nclipping = "{clipping}"\nnoise_bands = {bands}'
        )
    )
    value = cli("budget", "plan", path, "--json").json

    def cost(noise: float, units: int) -> float:
        event = mechanism_event(sampling_rate=0.2, steps=2, noise_multiplier=noise, clipping=clipping,
                                expected_batch_size=0.2 * units, bands=bands)  # fmt: skip
        return epsilon([event] * 2, 1e-5)

    noise = value["noise_multiplier"]
    assert cost(noise, 300) <= 3.0 < cost(noise - 0.001, 300)
    hub = RunPlan.from_policy(load_policy(path), "0" * 64)
    assert epsilon([hub.request(number, "hr").event() for number in (1, 2)], 1e-5) == cost(
        noise, 300
    )
    finance, hr = value["departments"]
    assert (finance["epsilon_run"], hr["epsilon_run"]) == (cost(noise, 500), cost(noise, 300))
    assert (finance["expected_batch"], hr["expected_batch"]) == (100, 60)
    assert (value["clipping"], value["noise_bands"], value["adjacency"]) == (
        clipping,
        bands,
        "add_or_remove_one",
    )
    lines = cli("budget", "plan", path).out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    shown = {line[:18].strip(): line[18:] for line in lines}
    assert told in shown["mechanism"]
    assert shown["adjacency"] == "add or remove one record"


def test_plan_of_subjects_says_so(cli: Cli, tmp_path: Path) -> None:
    """The unit of privacy stands beside the figures, and hub and planner price it alike."""
    path = tmp_path / "policy.toml"
    path.write_text(POLICY.replace("epsilon = 8.0", 'epsilon = 8.0\nunit = "subject"'))
    assert "add or remove one subject" in cli("budget", "plan", path).out
    hub = RunPlan.from_policy(load_policy(path), "0" * 64)
    value = cli("budget", "plan", path, "--json").json
    assert (value["unit"], value["noise_multiplier"]) == ("subject", hub.noise_multiplier)


def test_plan_composes_with_the_stored_history(cli: Cli, pristine: Workspace) -> None:
    """With a workspace, history and run are composed; a department that cannot pay ends with 1."""
    options = ("--workspace", pristine.root, "--epsilon", "3.9", "--json")
    done = cli("budget", "plan", pristine.root / "policy.toml", *options)
    finance, hr = done.json["departments"]
    noise = done.json["noise_multiplier"]
    after = epsilon([EVENT] * ROUNDS + [PoissonGaussian(0.2, noise, 4)], 1e-5)
    for part in (finance, hr):
        assert part["epsilon_spent"] == pytest.approx(SPENT)
        assert part["epsilon_after"] == pytest.approx(after)
    assert finance["fits"] is True
    assert (hr["fits"], done.code) == (after <= 4.0, int(after > 4.0))
    assert hr["affordable_rounds"] == (2 if after <= 4.0 else 1)


def test_plan_that_no_budget_pays_for_is_refused(cli: Cli, pristine: Workspace) -> None:
    """A run beyond the budgets ends with 1, says for whom, and how many rounds fit."""
    policy = pristine.root / "policy.toml"
    done = cli("budget", "plan", policy, "--epsilon", "12", "--rounds", "2")
    assert done.code == 1
    assert "does not fit into the budget of finance, hr" in done.err
    assert "of 2 rounds" in done.out


def test_plan_beyond_the_policy_warns(cli: Cli, pristine: Workspace) -> None:
    """More rounds than the policy allows can be priced, but every node would decline."""
    done = cli("budget", "plan", pristine.root / "policy.toml", "--rounds", "3")
    assert done.code == 0
    assert "training.rounds" in done.err


@pytest.mark.parametrize(
    "options", [("--sampling-rate", "0"), ("--sampling-rate", "1.5"), ("--epsilon", "-1"),
                ("--epsilon", "nan"), ("--rounds", "0"), ("--noise-multiplier", "0"),
                ("--noise-multiplier", "inf"), ("--noise-multiplier", "1", "--epsilon", "3")]
)  # fmt: skip
def test_impossible_plans_are_usage_errors(
    cli: Cli, pristine: Workspace, options: tuple[str, ...]
) -> None:
    """Figures out of their bounds end with 2."""
    assert cli("budget", "plan", pristine.root / "policy.toml", *options).code == 2


def test_plan_refuses_a_tampered_history(cli: Cli, workspace: Workspace) -> None:
    """A plan never rests on a ledger that does not verify."""
    flip(workspace.node("hr").ledger)
    done = cli(
        "budget", "plan", workspace.root / "policy.toml", "--workspace", workspace.root, "--json"
    )
    assert done.code == 1
    assert done.json["error"]["type"] == "TamperedStore"
