"""Puts the HTTP application together. No logic: routes, errors and the life of what they use."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from functools import partial

from fastapi import FastAPI
from starlette.datastructures import State

from api import document, errors, health, metrics, streams
from api.admission import Admission
from api.anthropic import messages
from api.gateway import agents as gateway_agents
from api.gateway import chat as gateway_chat
from api.gateway import health as gateway_health
from api.gateway import login, operator, sessions, websocket
from api.gateway import models as gateway_models
from api.gateway.machine import Machine
from api.gateway.turns import Turns
from api.guard import Guard, expel_revoked
from api.keys import KeyFile
from api.log_tail import LogTail
from api.ollama import embeddings as ollama_embeddings
from api.ollama import generation, pull
from api.ollama import models as ollama_models
from api.openai import chat, completions, embeddings, tokens
from api.openai import models as openai_models
from api.openai.responses import create, stored
from api.openai.responses.store import Store
from api.origins import Reach
from api.page import routes as page
from api.sockets import Sockets
from api.store.agents import Agents
from api.store.database import Database, temporary
from api.store.logins import Logins
from api.store.sessions import Sessions
from api.tape import Archive
from inference import Models

_OPENAI = (openai_models, chat, completions, create, stored, embeddings, tokens)
_OLLAMA = (generation, ollama_embeddings, ollama_models, pull)
_PLATFORM = (gateway_chat, gateway_models, gateway_agents, sessions)
_GATEWAY = (*_PLATFORM, login, gateway_health, operator)
_ROOMS = (health, page, metrics, *_OPENAI, messages, *_OLLAMA, streams, *_GATEWAY)


def create_app(
    models: Models,
    reach: Reach | None = None,
    keys: KeyFile | None = None,
    database: Database | None = None,
) -> FastAPI:
    """The HTTP server around `models`, which it starts and closes with itself.

    Without `reach` it goes by the names of loopback, without `keys` it asks for none. What is in a
    `database` stays, which is its owner's to close; without one there is one as long as the server.
    """

    lifespan = partial(_living, keys=keys, database=database)
    app = FastAPI(lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    app.state.models = models
    app.state.metrics = metrics.Metrics(models)
    app.state.machine = Machine()
    app.state.log = LogTail()
    app.state.archive = Archive()
    app.state.responses = Store()
    app.state.sockets = Sockets()
    app.state.admission = Admission(keys)
    errors.install(app)
    app.add_middleware(
        Guard,
        reach=reach or Reach(),
        admission=app.state.admission,
        sockets=app.state.sockets,
    )
    for room in (*_ROOMS, websocket):
        app.include_router(room.router)
    document.install(app, [operation for room in _ROOMS for operation in room.OPERATIONS])
    return app


@asynccontextmanager
async def _living(
    app: FastAPI, *, keys: KeyFile | None, database: Database | None
) -> AsyncIterator[None]:
    """From the start of the server to its end: answers are stored before the database is gone."""
    state = app.state
    kept = nullcontext(database) if database else temporary()
    with kept as opened, state.log.attached():
        await _open(state, opened)
        await state.models.start()
        expelling = expel_revoked(keys, state.models, state.sockets) if keys else None
        watching = asyncio.create_task(expelling) if expelling else None
        try:
            yield
        finally:
            if watching:
                watching.cancel()
            state.archive.close()
            await state.models.close()
            await state.turns.close()


async def _open(state: State, database: Database) -> None:
    """What is kept in `database`, as it was left."""
    state.logins = state.admission.logins = Logins(database)
    state.agents = Agents(database)
    state.sessions = Sessions(database)
    state.turns = Turns(state.models, state.sessions, state.agents)
    await state.logins.open()
    await state.agents.open()
