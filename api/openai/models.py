"""`GET /v1/models`: the one model that is served, by its name and its aliases."""

from typing import Final, Literal, NotRequired, TypedDict

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from api.document import JSON, Operation
from inference import Pool, PoolStatus, UnknownModel

router = APIRouter()


class Meta(TypedDict):
    architecture: str
    n_vocab: int
    n_params: int
    size: int


class Card(TypedDict):
    """What the worker found in the weights is missing until they are loaded."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    aliases: list[str]
    capabilities: list[str]
    max_model_len: NotRequired[int]
    context_length: NotRequired[int]
    meta: NotRequired[Meta]


class Listing(TypedDict):
    object: Literal["list"]
    data: list[Card]


OPERATIONS: Final = (
    Operation("/v1/models", "The model that is served", {200: {JSON: Listing}}),
    Operation(
        "/v1/models/{name}", "The model under its name or an alias", {200: {JSON: Card}}, (404,)
    ),
)


@router.get("/v1/models")
async def listing(http: Request) -> Response:
    pool: Pool = http.app.state.pool
    return JSONResponse(Listing(object="list", data=[_card(pool.status())]))


@router.get("/v1/models/{name:path}")
async def one(http: Request, name: str) -> Response:
    """The model under its name or an alias; raises `UnknownModel`."""
    pool: Pool = http.app.state.pool
    now = pool.status()
    if name not in (now.name, "default", *now.aliases):
        raise UnknownModel(f"No model of that name is served; this is {now.name}.", "model")
    return JSONResponse(_card(now))


def _card(now: PoolStatus) -> Card:
    card = Card(
        id=now.name,
        object="model",
        created=0,
        owned_by="onebox",
        aliases=list(now.aliases),
        capabilities=now.capabilities,
    )
    if now.info is not None:
        card["max_model_len"] = card["context_length"] = now.info.context
        card["meta"] = Meta(
            architecture=now.info.architecture,
            n_vocab=now.info.vocabulary,
            n_params=now.info.parameters,
            size=now.info.size,
        )
    return card
