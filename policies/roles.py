"""Roles: what the holder of a credential may do in the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, StringConstraints

from policies.pii import PiiRules, RolePii
from policies.section import Distinct, Phrase, Section

Operation = Literal[
    "chat",
    "completions",
    "embeddings",
    "classify",
    "models",
    "redact",
    "restore",
    "usage",
    "budgets",
    "releases",
    "audit",
    "metrics",
    "keys",
]
"""What a principal can ask of the service. No operation reads another principal's prompts."""

OPERATIONS: tuple[Operation, ...] = get_args(Operation)

Retention = Literal["digests", "counts"]
"""What an audit entry keeps of texts: keyed digests beside the counts, or the counts alone."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}\z")]
Requests = Annotated[int, Field(ge=1, le=1_000_000)]
Tokens = Annotated[int, Field(ge=1, le=1_000_000_000)]
Together = Annotated[int, Field(ge=1, le=100_000)]


class RolePolicy(Section):
    """What the holder of a credential with this role may do.

    `releases` are shell-style patterns over release ids (`fnmatch.fnmatchcase`); they do not
    concern the public base model. `max_tokens` bounds the tokens of one answer, `max_context` those
    of prompt and answer together. Rates count for each credential by itself. `pii` changes what
    happens to personal data in the prompts and answers of this role. A sealed map that `/v1/redact`
    gave out opens for `restore_minutes`.
    """

    operations: Annotated[tuple[Operation, ...], *Distinct]
    releases: Annotated[tuple[Phrase, ...], *Distinct] = ("*",)
    requests_per_minute: Requests = 60
    tokens_per_minute: Tokens | None = None
    concurrent_requests: Together = 32
    max_tokens: Annotated[int, Field(ge=1, le=131_072)] = 1024
    max_context: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    restore_minutes: Annotated[int, Field(ge=1, le=525_600)] = 60
    retention: Retention = "digests"
    pii: RolePii = RolePii()

    def tables(self, name: str) -> dict[str, PiiRules]:
        """The rules of the role `name` by the key of their table."""
        prefix = f"roles.{name}.pii"
        return {
            prefix: self.pii,
            f"{prefix}.prompt": self.pii.prompt,
            f"{prefix}.answer": self.pii.answer,
        }


DEFAULT_ROLES: Mapping[str, RolePolicy] = {
    "app": RolePolicy(
        operations=(
            "chat",
            "completions",
            "embeddings",
            "classify",
            "models",
            "redact",
            "restore",
            "usage",
        )
    ),
    "node": RolePolicy(operations=("models",)),
    "compliance": RolePolicy(
        operations=("budgets", "releases", "audit", "metrics", "models", "usage")
    ),
    "admin": RolePolicy(operations=OPERATIONS),
}
"""Least privilege: a role that the file does not name keeps these grants."""


def with_default_roles(given: object) -> object:
    """Lay the file's roles over the defaults, key by key."""
    if not isinstance(given, Mapping):
        return given
    merged: dict[Any, object] = dict(DEFAULT_ROLES)
    for name, role in given.items():
        if name in DEFAULT_ROLES and isinstance(role, Mapping):
            merged[name] = {**dict(DEFAULT_ROLES[name]), **role}
        else:
            merged[name] = role
    return merged
