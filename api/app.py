"""Puts the HTTP application together. No logic: routes, errors and the life of the models."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from fastapi import FastAPI

from api import document, errors, health, metrics, streams
from api.anthropic import messages
from api.gateway import agents as gateway_agents
from api.gateway import health as gateway_health
from api.gateway import models as gateway_models
from api.gateway import operator
from api.gateway.machine import Machine
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
from api.store.agents import Agents
from api.store.database import Database
from api.tape import Archive
from inference import Models


def create_app(
    models: Models,
    reach: Reach | None = None,
    keys: KeyFile | None = None,
    database: Database | None = None,
) -> FastAPI:
    """The HTTP server around `models`, which it starts and closes with itself.

    Without `reach` it goes by the names of loopback, without `keys` it asks for none, and without
    `database` it keeps nothing; it closes that as well.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with app.state.log.attached(), _kept(database) as app.state.database:
            app.state.agents = Agents(app.state.database)
            await app.state.agents.open()
            await models.start()
            watching = asyncio.create_task(expel_revoked(models, keys)) if keys else None
            try:
                yield
            finally:
                if watching:
                    watching.cancel()
                app.state.archive.close()
                await models.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    app.state.models = models
    app.state.metrics = metrics.Metrics(models)
    app.state.machine = Machine()
    app.state.log = LogTail()
    app.state.archive = Archive()
    app.state.responses = Store()
    errors.install(app)
    app.add_middleware(Guard, reach=reach or Reach(), keys=keys)
    openai = (openai_models, chat, completions, create, stored, embeddings, tokens)
    ollama = (generation, ollama_embeddings, ollama_models, pull)
    gateway = (gateway_agents, gateway_models, gateway_health, operator)
    rooms = (health, metrics, *openai, messages, *ollama, streams, *gateway)
    for room in rooms:
        app.include_router(room.router)
    document.install(app, [operation for room in rooms for operation in room.OPERATIONS])
    return app


@contextmanager
def _kept(database: Database | None) -> Iterator[Database]:
    """`database`, or one that goes with the server."""
    with (
        TemporaryDirectory(prefix="onebox-") as folder,
        closing(database or Database(Path(folder) / "onebox.db")) as kept,
    ):
        yield kept
