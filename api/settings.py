"""How the service behaves, where the policy has no say. Validated once, all faults at once."""

import os
import tomllib
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from api.engines.settings import EngineSettings, as_tuple
from api.errors import ServiceError
from privacy.store.place import Server

PREFIX = "INTRAMURAL_SERVICE_"
_MOST_BYTES = 1024 * 1024


def _network(value: str) -> str:
    ip_network(value)
    return value


def _path(value: object) -> object:
    return Path(value) if isinstance(value, str) and value else value


def _database(value: SecretStr, info: ValidationInfo) -> SecretStr:
    Server.parse(value.get_secret_value())
    if info.data.get("redis_url") is None and not info.data.get("separate_limits"):
        raise ValueError(
            "lets several replicas run, and each would count limits for itself: set redis_url, or "
            "separate_limits = true where that is meant"
        )
    return value


def _redis(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must begin with redis://, rediss:// or unix://")
    return value


FilePath = Annotated[Path, BeforeValidator(_path)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class TlsSettings(BaseModel):
    """TLS of the service itself. Without it, keys travel in the clear: put a proxy in front.

    Attributes:
        certificate: PEM file with the server's certificate chain.
        key: PEM file with its private key, without a passphrase.
        client_ca: PEM file with the authorities whose client certificates are believed; the
            policy's `principals.<name>.certificates` say whose they are.
        client_certificate_required: refuse connections without a client certificate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    certificate: FilePath | None = None
    key: FilePath | None = None
    client_ca: FilePath | None = None
    client_certificate_required: bool = False

    @model_validator(mode="after")
    def _complete(self) -> "TlsSettings":
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: name both, or none")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("client_ca needs certificate and key")
        if self.client_certificate_required and self.client_ca is None:
            raise ValueError("client_certificate_required needs client_ca")
        return self


class ServiceSettings(BaseModel):
    """Bounds and names of one service process.

    Attributes:
        alias: model name by which callers reach the served release without knowing its id.
        serve_base_model: let a model answer that is no verified release.
        max_body_bytes: longest request body; a longer one gets 413.
        max_json_depth: deepest nesting of a body; a deeper one gets 400.
        max_header_bytes: longest request line and headers together; longer ones get 431.
        header_seconds: time for them to arrive; slower ones get 408.
        body_seconds: time for a body to arrive; a slower one gets 408.
        request_seconds: time until an answer begins, then 504.
        stream_seconds: time until a streamed answer ends.
        write_seconds: time for a client to take what it was sent; a slower one is cut off.
        connections: connections open at once; more get 503.
        concurrent_requests: requests answered at once; more get 503.
        default_max_tokens: bound of an answer whose caller names none (never above the role's).
        concurrent_generations: generations that run at once.
        waiting_generations: requests that may wait for one; more get 503 with ``Retry-After``.
        waiting_seconds: the longest such wait, then 503.
        failed_authentications_per_minute: beyond it, requests with a bad key get 429 and no audit
            entry, so that nobody without a key can fill the audit log.
        lookahead_chars: text of a streamed answer that is held back, so that personal data is
            seen whole before any of it leaves; also the longest entity sure to be seen whole.
        trusted_proxies: networks whose ``X-Forwarded-For`` and ``-Proto`` are believed.
        redis_url: where replicas share rate limits; without it each process counts for itself.
        redis_seconds: time for an answer from there, then 503.
        separate_limits: let several processes count limits each for itself, where they do not share
            them; without it, they refuse to start.
        database_url: PostgreSQL database of audit log, keys and promotions; else files are.
        drain_seconds: time for answers under way to end after SIGTERM.
        log_json: write the log as one JSON object a line.
        tracing: send traces as the variables ``OTEL_…`` say; left out, where they name a collector.
        min_free_disk_mib: with less room for the audit log, the service is not ready.
        tls: certificates of the service and of its clients.
        engine: what answers, and where.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    alias: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$")] = "intramural"
    serve_base_model: bool = False
    max_body_bytes: Annotated[int, Field(ge=1024, le=2**30)] = 2**20
    max_json_depth: Annotated[int, Field(ge=8, le=200)] = 64
    max_header_bytes: Annotated[int, Field(ge=1024, le=2**20)] = 65_536
    header_seconds: Seconds = 10.0
    body_seconds: Seconds = 30.0
    request_seconds: Seconds = 300.0
    stream_seconds: Seconds = 900.0
    write_seconds: Seconds = 30.0
    connections: Annotated[int, Field(ge=1, le=1_000_000)] = 2000
    concurrent_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    default_max_tokens: Annotated[int, Field(ge=1, le=131_072)] = 512
    concurrent_generations: Annotated[int, Field(ge=1, le=1000)] = 8
    waiting_generations: Annotated[int, Field(ge=0, le=100_000)] = 64
    waiting_seconds: Seconds = 60.0
    failed_authentications_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] = 300
    lookahead_chars: Annotated[int, Field(ge=16, le=4096)] = 64
    trusted_proxies: Annotated[
        tuple[Annotated[str, AfterValidator(_network)], ...], BeforeValidator(as_tuple)
    ] = ()
    redis_url: Annotated[SecretStr, Field(strict=False), AfterValidator(_redis)] | None = None
    redis_seconds: Seconds = 1.0
    separate_limits: bool = False
    database_url: Annotated[SecretStr, Field(strict=False), AfterValidator(_database)] | None = None
    drain_seconds: Annotated[float, Field(ge=0, le=86_400)] = 30.0
    log_json: bool = False
    tracing: bool | None = None
    min_free_disk_mib: Annotated[int, Field(ge=0, le=1_000_000)] = 256
    tls: TlsSettings = TlsSettings()
    engine: EngineSettings = EngineSettings()

    def check_workers(self, count: int) -> None:
        """Whether so many processes may count the limits.

        Raises:
            SettingsInvalid: each would count for itself, and nobody said that this is meant.
        """
        if count > 1 and self.redis_url is None and not self.separate_limits:
            fault = (
                f"redis_url: is missing, so each of {count} workers would count rate limits for "
                f"itself and let {count} times as much through; set it, or "
                "separate_limits = true where that is meant"
            )
            raise SettingsInvalid([fault])


class SettingsInvalid(ServiceError):
    """The configuration cannot be used.

    Attributes:
        faults: all that is wrong, by key; no value is repeated.
    """

    def __init__(self, faults: list[str]) -> None:
        self.faults = tuple(faults)
        shown = "; ".join(faults)
        super().__init__(f"the service's configuration has faults: {shown}")


def load_settings(
    file: Path | None = None, environment: Mapping[str, str] | None = None
) -> ServiceSettings:
    """The settings of a TOML file, with those of the environment over them.

    ``INTRAMURAL_SERVICE_MAX_BODY_BYTES`` stands for ``max_body_bytes``; two underscores lead into a
    table, as in ``INTRAMURAL_SERVICE_TLS__KEY``. A value is read as TOML where it is that, else as
    text.

    Args:
        file: may be missing where it is None.
        environment: by default that of the process.

    Raises:
        SettingsInvalid: with every fault of both.
    """
    faults: list[str] = []
    tables: dict[str, Any] = {}
    if file is not None:
        try:
            tables = _read(file)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            faults.append(f"{file}: cannot be read: {reason}")
    origins = _overlay(tables, os.environ if environment is None else environment, faults)
    try:
        settings = ServiceSettings.model_validate(tables)
    except ValidationError as error:
        for details in error.errors(include_url=False, include_input=False):
            key = ".".join(str(part) for part in details["loc"])
            said = details["msg"].removeprefix("Value error, ")
            words = {"extra_forbidden": "is no setting", "missing": "is missing"}
            where = next((origins[each] for each in origins if _related(each, key)), key)
            faults.append(f"{where}: {words.get(details['type'], said)}")
    if faults:
        raise SettingsInvalid(faults)
    return settings


def _related(one: str, other: str) -> bool:
    """Whether one key is the other, or lies in its table."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _read(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        content = opened.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"has more than {_MOST_BYTES} bytes")
    return tomllib.loads(content.decode())


def _overlay(
    tables: dict[str, Any], environment: Mapping[str, str], faults: list[str]
) -> dict[str, str]:
    """Lay the environment's values over the file's; which variable each key came from."""
    origins: dict[str, str] = {}
    for variable in sorted(environment):
        if not variable.startswith(PREFIX):
            continue
        path = variable.removeprefix(PREFIX).lower().split("__")
        table = tables
        for part in path[:-1]:
            inner = table.setdefault(part, {})
            if not isinstance(inner, dict):
                faults.append(f"{variable}: {part} is no table of settings")
                break
            table = inner
        else:
            table[path[-1]] = _value(environment[variable])
            origins[".".join(path)] = variable
    return origins


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text
