"""The OpenAPI document and the service agree, whatever is sent within it and against it."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks

from tests.api.service_kit import POLICY, Service, build, release

load_all_checks()
PLENTY = POLICY.replace("= 1000", "= 1000000") + "[roles.admin]\nrequests_per_minute = 1000000\n"
# Some valid bodies are refused all the same, and by rules that a JSON schema cannot state: the
# policy's bounds for this caller, fields that exclude each other, what the served model can do.
# The key is always sent, so a request is not made invalid by a header of it that is missing.
CONFIG = """
[generation]
with-security-parameters = false

[checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "404"]
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all operations, with limits out of the way."""
    folder: Path = tmp_path_factory.mktemp("openapi")
    made = build(
        folder,
        release(folder / "release"),
        policy_text=PLENTY,
        failed_authentications_per_minute=1_000_000,
    )
    yield made
    made.keys.close()
    made.audit.close()


def conforms(service: Service, mode: GenerationMode, examples: int) -> None:
    """Send ``examples`` generated requests to each operation, with all checks."""
    config = schemathesis.Config.from_str(CONFIG)
    schema = schemathesis.openapi.from_asgi("/openapi.json", service.app, config=config)
    headers = {"Authorization": f"Bearer {service.tokens['admin']}"}
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query):
            continue  # there is nothing that could be wrong

        @settings(
            max_examples=examples,
            deadline=timedelta(seconds=20),
            suppress_health_check=list(HealthCheck),
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def all_checks(case: schemathesis.Case) -> None:
            case.call_and_validate(headers=headers)

        all_checks()
        tried += 1
    assert tried >= 5


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=str)
def test_generated_requests_get_documented_answers(service: Service, mode: GenerationMode) -> None:
    """No 5xx and no undocumented status, type or shape, for valid and for invalid requests."""
    conforms(service, mode, 15)


@pytest.mark.e2e
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=str)
def test_many_generated_requests(service: Service, mode: GenerationMode) -> None:
    """The same with many more requests."""
    conforms(service, mode, 400)
