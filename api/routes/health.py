"""``/healthz`` (the process answers) and ``/readyz`` (it could answer an application). Open to all.

Both tell yes or no and what is missing, no figures and no names.
"""

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from api.services import Services

router = APIRouter()


@router.get("/healthz", response_model=None)
async def healthz() -> dict[str, str]:
    """The process runs."""
    return {"status": "ok"}


@router.get("/readyz", response_model=None, responses={503: {}})
async def readyz(request: Request) -> Response:
    """Engine, audit log and release are in order; 503 names those that are not."""
    services = Services.of(request)
    checks = await to_thread.run_sync(services.readiness)
    ready = all(checks.values())
    body = {
        "status": "ready" if ready else "not_ready",
        "checks": {name: "ok" if well else "failed" for name, well in checks.items()},
    }
    return JSONResponse(body, status_code=200 if ready else 503)
