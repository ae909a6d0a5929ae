"""`/api/v1/agents`: agents made, read, changed and deleted.

An agent belongs to the key that made it. One that is shared is for all to use; only who made it, or
an admin, changes it.
"""

from functools import partial
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import Field

from api.body import Word, read, read_object
from api.document import JSON, Operation, Schema, body_schema
from api.errors import NotAdmin
from api.gateway.settings import SettingsBody
from api.json_reply import JsonReply
from api.metrics import Meter
from api.offers import tenant
from api.store.agents import Agents
from api.store.errors import NameTaken
from api.store.records import About, Agent, Settings
from api.streaming import metered
from inference import BadRequest, Models, UnknownModel

NAME: Final = "^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$"
MAX_DESCRIPTION: Final = 1000  # characters
_ALL, _ONE = "/api/v1/agents", "/api/v1/agents/{which}"

router = APIRouter()


class AgentBody(SettingsBody):
    """A whole agent."""

    name: Annotated[str, Field(pattern=NAME)]
    description: Annotated[str, Field(max_length=MAX_DESCRIPTION)] = ""
    model: Word = ""
    shared: bool = False

    def about(self) -> About:
        return About(
            name=self.name,
            description=self.description,
            model=self.model,
            shared=self.shared,
            settings=self.settings(),
        )


class AgentOut(Settings, kw_only=True, frozen=True):
    """An agent as it is told; `mine` if who asks has made it. Settings that it does not say are not
    there."""

    id: str
    name: str
    description: str
    model: str
    shared: bool
    mine: bool
    created: float
    updated: float


class AgentList(msgspec.Struct):
    agents: list[AgentOut]


@router.get(_ALL)
async def listing(http: Request) -> Response:
    agents: Agents = http.app.state.agents
    mine = tenant(http)
    return JsonReply(AgentList([_out(agent, mine) for agent in agents.listed(mine)]))


@router.post(_ALL)
async def create(http: Request) -> Response:
    async def reply(meter: Meter) -> Response:
        agents: Agents = http.app.state.agents
        about = _understand(http, await read_object(http, meter.hold))
        agent = await agents.create(tenant(http), about)
        meter.end(201)
        return JsonReply(_out(agent, tenant(http)), 201)

    return await metered(http, "agents", reply)


@router.get(_ONE)
async def one(http: Request, which: str) -> Response:
    """An agent under its id or its name; raises `UnknownAgent`."""
    agents: Agents = http.app.state.agents
    return JsonReply(_out(agents.find(tenant(http), which), tenant(http)))


@router.put(_ONE)
async def replace(http: Request, which: str) -> Response:
    return await _changed(http, which, whole=True)


@router.patch(_ONE)
async def change(http: Request, which: str) -> Response:
    """What is null is not said any more."""
    return await _changed(http, which, whole=False)


@router.delete(_ONE)
async def delete(http: Request, which: str) -> Response:
    """Raises `UnknownAgent` and `NotAdmin`."""
    agents: Agents = http.app.state.agents
    await agents.delete(_to_change(http, which))
    return Response(status_code=204)


async def _changed(http: Request, which: str, *, whole: bool) -> Response:
    async def reply(meter: Meter) -> Response:
        agents: Agents = http.app.state.agents
        raw = await read_object(http, meter.hold)

        def said(before: Agent) -> About:
            return _understand(http, raw if whole else _as_written(before) | raw)

        agent = await agents.change(_to_change(http, which), said)
        meter.end(200)
        return JsonReply(_out(agent, tenant(http)))

    return await metered(http, "agents", reply)


def _to_change(http: Request, which: str) -> Agent:
    agents: Agents = http.app.state.agents
    agent = agents.find(tenant(http), which)
    if agent.tenant != tenant(http) and not http.state.admin:
        raise NotAdmin("This agent was made with another key; to change it takes an admin's.")
    return agent


def _understand(http: Request, raw: dict[str, Any]) -> About:
    """Raises BadRequest, NameTaken and NotAdmin."""
    about = read(AgentBody, raw, {}).about()
    models: Models = http.app.state.models
    if _means(models, about.name):
        raise NameTaken(f"{about.name} is the name of a model here.", "name")
    if not _means(models, about.model):
        raise BadRequest("model: there is no model of that name.", "model")
    if about.shared and not http.state.admin:
        raise NotAdmin("To share an agent takes an API key with the scope admin.", "shared")
    return about


def _means(models: Models, name: str) -> bool:
    try:
        models.status(name)
    except UnknownModel:
        return False
    return True


def _as_written(agent: Agent) -> dict[str, Any]:
    """The body that would make an agent as it is."""
    settings: dict[str, Any] = msgspec.to_builtins(agent.settings)
    said = {name: getattr(agent, name) for name in ("name", "description", "model", "shared")}
    return settings | said


def _out(agent: Agent, tenant: str) -> AgentOut:
    settings = {name: getattr(agent.settings, name) for name in Settings.__struct_fields__}
    return AgentOut(
        **settings,
        id=agent.id,
        name=agent.name,
        description=agent.description,
        model=agent.model,
        shared=agent.shared,
        mine=agent.tenant == tenant,
        created=agent.created,
        updated=agent.updated,
    )


def _changes() -> Schema:
    """The JSON schema of a part of an agent."""
    schema = body_schema(AgentBody, {})
    del schema["required"]
    return schema


_REFUSALS: Final = (400, 403, 408, 409, 413, 429, 503)
OPERATIONS: Final = (
    Operation(_ALL, "The agents that can be named as a model", {200: {JSON: AgentList}}),
    Operation(
        _ALL,
        "An agent is made",
        {201: {JSON: AgentOut}},
        _REFUSALS,
        partial(body_schema, AgentBody, {}),
        methods=("post",),
    ),
    Operation(_ONE, "An agent under its id or its name", {200: {JSON: AgentOut}}, (404,)),
    Operation(
        _ONE,
        "An agent is another from now on",
        {200: {JSON: AgentOut}},
        (404, *_REFUSALS),
        partial(body_schema, AgentBody, {}),
        methods=("put",),
    ),
    Operation(
        _ONE,
        "Some of an agent is changed; null takes away",
        {200: {JSON: AgentOut}},
        (404, *_REFUSALS),
        _changes,
        methods=("patch",),
    ),
    Operation(_ONE, "An agent is deleted", {204: {}}, (404, 503), methods=("delete",)),
)
