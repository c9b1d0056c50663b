"""``GET /metrics`` for Prometheus.

Needs a key whose role has the operation ``metrics`` (Prometheus: ``authorization.credentials_file``).
Being asked from loopback opens nothing, since behind a proxy everybody comes from there. Scrapes
are not audited: they hold no caller's data and would fill the log.
"""

from fastapi import APIRouter, Request, Response

from api.access import operation
from api.metrics import CONTENT_TYPE
from api.services import Services

router = APIRouter()


@router.get(
    "/metrics",
    dependencies=[operation("metrics")],
    response_model=None,
    responses={200: {"content": {"text/plain": {}}}},
)
async def metrics(request: Request) -> Response:
    """The exposition format of Prometheus."""
    return Response(Services.of(request).metrics.text(), media_type=CONTENT_TYPE)
