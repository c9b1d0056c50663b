"""The routes, in the order in which they are described."""

from api.routes import (
    budgets,
    chat,
    completions,
    docs,
    embeddings,
    health,
    metrics,
    models,
    redact,
    releases,
    responses,
    usage,
)

ROUTERS = tuple(
    room.router
    for room in (
        chat,
        completions,
        responses,
        embeddings,
        models,
        redact,
        releases,
        budgets,
        usage,
        health,
        metrics,
        docs,
    )
)
"""All of them; what is not in it does not exist."""
