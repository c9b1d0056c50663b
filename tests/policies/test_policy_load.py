"""A policy file: everything wrong with it is said at once, by key, value and bound."""

import hashlib
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from policies.errors import Fault, PolicyError, UnknownDepartment, UnknownRole
from policies.load import dump_policy, load_policy, parse_policy, policy_warnings
from policies.model import DEFAULT_ROLES, Budget, Policy, rounded_down

SMALLEST = """
version = 1
organisation = "Example"
[departments.hr]
"""


def toml(text: str) -> Policy:
    return parse_policy(text.encode(), "toml")


def faults(text: str, format_: Any = "toml") -> dict[str, str]:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text.encode(), format_)
    return {fault.key: fault.message for fault in caught.value.faults}


def test_smallest_policy() -> None:
    """A policy that names an organisation and a department has sensible values for all the rest."""
    policy = toml(SMALLEST)
    assert policy.budget_of("hr") == Budget(Decimal("8.0"), Decimal("1e-5"))
    assert policy.run_epsilon() == 8.0
    assert policy.training.targets == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert policy.privacy.unit == "record"
    assert policy.retention.audit_days == 183
    assert policy_warnings(policy) == ()


def test_digest_is_that_of_the_file(tmp_path: Path) -> None:
    """The digest agrees with sha256sum of the file, byte for byte, comments included."""
    path = tmp_path / "policy.toml"
    path.write_bytes(b"# ours\r\n" + SMALLEST.encode())
    assert load_policy(path).digest == hashlib.sha256(path.read_bytes()).hexdigest()
    before = load_policy(path).digest
    path.write_bytes(b"# Ours\r\n" + SMALLEST.encode())
    assert load_policy(path).digest != before


def test_a_file_cannot_state_its_digest() -> None:
    """The digest is computed, never believed."""
    assert "digest" in faults(f'digest = "{"0" * 64}"\n' + SMALLEST)


def test_own_budget_before_the_default_one() -> None:
    """A department's own figures win; what it leaves out comes from the section privacy."""
    policy = toml(
        """
        version = 1
        organisation = "Example"
        [privacy]
        epsilon = 6
        delta = 1e-6
        [departments.hr]
        epsilon = 2.5
        [departments.finance]
        delta = 1e-7
        """
    )
    assert policy.budget_of("hr") == Budget(Decimal("2.5"), Decimal("1e-6"))
    assert policy.budget_of("finance") == Budget(Decimal(6), Decimal("1e-7"))
    assert policy.run_epsilon() == 2.5


def test_unknown_names_tell_the_known_ones() -> None:
    """Asking for a department or a role that does not exist names those that do."""
    policy = toml(SMALLEST)
    with pytest.raises(UnknownDepartment, match="no department 'legal'; the policy names hr"):
        policy.budget_of("legal")
    with pytest.raises(UnknownRole, match="app, node, compliance, admin"):
        policy.role("root")


def test_every_fault_at_once() -> None:
    """Each fault is reported by its dotted key with the value and the bound, in one go."""
    found = faults(
        """
        version = 2
        organisation = " "
        [privacy]
        epsilon = 0
        unit = "person"
        [departments.hr]
        declared_units = 200000
        epsilonn = 3
        [departments.Finance]
        [departments.it]
        title = 7
        declared_units = 2.5
        delta = 1.0
        [training]
        sampling_rate = 1.5
        steps = 3
        targets = ["q_proj", "q_proj"]
        last_layers = 0
        rounds = true
        [pii]
        languages = []
        threshold = "high"
        [pii.entities]
        phone = "keep"
        PERSON = "hide"
        [roles.auditor]
        [roles.app]
        operations = ["chat", "fly"]
        [retention]
        audit_days = 30
        """
    )
    assert found == {
        "version": "is 2, but must be 1",
        "organisation": "is blank",
        "privacy.epsilon": "is 0, but must be above 0",
        "privacy.unit": "is 'person', but must be 'record' or 'subject'",
        "departments.hr.epsilonn": "is no key of a policy; did you mean departments.hr.epsilon?",
        "departments": "'Finance' is no department name: use a small letter, then small letters, "
        "digits and _ (at most 40)",
        "departments.it.title": "is 7, but must be a text",
        "departments.it.declared_units": "is 2.5, but must be a whole number",
        "departments.it.delta": "is 1.0, but must be below 1",
        "training.sampling_rate": "is 1.5, but must be at most 1",
        "training.steps": "is no key of a policy; did you mean training.local_steps?",
        "training.targets": "names 'q_proj' twice",
        "training.last_layers": "is 0, but must be at least 1",
        "training.rounds": "is true, but must be a whole number",
        "pii.languages": "is empty, but must name at least one",
        "pii.threshold": "is 'high', but must be a number",
        "pii.entities": "'phone' is no entity name: use capital letters, digits and _, as in "
        "EMAIL_ADDRESS",
        "pii.entities.PERSON": "is 'hide', but must be 'replace', 'mask', 'hash', "
        "'pseudonym', 'encrypt', 'redact', 'block' or 'allow'",
        "roles.auditor.operations": "is missing",
        "roles.app.operations[1]": "is 'fly', but must be 'chat', 'completions', "
        "'embeddings', 'classify', 'models', 'redact', 'restore', 'usage', 'budgets', "
        "'releases', 'audit', 'metrics' or 'keys'",
        "retention.audit_days": "is 30, but must be at least 180",
        "departments.hr.delta": "is 0.00001 (from privacy.delta), but must be below "
        "1/declared_units = 1/200000 = 5e-06: a larger delta would allow one unit to be published "
        "outright",
    }


def test_faults_between_sections() -> None:
    """Values that are each in bounds are refused where they contradict each other."""
    found = faults(
        """
        version = 1
        organisation = "Example"
        [departments.hr]
        delta = 0.002
        [training]
        minimum_nodes = 3
        [pii]
        allow = ["Berlin", "ACME"]
        deny = ["acme"]
        """
    )
    assert list(found) == ["departments.hr.delta", "training.minimum_nodes", "pii.deny"]
    assert "1/declared_units = 1/500 = 0.002" in found["departments.hr.delta"]
    assert found["training.minimum_nodes"].startswith("is 3, but the policy names 1 department:")


def test_no_fault_is_invented_beside_a_faulty_key() -> None:
    """A disagreement that rests on a key already reported is not reported again."""
    text = SMALLEST + "declared_units = -4\ndelta = 7\n[training]\nminimum_nodes = 0\n"
    assert set(faults(text)) == {
        "departments.hr.declared_units",
        "departments.hr.delta",
        "training.minimum_nodes",
    }


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("organization", "did you mean organisation?"),
        ("epsilon", "did you mean privacy.epsilon?"),
        ("max_tokens", "did you mean training.max_tokens?"),
        ("zzz", "known here: version, organisation, privacy"),
    ],
)
def test_unknown_keys_come_with_a_suggestion(key: str, suggestion: str) -> None:
    """A misspelt or misplaced key is told together with the one that was probably meant."""
    assert suggestion in faults(f"{key} = 3\n{SMALLEST}")[key]


@pytest.mark.parametrize("missing", ["version", "organisation", "departments"])
def test_required_keys(missing: str) -> None:
    """Version, organisation and departments must be there."""
    tables = {"version": 1, "organisation": "x", "departments": {"hr": {}}}
    del tables[missing]
    assert faults(json.dumps(tables), "yaml") == {missing: "is missing"}


def test_at_least_one_department() -> None:
    """A policy without departments is refused."""
    text = "version: 1\norganisation: x\ndepartments: {}"
    assert faults(text, "yaml") == {"departments": "is empty, but must name at least one"}


NUMBERS = [
    "privacy.epsilon",
    "privacy.delta",
    "departments.hr.epsilon",
    "departments.hr.delta",
    "training.sampling_rate",
    "training.target_epsilon",
    "training.clipping_norm",
    "training.learning_rate",
    "pii.threshold",
]


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused_everywhere(key: str, value: float) -> None:
    """No number of a policy may be a NaN or an infinity."""
    tables: dict[str, Any] = {"version": 1, "organisation": "x", "departments": {"hr": {}}}
    *path, last = key.split(".")
    table = tables
    for part in path:
        table = table.setdefault(part, {})
    table[last] = value
    assert faults(yaml.safe_dump(tables), "yaml") == {
        key: f"is {value!r}, but must be a finite number"
    }


def test_default_roles_are_least_privilege() -> None:
    """Applications and nodes see no proofs, compliance sees no chat, only admin handles keys."""
    roles = toml(SMALLEST).roles
    assert set(roles) == {"app", "node", "compliance", "admin"}
    assert set(roles["app"].operations) == {
        "chat",
        "completions",
        "embeddings",
        "classify",
        "models",
        "redact",
        "restore",
        "usage",
    }
    assert roles["node"].operations == ("models",)
    assert set(roles["compliance"].operations) == {
        "budgets",
        "releases",
        "audit",
        "metrics",
        "models",
        "usage",
    }
    assert [name for name, role in roles.items() if "keys" in role.operations] == ["admin"]


def test_roles_are_changed_key_by_key() -> None:
    """A role that the file changes in one key keeps the rest; a role of its own is added."""
    policy = toml(
        SMALLEST
        + """
        [roles.app]
        max_tokens = 64
        [roles.node]
        operations = []
        [roles.reviewer]
        operations = ["releases"]
        releases = ["r-1*"]
        """
    )
    assert policy.roles["app"].max_tokens == 64
    assert policy.roles["app"].operations == DEFAULT_ROLES["app"].operations
    assert policy.roles["node"].operations == ()
    assert policy.roles["reviewer"].releases == ("r-1*",)
    assert policy.roles["admin"] == DEFAULT_ROLES["admin"]


def test_a_policy_is_frozen() -> None:
    """Nobody changes a policy in force."""
    policy = toml(SMALLEST)
    with pytest.raises(ValidationError):
        policy.privacy.epsilon = 100.0  # type: ignore[misc]


def test_warnings() -> None:
    """What is allowed but probably not meant is a warning and no fault."""
    policy = toml(
        """
        version = 1
        organisation = "Example"
        [departments.hr]
        epsilon = 2
        declared_units = 4873
        [departments.finance]
        epsilon = 50
        [training]
        target_epsilon = 3
        [pii]
        default_action = "allow"
        """
    )
    found = policy_warnings(policy)
    assert [warning.key for warning in found] == [
        "training.target_epsilon",
        "departments.hr.declared_units",
        "departments.finance.epsilon",
        "pii.default_action",
    ]
    assert "is 3, above the budget of 2 of department 'hr'" in found[0].message
    assert policy.run_epsilon() == 3.0


def test_default_allow_of_a_direction_or_a_role_is_a_warning() -> None:
    """Wherever everything passes by default, the author is told by the key that says so."""
    policy = toml(
        SMALLEST
        + """
        [pii.training]
        default_action = "allow"
        [roles.app.pii.answer]
        default_action = "keep"
        """
    )
    assert [warning.key for warning in policy_warnings(policy)] == [
        "pii.training.default_action",
        "roles.app.pii.answer.default_action",
    ]


def test_actions_that_could_not_do_what_they_say_are_refused() -> None:
    """No realistic stand-in for free phrases and secrets, no token in an answer for nobody to open."""
    text = (
        SMALLEST
        + """
        [pii.entities]
        TERM = "pseudonym"
        [pii.answer]
        default_action = "encrypt"
        [roles.app.pii.prompt.entities]
        SECRET = "pseudonym"
        """
    )
    found = faults(text)
    assert set(found) == {
        "pii.entities.TERM",
        "pii.answer.default_action",
        "roles.app.pii.prompt.entities.SECRET",
    }
    assert "use 'replace' or 'hash'" in found["pii.entities.TERM"]
    assert "no key" in found["pii.answer.default_action"]
    # Heard together with a fault of another section.
    assert set(faults(text + '[privacy]\nunit = "person"\n')) == {*found, "privacy.unit"}


def test_every_kind_that_is_named_is_known_by_the_key_that_names_it() -> None:
    """Rules of all tables and roles, and thresholds, say which kinds are looked for on request."""
    policy = toml(
        SMALLEST
        + """
        [pii.thresholds]
        PERSON = 0.4
        [pii.entities]
        ORGANIZATION = "replace"
        [pii.training.entities]
        DATE_TIME = "pseudonym"
        [roles.app.pii.answer.entities]
        NATIONALITY = "allow"
        """
    )
    assert policy.entities_named() == {
        "PERSON": "pii.thresholds.PERSON",
        "ORGANIZATION": "pii.entities.ORGANIZATION",
        "DATE_TIME": "pii.training.entities.DATE_TIME",
        "NATIONALITY": "roles.app.pii.answer.entities.NATIONALITY",
    }


def test_all_layers() -> None:
    """TOML has no null: "all" adapts every layer, in the file and in what is dumped."""
    policy = toml(SMALLEST + '[training]\nlast_layers = "all"\n')
    assert policy.training.last_layers is None
    assert dump_policy(policy)["training"]["last_layers"] == "all"


@pytest.mark.parametrize(
    ("format_", "text"),
    [
        ("toml", SMALLEST + "epsilon = 8.1\ndelta = 1e-5\n[training]\ntarget_epsilon = 2.30\n"),
        (
            "yaml",
            """
            version: 1
            organisation: x
            departments: {hr: {epsilon: 8.1, delta: 1e-5}}
            training: {target_epsilon: 2.30}
            """,
        ),
    ],
)
def test_limits_are_the_decimals_that_are_written(format_: Any, text: str) -> None:
    """Budget, delta and target are the file's own decimals; other numbers are plain floats."""
    policy = parse_policy(text.encode(), format_)
    budget = policy.budget_of("hr")
    assert (str(budget.epsilon), budget.delta) == ("8.1", Decimal("1e-5"))
    assert str(policy.run_epsilon()) == "2.30"
    assert type(policy.training.clipping_norm) is float
    assert dump_policy(policy)["departments"]["hr"]["epsilon"] == 8.1


@given(st.decimals(min_value="1e-12", max_value=50, allow_nan=False).map(lambda d: round(d, 15)))
def test_a_limit_is_never_rounded_up(limit: Decimal) -> None:
    """What goes to the accountant is the largest binary number that is not above the limit."""
    number = rounded_down(limit)
    assert Decimal(number) <= limit < Decimal(math.nextafter(number, math.inf))


def test_a_delta_is_stated_as_written_and_accounted_below() -> None:
    """The binary number next to 1e-5 lies above it: it is what is printed, never what is used."""
    budget = toml(SMALLEST).budget_of("hr")
    assert budget.stated_delta == 1e-5
    assert Decimal(budget.accountant_delta) < Decimal("1e-5") < Decimal(budget.stated_delta)


@pytest.mark.parametrize("value", ["8.123456789012345", "1e400", "1e-400", f"1e{'9' * 30}"])
def test_a_limit_that_no_receipt_could_state_is_refused(value: str) -> None:
    """More digits, or another magnitude, than a JSON number keeps."""
    for format_, text in (
        ("toml", SMALLEST + f"epsilon = {value}\n"),
        ("yaml", f"version: 1\norganisation: x\ndepartments: {{hr: {{epsilon: {value}}}}}"),
    ):
        (message,) = faults(text, format_).values()
        assert "digits" in message or "out of all bounds" in message


def test_a_binary_number_is_no_limit() -> None:
    """A budget made in code is as exact as one that is read."""
    with pytest.raises(TypeError, match=r"epsilon=8.1 must be a Decimal"):
        Budget(8.1, Decimal("1e-5"))  # type: ignore[arg-type]


def test_a_data_block_belongs_to_the_budget() -> None:
    """The block is "1" unless the policy names a new one for new records; it must be a name."""
    assert toml(SMALLEST).budget_of("hr").block == "1"
    assert toml(SMALLEST + 'block = "2027-q1"\n').budget_of("hr").block == "2027-q1"
    assert "departments.hr.block" in faults(SMALLEST + 'block = "../x"\n')


small = st.decimals(min_value="0.001", max_value=50, places=9).map(float)
documents = st.fixed_dictionaries(
    {
        "version": st.just(1),
        "organisation": st.text(
            st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20
        ).filter(str.strip),
        "departments": st.dictionaries(
            st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True),
            st.fixed_dictionaries(
                {},
                optional={
                    "epsilon": small,
                    "delta": st.integers(1, 999_999).map(lambda n: n / 10**12),
                    "declared_units": st.integers(1, 90_000),
                },
            ),
            min_size=1,
            max_size=4,
        ),
    },
    optional={
        "training": st.fixed_dictionaries(
            {},
            optional={
                "last_layers": st.one_of(st.just("all"), st.integers(1, 30)),
                "target_epsilon": small,
                "sampling_rate": st.floats(min_value=0.01, max_value=1),
                "targets": st.just(["q_proj"]),
            },
        ),
        "roles": st.just({"app": {"max_tokens": 5}, "extra": {"operations": ["chat"]}}),
        "pii": st.just({"entities": {"PERSON": "redact"}, "allow": ["Berlin"]}),
    },
)


class Quoted(yaml.SafeDumper):
    """Writes every text in quotes: unquoted, YAML 1.2 reads the text "0E0" as a number."""


Quoted.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


def quoted_yaml(tables: dict[str, Any]) -> bytes:
    """The tables as YAML, any text and character as it is."""
    return yaml.dump(tables, Dumper=Quoted).encode()


@settings(deadline=None, max_examples=50)
@given(documents)
def test_a_dumped_policy_loads_as_the_same_policy(tables: dict[str, Any]) -> None:
    """dump_policy says everything: what it says loads as an equal policy, digest aside."""
    policy = parse_policy(quoted_yaml(tables), "yaml")
    dumped = dump_policy(policy)
    again = parse_policy(quoted_yaml(dumped), "yaml")
    assert again.model_copy(update={"digest": policy.digest}) == policy
    assert dump_policy(again) == dumped


@settings(deadline=None, max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["version", "departments", "hr", "training", "pii", "roles", "app", "entities"]
                )
                | st.text(max_size=4),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_document_is_a_policy_or_a_list_of_faults(document: object) -> None:
    """Whatever a file holds, the answer is a policy or a PolicyError that names faults."""
    found: tuple[Fault, ...] | None = None
    try:
        parse_policy(yaml.safe_dump(document).encode(), "yaml")
    except PolicyError as error:
        found = error.faults
        told = str(error)
    if found is not None:
        assert found
        assert all(fault.message and str(fault) in told for fault in found)


def test_the_message_lists_every_fault(tmp_path: Path) -> None:
    """str() of the error names the file and every fault."""
    path = tmp_path / "policy.toml"
    path.write_text("version = 1\n")
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    assert str(caught.value).splitlines() == [
        f"policy {path} has 2 faults:",
        "  organisation: is missing",
        "  departments: is missing",
    ]
