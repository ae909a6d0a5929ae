"""Whether the process lives and whether it can serve; neither needs a key or touches the model."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from inference import Pool

router = APIRouter()


@router.api_route("/", methods=["GET", "HEAD"])
async def root() -> Response:
    return PlainTextResponse("Onebox is running; the API is under /v1.\n")


@router.api_route("/health", methods=["GET", "HEAD"])
async def health() -> Response:
    """200 as long as the process can answer at all: do not restart it."""
    return JSONResponse({"status": "ok"})


@router.api_route("/ready", methods=["GET", "HEAD"])
async def ready(http: Request) -> Response:
    """200 if a request would be taken now, else 503; who has no key learns no reason."""
    pool: Pool = http.app.state.pool
    now = pool.status()
    body: dict[str, str] = {"status": now.state}
    if http.state.trusted:
        body |= {"detail": now.detail, "model": now.name}
    return JSONResponse(body, 200 if pool.ready else 503)
