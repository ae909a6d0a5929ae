"""`/v1/streams/{id}`: streams that were asked for as resumable, for who lost the connection."""

from typing import Any, Final

from fastapi import APIRouter, Request, Response

from api.dialect import EVENTS
from api.document import Operation
from api.errors import error_response
from api.streaming import event_number, recorded, replay
from inference import InferenceError

router = APIRouter()

OPERATIONS: Final = (
    Operation(
        "/v1/streams/{id}",
        "The rest of a resumable stream, as the endpoint that began it writes it",
        {200: {EVENTS: Any}},
        (400, 404, 410),
        headers=("Last-Event-ID",),
        queries=("starting_after",),
    ),
    Operation("/v1/streams/{id}", "End a stream", {204: {}}, (404,), methods=("delete",)),
)


@router.get("/v1/streams/{id}")
async def read(http: Request, id: str) -> Response:
    """The events after that of `Last-Event-ID` or number `starting_after`; all without either."""
    last = http.headers.get("last-event-id") or http.query_params.get("starting_after", "0")
    try:
        return replay(http, id, event_number(last.removeprefix(f"{id}:")))
    except InferenceError as error:
        return error_response(error)


@router.delete("/v1/streams/{id}")
async def cancel(http: Request, id: str) -> Response:
    """End a stream in the model, and forget it."""
    try:
        http.app.state.archive.cancel(recorded(http, id))
    except InferenceError as error:
        return error_response(error)
    return Response(status_code=204)
