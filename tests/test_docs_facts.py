"""What the documentation states is so: policy keys, defaults, bounds, routes, codes and figures."""

import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

import annotated_types
import pytest
from docs_kit import ROOT, SPAN, read, table_rows
from pydantic import BaseModel
from pydantic.fields import FieldInfo

# --- the policy reference -------------------------------------------------------------------------

REFERENCE = "docs/policy-reference.md"
SECTIONS = (
    "Top level",
    "privacy",
    "departments",
    "training",
    "pii",
    "guards",
    "sensitivity",
    "roles",
    "access",
    "principals",
    "retention",
)


def documented_keys() -> dict[str, list[str]]:
    rows = [row for name in SECTIONS for row in table_rows(REFERENCE, f"## {name}")]
    return {row[0].strip("`"): row[1:] for row in rows if len(row) == 5}


def inner(annotation: Any) -> Iterator[Any]:
    """An annotation and all that it is made of."""
    yield annotation
    for argument in get_args(annotation):
        yield from inner(argument)


def key_fields() -> dict[str, tuple[FieldInfo, bool]]:
    """Every key that a file may hold, and whether it is one of a table with free names."""
    from policies.model import PolicyDocument

    found: dict[str, tuple[FieldInfo, bool]] = {}

    def walk(model: type[BaseModel], prefix: str) -> None:
        for name, info in model.model_fields.items():
            key = f"{prefix}{name}"
            sections = [
                part
                for part in inner(info.annotation)
                if isinstance(part, type) and issubclass(part, BaseModel)
            ]
            table = get_origin(info.annotation) is Mapping
            if sections:
                walk(sections[0], f"{key}.<name>." if table else f"{key}.")
            else:
                free = {"roles": "<VALUE>", "releases": "<PATTERN>", "own": "<NAME>"}.get(
                    name, "<ENTITY>"
                )
                found[f"{key}.{free}" if table else key] = (info, table)

    walk(PolicyDocument, "")
    return found


def test_the_policy_reference_has_every_key_and_no_other() -> None:
    """Keys of the models and of the page are the same."""
    assert set(documented_keys()) == set(key_fields())


@pytest.mark.parametrize("key", sorted(documented_keys()))
def test_the_policy_reference_states_the_default(key: str) -> None:
    """Each default of the page is the model's."""
    info, table = key_fields()[key]
    stated = documented_keys()[key][1].strip("`")
    if table or (info.default is None and not info.is_required()):
        assert stated == "unset"
    elif info.is_required():
        assert stated == "required"
    else:
        assert tomllib.loads(f"x = {stated}")["x"] == json.loads(
            json.dumps(info.default, default=float)
        )


@pytest.mark.parametrize("key", sorted(documented_keys()))
def test_the_policy_reference_states_the_bounds(key: str) -> None:
    """Each numeric bound of the page is the model's."""
    signs = {
        annotated_types.Gt: (">", "gt"),
        annotated_types.Ge: (">=", "ge"),
        annotated_types.Lt: ("<", "lt"),
        annotated_types.Le: ("<=", "le"),
    }
    info, _ = key_fields()[key]
    parts = [*info.metadata, *inner(info.annotation)]
    marks = [m for part in parts for m in (getattr(part, "metadata", None) or [part])]
    expected = {
        (signs[type(mark)][0], float(getattr(mark, signs[type(mark)][1])))
        for mark in marks
        if type(mark) in signs
    }
    cell = documented_keys()[key][2]
    stated = {
        (sign, 2.0 ** int(power) if power else float(number))
        for sign, power, number in re.findall(r"([<>]=?) (?:2\*\*(\d+)|(\S+?))(?:,|$)", cell)
    }
    assert stated == expected


@pytest.mark.parametrize("key", sorted(documented_keys()))
def test_the_policy_reference_states_the_choices(key: str) -> None:
    """Where a key has few values, the page names them all."""
    info, _ = key_fields()[key]
    literals = [part for part in inner(info.annotation) if get_origin(part) is Literal]
    choices = {json.dumps(value) for part in literals for value in get_args(part)}
    stated = set(SPAN.findall(documented_keys()[key][0])) - {'"all"'}
    if key.endswith(".<name>.operations"):
        stated = {json.dumps(name) for name in operations_named()}
    assert stated == choices


def operations_named() -> list[str]:
    listed = re.search(r"^Operations: ([^.]*)\.", read(REFERENCE), re.MULTILINE)
    return SPAN.findall(listed[1]) if listed else []


def test_the_policy_reference_states_the_default_roles() -> None:
    """The table of roles is the model's."""
    from policies.model import DEFAULT_ROLES

    stated = {
        row[0].strip("`"): SPAN.findall(row[1])
        for row in table_rows(REFERENCE, "## roles")
        if len(row) == 2
    }
    assert stated == {name: list(role.operations) for name, role in DEFAULT_ROLES.items()}


def test_the_policy_reference_names_every_kind_of_personal_data() -> None:
    """Kinds that are looked for always, and on request, are those of the detector."""
    from privacy.pii.entities import ON_REQUEST, PERSONAL

    section = read(REFERENCE).partition("Kinds that are looked for:")[2].partition("## roles")[0]
    always, _, rarely = section.partition("Further kinds")
    assert set(SPAN.findall(always)) == PERSONAL
    assert set(SPAN.findall(rarely.partition(".")[0])) == ON_REQUEST


# --- routes, codes and figures --------------------------------------------------------------------


def test_every_route_is_documented_and_no_other() -> None:
    """The page for application developers has the service's routes."""
    from api.routes import ROUTERS

    served = {
        f"{method} {route.path}"
        for router in ROUTERS
        for route in router.routes
        for method in route.methods - {"HEAD"}
    }
    rows = table_rows("docs/application-developer.md", "## Routes")
    assert {row[0].strip("`") for row in rows} == served - {"GET /docs/style.css"}


def test_every_error_code_is_documented() -> None:
    """An application that knows the page has met every code that the service answers."""
    from policies.decisions import CALL_CODES

    code = "".join(file.read_text() for file in (ROOT / "api").rglob("*.py"))
    answered = set(re.findall(r'code="([a-z_]+)"', code)) | set(CALL_CODES)
    answered -= {"client_closed"}  # nobody is there to read it
    page = read("docs/application-developer.md")
    assert {name for name in answered if f"`{name}`" not in page} == set()


def test_every_decline_code_is_documented_and_no_other() -> None:
    """The department's page explains why a node may decline."""
    from privacy.exchange import DeclineCode

    rows = table_rows("docs/department-node.md", "## What your node decides")
    assert {row[0].strip("`") for row in rows} == set(get_args(DeclineCode))


def test_every_kind_of_audit_entry_is_documented() -> None:
    """The compliance officer's page names all kinds of entries."""
    from privacy.audit.entries import KINDS

    page = read("docs/compliance-officer.md")
    assert {kind for kind in KINDS if f"`{kind}`" not in page} == set()


def test_every_asset_is_documented_with_its_licence() -> None:
    """The engineer's page lists what is fetched, and under which licence."""
    from intramural.asset_registry import ASSETS

    rows = table_rows("docs/engineer.md", "## Model assets")
    stated = {row[0].strip("`"): row[2] for row in rows}
    assert stated == {name: asset.licence for name, asset in ASSETS.items()}


def test_the_figures_on_the_cost_of_several_runs_are_true() -> None:
    """The compliance officer's table is what the accountant computes, rounded up."""
    from privacy.dp.accounting import calibrate_noise, epsilon
    from privacy.dp.events import PoissonGaussian

    noise = calibrate_noise(lambda z: [PoissonGaussian(0.25, z, 24)], 2.0, 1e-5)
    rows = table_rows("docs/compliance-officer.md", "## Budgets")
    assert [int(row[0]) for row in rows] == [1, 2, 4, 8, 12]
    for runs, stated in rows:
        cost = epsilon([PoissonGaussian(0.25, noise, 24 * int(runs))], 1e-5)
        assert cost <= float(stated) < cost + 0.01


def test_the_figures_on_the_meaning_of_epsilon_are_true() -> None:
    """The compliance officer's table follows from the definition."""
    for row in table_rows("docs/compliance-officer.md", "## What epsilon means"):
        factor = math.exp(float(row[0]))
        assert float(row[1].replace(",", "")) == pytest.approx(factor, rel=0.02)
        odds = factor * 0.01 / 0.99
        assert float(row[2].removesuffix(" %")) == pytest.approx(100 * odds / (1 + odds), rel=0.02)


def default_run(noise: float, rounds: int) -> list[Any]:
    """Events of the default policy's rounds."""
    from policies.model import TrainingPolicy
    from privacy.dp.pricing import round_event

    return [round_event(TrainingPolicy(), 500, noise)] * rounds


@pytest.mark.parametrize(
    "row", table_rows("docs/privacy-numbers.md", "## What an attacker can do"), ids=lambda r: r[0]
)
def test_the_figures_on_what_an_attacker_can_do_are_true(row: list[str]) -> None:
    """Factor and both accuracies are what definition and accountant give, rounded up to 0.01 %."""
    from policies.model import TrainingPolicy
    from privacy.dp.accounting import calibrate_noise, epsilon

    target, delta = float(row[0]), 1e-5
    factor = math.exp(target)
    assert float(row[1].replace(",", "")) == pytest.approx(factor, rel=0.005)
    any_mechanism, default = (float(cell.removesuffix(" %")) for cell in row[2:])
    best = 100 * (factor + delta) / (1 + factor)
    assert best <= any_mechanism < best + 0.011
    rounds = TrainingPolicy().rounds
    noise = calibrate_noise(lambda z: default_run(z, rounds), target, delta)
    run = default_run(noise, rounds)
    # Accuracy a needs a distance of 2 a - 1 between the two worlds, the delta of epsilon 0.
    assert epsilon(run, default / 50 - 1) == 0
    assert epsilon(run, (default - 0.02) / 50 - 1) > 0


def test_the_figures_on_rounds_and_crashes_are_true() -> None:
    """Each round of the default run costs what the page says, rounded up."""
    from privacy.dp.accounting import calibrate_noise, epsilon

    noise = calibrate_noise(lambda z: default_run(z, 4), 2.0, 1e-5)
    rows = table_rows("docs/privacy-numbers.md", "## Worked examples")
    assert [int(row[0]) for row in rows] == [1, 2, 3, 4, 5, 8]
    for rounds, stated in rows:
        cost = epsilon(default_run(noise, int(rounds)), 1e-5)
        assert cost <= float(stated) < cost + 0.011


def test_the_figures_on_groups_and_departments_are_true() -> None:
    """Group privacy and the sum of two departments follow from the definition."""
    page = read("docs/privacy-numbers.md")
    assert f"{1e-5 * math.expm1(6) / math.expm1(2):.1e}".replace("e-0", "e-") == "6.3e-4"
    assert "at most 6.3e-4" in page
    for total in (2, 4):
        assert f"{math.ceil(1000 / (1 + math.exp(-total))) / 10} %" in page


def test_the_mechanism_page_states_the_constants_of_the_code() -> None:
    """Pseudo-code and text carry the numbers that are executed."""
    from privacy.dp import accounting, clipping, composition, descent, loss, plan, state_cache
    from privacy.dp.events import AdaptiveClipGaussian

    page = read("docs/mechanism.md")
    for stated in (
        f"N(0, ({plan.COUNT_NOISE_SHARE:g} B)²)",
        f"exp(-{descent.QUANTILE_RATE:g} (p - 1/2))",
        f"C / (r + {clipping.STABILITY:g})",
        f"a multiple of {loss.WIDTH_STEP} that",
        f"{loss.LOGITS_AT_ONCE} at a time",
        f"at most {state_cache.DEFAULT_BYTES // 2**30} GiB",
        f"a grid of {composition.DISCRETISATION:g}",
        f"an epsilon of {accounting._PLD_UP_TO:g}",
    ):
        assert stated in page
    assert descent.TARGET_QUANTILE == 0.5
    for batch, stated in ((50, "0.981"), (8, "0.625")):
        event = AdaptiveClipGaussian(0.1, 1.0, 1, plan.COUNT_NOISE_SHARE * batch)
        assert f"{event.dominated_by().noise_multiplier:.3f}" == stated
        assert f"B = {batch} gives {stated}" in page
