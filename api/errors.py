"""What the service raises on purpose. An error of one module alone stands there, under this root.

::

    ServiceError
    ├── EngineError               the engine could not answer
    │   ├── UnknownModel          it serves no model of this name
    │   └── ContextTooLong        prompt and answer do not fit into the model's context
    ├── InvalidCredential         a credential that opens nothing (reason: for the audit log only)
    │   └── InvalidKey            an API key that opens nothing
    ├── KeyRequestInvalid         a key cannot be created or revoked as asked
    └── HttpError                 an answer in OpenAI's error shape; the one place with HTTP codes

Messages name fields, kinds and bounds. They never hold what a caller sent.
"""

from collections.abc import Mapping
from typing import Any


class ServiceError(Exception):
    """Root of the tree."""


class EngineError(ServiceError):
    """The engine could not answer; its text holds no prompt."""


class UnknownModel(EngineError):
    """The engine serves no model of the name asked for."""


class ContextTooLong(EngineError):
    """Prompt and answer do not fit into the model's context.

    Attributes:
        prompt_tokens: tokens of the prompt, as the model counts them.
        max_tokens: tokens asked for as the answer.
        limit: tokens of the whole context.
    """

    def __init__(self, prompt_tokens: int, max_tokens: int, limit: int) -> None:
        super().__init__(
            f"prompt_tokens={prompt_tokens} and max_tokens={max_tokens} together exceed "
            f"the context of {limit} tokens"
        )
        self.prompt_tokens = prompt_tokens
        self.max_tokens = max_tokens
        self.limit = limit


class InvalidCredential(ServiceError):
    """A key, token or certificate that opens nothing.

    Attributes:
        outcome: what the audit log says; every caller gets the same answer.
        key_id: the public id where a key of the store was shown, else ``""``.
    """

    def __init__(self, outcome: str, key_id: str = "") -> None:
        super().__init__(f"credential refused: {outcome}")
        self.outcome = outcome
        self.key_id = key_id


class InvalidKey(InvalidCredential):
    """An API key that opens nothing.

    Attributes:
        reason: ``missing``, ``malformed``, ``unknown``, ``revoked``, ``expired`` or ``origin`` (not
            from this network).
    """

    def __init__(self, reason: str, key_id: str = "") -> None:
        super().__init__(f"key_{reason}", key_id)
        self.reason = reason


class KeyRequestInvalid(ServiceError):
    """A key cannot be created or revoked as asked."""


class HttpError(ServiceError):
    """An answer in OpenAI's error shape.

    Attributes:
        status: the HTTP status.
        kind: OpenAI's ``error.type``.
        code: OpenAI's ``error.code``; also the outcome in the audit entry.
        param: the field at fault, or ``None``.
        headers: further headers, such as ``Retry-After``.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }


def invalid_request(message: str, *, code: str, param: str | None = None) -> HttpError:
    """400: the caller can mend the request."""
    return HttpError(400, message, kind="invalid_request_error", code=code, param=param)


def unauthenticated() -> HttpError:
    """401, the same words whatever is wrong with the key or token."""
    return HttpError(
        401,
        "this request needs a valid API key or token: send it as `Authorization: Bearer ...`",
        kind="authentication_error",
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )


def permission_denied(message: str, *, code: str = "permission_denied") -> HttpError:
    """403: the policy does not allow it."""
    return HttpError(403, message, kind="permission_error", code=code)


def not_found(message: str, *, code: str = "not_found", param: str | None = None) -> HttpError:
    """404."""
    return HttpError(404, message, kind="invalid_request_error", code=code, param=param)


def too_many_requests(
    message: str, *, retry_after: int, code: str = "rate_limit_exceeded"
) -> HttpError:
    """429, with the seconds after which a new attempt can succeed."""
    return HttpError(
        429,
        message,
        kind="rate_limit_error",
        code=code,
        headers={"Retry-After": str(retry_after)},
    )


def unavailable(message: str, *, code: str, retry_after: int | None = None) -> HttpError:
    """503: something that the answer depends on is missing, so there is none."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return HttpError(503, message, kind="service_unavailable", code=code, headers=headers)


def shutting_down() -> HttpError:
    """503: the service ends; five seconds from now another one should be there."""
    return unavailable(
        "the service is shutting down; another replica, or its successor, answers",
        code="shutting_down",
        retry_after=5,
    )


def internal_error() -> HttpError:
    """500; what happened is in the operator's log under the request id."""
    return HttpError(
        500,
        "the service failed to answer; its operator finds the cause under the x-request-id",
        kind="server_error",
        code="internal_error",
    )
