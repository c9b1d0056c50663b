"""How the service behaves, where the policy has no say. Validated once, all faults at once."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ServiceSettings(BaseModel):
    """Bounds and names of one service process.

    Attributes:
        alias: model name by which callers reach the served release without knowing its id.
        serve_base_model: let a model answer that is no verified release.
        max_body_bytes: longest request body; a longer one gets 413.
        body_seconds: time for a body to arrive; a slower one gets 408.
        default_max_tokens: bound of an answer whose caller names none (never above the role's).
        concurrent_generations: generations that run at once; the local engine runs one anyway.
        waiting_generations: requests that may wait for one; more get 503 with ``Retry-After``.
        waiting_seconds: the longest such wait, then 503.
        failed_authentications_per_minute: beyond it, requests with a bad key get 429 and no audit
            entry, so that nobody without a key can fill the audit log.
        lookahead_chars: text of a streamed answer that is held back, so that personal data is
            seen whole before any of it leaves; also the longest entity sure to be seen whole.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    alias: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$")] = "intramural"
    serve_base_model: bool = False
    max_body_bytes: Annotated[int, Field(ge=1024, le=2**30)] = 2**20
    body_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    default_max_tokens: Annotated[int, Field(ge=1, le=131_072)] = 512
    concurrent_generations: Annotated[int, Field(ge=1, le=1000)] = 1
    waiting_generations: Annotated[int, Field(ge=0, le=100_000)] = 32
    waiting_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    failed_authentications_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] = 300
    lookahead_chars: Annotated[int, Field(ge=16, le=4096)] = 64
