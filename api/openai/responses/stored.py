"""`/v1/responses/{id}`: responses that were stored, read again or deleted."""

from typing import Final

import msgspec
from fastapi import APIRouter, Request, Response

from api.document import JSON, Operation
from api.json_reply import JsonReply
from api.openai.responses.store import Kept, Store
from api.openai.responses.wire import Deleted, ItemList, ResponseOut
from inference import BadRequest

_MOST: Final = 100  # items of a page

router = APIRouter()

OPERATIONS: Final = (
    Operation(
        "/v1/responses/{id}",
        "A response that was stored",
        {200: {JSON: ResponseOut}},
        (400, 404),
        queries=("stream",),
    ),
    Operation(
        "/v1/responses/{id}",
        "Delete a response",
        {200: {JSON: Deleted}},
        (404,),
        methods=("delete",),
    ),
    Operation(
        "/v1/responses/{id}/input_items",
        "What a response answered, a page of it",
        {200: {JSON: ItemList}},
        (400, 404),
        queries=("limit", "order", "after"),
    ),
    Operation(
        "/v1/responses/{id}/cancel",
        "Cancel a response in the background; there are none",
        {},
        (400, 404),
        methods=("post",),
    ),
)


@router.get("/v1/responses/{id}")
async def retrieve(http: Request, id: str) -> Response:
    """Raises `UnknownResponse`."""
    kept = _found(http, id)
    if http.query_params.get("stream", "false").lower() != "false":
        raise BadRequest("stream: a stored response is not streamed again.", "stream")
    return Response(kept.response, media_type=JSON)


@router.delete("/v1/responses/{id}")
async def delete(http: Request, id: str) -> Response:
    """Raises `UnknownResponse`. What went on from it has all that it needs."""
    store: Store = http.app.state.responses
    store.forget(http.state.tenant, id)
    return JsonReply(Deleted(id))


@router.get("/v1/responses/{id}/input_items")
async def input_items(http: Request, id: str) -> Response:
    """Raises `UnknownResponse`, and `BadRequest` naming the parameter that is wrong."""
    kept = _found(http, id)
    query = http.query_params
    limit = query.get("limit", "20")
    if not (limit.isascii() and limit.isdecimal() and len(limit) < 4 and 0 < int(limit) <= _MOST):
        raise BadRequest(f"limit: Input should be from 1 to {_MOST}.", "limit")
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise BadRequest("order: Input should be asc or desc.", "order")
    return JsonReply(_page(kept, int(limit), order == "desc", query.get("after")))


@router.post("/v1/responses/{id}/cancel")
async def cancel(http: Request, id: str) -> Response:
    """Raises `UnknownResponse`, or else `BadRequest`."""
    _found(http, id)
    raise BadRequest("Only a response in the background can be cancelled; this one has ended.")


def _page(kept: Kept, limit: int, backwards: bool, after: str | None) -> ItemList:
    """Raises `BadRequest`."""
    ids = list(kept.items)[: kept.inputs]
    if backwards:
        ids.reverse()
    if after is not None and after not in ids:
        raise BadRequest("after: there is no such item.", "after")
    start = 0 if after is None else ids.index(after) + 1
    shown = ids[start : start + limit]
    return ItemList(
        data=[msgspec.Raw(kept.items[id]) for id in shown],
        first_id=shown[0] if shown else None,
        last_id=shown[-1] if shown else None,
        has_more=start + limit < len(ids),
    )


def _found(http: Request, id: str) -> Kept:
    store: Store = http.app.state.responses
    return store.find(http.state.tenant, id)
