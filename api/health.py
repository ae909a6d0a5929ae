"""Whether the process lives and whether it can serve; neither needs a key or touches the model."""

from typing import Final, NotRequired, TypedDict

from fastapi import APIRouter, Request, Response

from api.document import JSON, Operation
from api.json_reply import JsonReply
from inference import Models

router = APIRouter()


class Life(TypedDict):
    status: str


class Readiness(TypedDict):
    status: str
    detail: NotRequired[str]
    model: NotRequired[str]


_READ: Final = ("get", "head")

OPERATIONS: Final = (
    Operation("/health", "The process lives", {200: {JSON: Life}}, methods=_READ),
    Operation(
        "/ready",
        "Whether a request would be taken now; why not, for those who may know",
        {200: {JSON: Readiness}, 503: {JSON: Readiness}},
        methods=_READ,
    ),
)


@router.api_route("/health", methods=["GET", "HEAD"])
async def health() -> Response:
    """200 as long as the process can answer at all: do not restart it."""
    return JsonReply(Life(status="ok"))


@router.api_route("/ready", methods=["GET", "HEAD"])
async def ready(http: Request) -> Response:
    """200 if a request would be taken now, else 503; who has no key learns no reason."""
    models: Models = http.app.state.models
    now = models.status()
    body = Readiness(status=now.state)
    if http.state.trusted:
        body |= Readiness(status=now.state, detail=now.detail, model=now.name)
    return JsonReply(body, 200 if models.ready else 503)
