"""Which engine answers, and how it is reached. Part of the service's settings."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)

_CONFIG = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)
_Name = Annotated[str, Field(min_length=1, max_length=200)]
Seconds = Annotated[float, Field(gt=0, le=3600)]


def as_tuple(value: object) -> object:
    """A list of TOML as the tuple that strict settings want."""
    return tuple(value) if isinstance(value, list) else value


def _base_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be like https://models.example.org:8000")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must have no user, query or fragment; the key is a setting of its own")
    return value.rstrip("/").removesuffix("/v1")


def private(address: str) -> bool:
    """Whether an IP address belongs to no public host: private, loopback, link-local and the like."""
    found = ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    return not (mapped or found).is_global


class LocalSettings(BaseModel):
    """The engine in this process.

    Attributes:
        batch: answers that are decoded together.
        batch_tokens: bound of the tokens that one batch may come to, prompts and answers with
            padding; it bounds the memory of the key-value cache.
        dtype: of the weights while serving; ``int8``, on CPUs, is for linear layers, and costs
            some quality.
        device: a torch device, such as ``cpu`` or ``cuda``.
        adapters: ``merged`` adds a release's adapter to the weights, so that an answer costs what
            the base model costs; ``apart`` computes it beside them, so that every further release
            takes the memory of its adapter only.
        threads: of torch; 0 leaves torch's choice.
    """

    model_config = _CONFIG

    batch: Annotated[int, Field(ge=1, le=512)] = 8
    batch_tokens: Annotated[int, Field(ge=256, le=2**24)] = 16_384
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d{1,2})?)$")] = "cpu"
    adapters: Literal["merged", "apart"] = "merged"
    threads: Annotated[int, Field(ge=0, le=1024)] = 0

    @model_validator(mode="after")
    def _eight_bits_on_cpus(self) -> Self:
        if self.dtype == "int8" and self.device != "cpu":
            raise ValueError(f"dtype int8 is for device cpu, not {self.device}: set bfloat16")
        return self


class UpstreamSettings(BaseModel):
    """An OpenAI-compatible server, or several that serve the same models.

    Attributes:
        urls: base URLs of the replicas, without ``/v1``.
        models: name that the server has for each model id of ours; with ``lora``, releases need none.
        api_key: sent as bearer token.
        kind: ``vllm`` asks for usage along a stream; ``openai`` keeps to OpenAI's fields.
        lora: load releases into the servers at run time (vLLM with
            ``VLLM_ALLOW_RUNTIME_LORA_UPDATING=1``).
        lora_folder: where the servers see the workspace's ``releases`` folder.
        allow_private: let the URLs lead to loopback, private and link-local addresses.
        context_length: tokens of the models' context; 0 leaves the bound to the server.
        connect_seconds: time for a connection.
        read_seconds: longest silence of a server, also before its first byte.
        attempts: the most times that a request is sent; only after it was certainly not begun.
        wait_seconds: the longest ``Retry-After`` that is waited for.
        failures: this many in a row take a replica out (circuit breaker) ...
        rest_seconds: ... for so long; then one request tries it.
        check_seconds: time between health checks.
        connections: open at once, over all replicas.
    """

    model_config = _CONFIG

    urls: Annotated[
        tuple[Annotated[str, AfterValidator(_base_url)], ...],
        BeforeValidator(as_tuple),
        Field(min_length=1, max_length=64),
    ]
    models: dict[_Name, _Name] = Field(default_factory=dict)
    api_key: Annotated[SecretStr, Field(strict=False)] | None = None
    kind: Literal["openai", "vllm"] = "openai"
    lora: bool = False
    lora_folder: str = ""
    allow_private: bool = False
    context_length: Annotated[int, Field(ge=0, le=2**24)] = 0
    connect_seconds: Seconds = 5.0
    read_seconds: Seconds = 60.0
    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    wait_seconds: Annotated[float, Field(ge=0, le=60)] = 2.0
    failures: Annotated[int, Field(ge=1, le=1000)] = 5
    rest_seconds: Seconds = 10.0
    check_seconds: Seconds = 5.0
    connections: Annotated[int, Field(ge=1, le=100_000)] = 1000

    def path_of(self, release_folder: Path) -> str:
        """Where the servers see the folder of a release."""
        if not self.lora_folder:
            return str(release_folder.resolve())
        return f"{self.lora_folder.rstrip('/')}/{release_folder.name}"


class EngineSettings(BaseModel):
    """``upstream``, where it is given, answers instead of the engine in this process."""

    model_config = _CONFIG

    local: LocalSettings = LocalSettings()
    upstream: UpstreamSettings | None = None
