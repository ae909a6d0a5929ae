"""`GET /v1/models`: the model that is served, and what can be loaded beside it."""

from typing import Final, Literal, NotRequired, TypedDict

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from api.document import JSON, Operation
from inference import Models, PoolStatus

router = APIRouter()


class Meta(TypedDict):
    architecture: str
    n_vocab: int
    n_params: int
    size: int


class Card(TypedDict):
    """What the worker found in the weights is missing until they are loaded; `state` says whether
    they are ("ready"), or that the first request loads them ("unloaded")."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    aliases: list[str]
    state: str
    capabilities: list[str]
    max_model_len: NotRequired[int]
    context_length: NotRequired[int]
    meta: NotRequired[Meta]


class Listing(TypedDict):
    object: Literal["list"]
    data: list[Card]


OPERATIONS: Final = (
    Operation("/v1/models", "The models that can be asked", {200: {JSON: Listing}}),
    Operation(
        "/v1/models/{name}", "A model under its name or an alias", {200: {JSON: Card}}, (404,)
    ),
)


@router.get("/v1/models")
async def listing(http: Request) -> Response:
    models: Models = http.app.state.models
    return JSONResponse(Listing(object="list", data=[*map(_card, await models.listing())]))


@router.get("/v1/models/{name:path}")
async def one(http: Request, name: str) -> Response:
    """A model under its name or an alias; raises `UnknownModel`."""
    models: Models = http.app.state.models
    return JSONResponse(_card(await models.installed(name)))


def _card(now: PoolStatus) -> Card:
    card = Card(
        id=now.name,
        object="model",
        created=0,
        owned_by="onebox",
        aliases=list(now.aliases),
        state=now.state,
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
