"""`GET /v1/models`: the model that is served, what can be loaded beside it, and agents."""

from typing import Final, Literal, NotRequired, TypedDict

from fastapi import APIRouter, Request, Response

from api.document import JSON, Operation
from api.json_reply import JsonReply
from api.offers import agent_of, agents_on
from api.store.records import Agent
from inference import Models, PoolStatus

router = APIRouter()


class Meta(TypedDict):
    architecture: str
    n_vocab: int
    n_params: int
    size: int


class Card(TypedDict):
    """What the worker found in the weights is missing until they are loaded; `state` says whether
    they are ("ready"), or that the first request loads them ("unloaded"). An `agent` has what is
    told of its model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    aliases: list[str]
    state: str
    capabilities: list[str]
    agent: NotRequired[bool]
    max_model_len: NotRequired[int]
    context_length: NotRequired[int]
    meta: NotRequired[Meta]


class Listing(TypedDict):
    object: Literal["list"]
    data: list[Card]


OPERATIONS: Final = (
    Operation("/v1/models", "The models that can be asked", {200: {JSON: Listing}}),
    Operation(
        "/v1/models/{name}",
        "A model under its name or an alias, or an agent",
        {200: {JSON: Card}},
        (404,),
    ),
)


@router.get("/v1/models")
async def listing(http: Request) -> Response:
    models: Models = http.app.state.models
    there = await models.listing()
    agents = [_agent_card(*found) for found in agents_on(http, there)]
    return JsonReply(Listing(object="list", data=[*map(_card, there), *agents]))


@router.get("/v1/models/{name:path}")
async def one(http: Request, name: str) -> Response:
    """A model under its name or an alias, or an agent; raises `UnknownModel`."""
    models: Models = http.app.state.models
    if agent := agent_of(http, name):
        return JsonReply(_agent_card(agent, await models.installed(agent.model or None)))
    return JsonReply(_card(await models.installed(name)))


def _agent_card(agent: Agent, now: PoolStatus) -> Card:
    card = _card(now)
    card["id"], card["aliases"], card["agent"] = agent.name, [], True
    card["created"], card["owned_by"] = int(agent.created), "agent"
    return card


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
