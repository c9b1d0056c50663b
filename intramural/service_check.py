"""Is the service configured so that it could start? Every fault at once, nothing is changed.

Looks at what an operator writes: settings, policy, certificates, key sets, and what they must agree
with: release, API keys, audit log. Loads no model and asks nobody over the network.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from intramural.errors import IntramuralError
from intramural.stores import keys_place, settings_file
from intramural.workspace import Workspace
from policies.errors import PolicyError
from policies.model import Policy
from privacy.errors import PrivacyError
from privacy.signing import VerifyKey
from privacy.store.place import Postgres


@dataclass(frozen=True)
class ServiceFault:
    """What is wrong: the part that it concerns, and what there is to say."""

    key: str
    message: str


def check_service(
    workspace: Workspace,
    *,
    release: str = "latest",
    trusted: VerifyKey | None = None,
    workers: int = 1,
) -> list[ServiceFault]:
    """All faults, in the order in which a start would meet them."""
    from api.errors import ServiceError
    from api.settings import ServiceSettings, SettingsInvalid, load_settings
    from intramural.parts import workspace_policy
    from intramural.personal import with_personal
    from intramural.service import find_release
    from privacy.store.reading import store_exists

    faults: list[ServiceFault] = []

    @contextmanager
    def noting(part: str) -> Iterator[None]:
        try:
            yield
        except SettingsInvalid as error:
            faults.extend(ServiceFault(part, fault) for fault in error.faults)
        except PolicyError as error:
            faults.extend(ServiceFault(part, str(fault)) for fault in error.faults)
        except (ServiceError, IntramuralError, PrivacyError, OSError, ValueError) as error:
            faults.append(ServiceFault(part, str(error)))

    settings: ServiceSettings | None = None
    with noting("settings"):
        settings = load_settings(settings_file(workspace))
        settings.check_workers(workers)
        with noting("settings.tls"):
            from api.server import check_tls

            check_tls(settings.tls)
        with noting("settings.tracing"):
            from api.tracing_export import open_tracing

            with open_tracing(settings.tracing):
                pass
        if settings.redis_url is not None:
            with noting("settings.redis_url"):
                from api.limits_redis import RedisRates

                RedisRates.connect(settings.redis_url.get_secret_value(), settings.redis_seconds)
    with noting("policy"):
        policy = workspace_policy(workspace)
        with noting("policy.guards"):
            from api.guards import Guards

            Guards(policy.guards)
        if settings is not None:
            with noting("settings.tls"):
                _check_certificates(policy, settings.tls.client_ca is not None)
        for name, issuer in policy.access.issuers.items():
            if issuer.jwks.startswith("/"):
                with noting(f"policy.access.issuers.{name}.jwks"):
                    _check_jwks(Path(issuer.jwks))
    with noting("release"):
        with_personal(workspace, find_release(workspace, release, trusted))
    if settings is not None:
        place = keys_place(workspace)
        if isinstance(place, Postgres):
            with noting("settings.database_url"):
                from privacy.store.postgres import server_engine

                server_engine(place)  # connects to nobody
        else:
            with noting("keys"):
                if store_exists(place):
                    _check_keys(workspace)
    return faults


def _check_certificates(policy: Policy, believed: bool) -> None:
    named = [name for name, principal in policy.principals.items() if principal.certificates]
    if named and not believed:
        raise ValueError(
            f"client_ca is missing, so the certificates of {', '.join(named)} open nothing"
        )


def _check_jwks(path: Path) -> None:
    from api.jwks import parse_keys, read_file

    parse_keys(read_file(path))


def _check_keys(workspace: Workspace) -> None:
    from intramural.parts import open_keys

    open_keys(workspace).close()
