"""Puts the HTTP application together. No logic: routes, errors and the life of the models."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from api import document, errors, health, metrics, streams
from api.anthropic import messages
from api.gateway import health as gateway_health
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
from api.page import routes as page
from api.tape import Archive
from inference import Models


def create_app(models: Models, reach: Reach | None = None, keys: KeyFile | None = None) -> FastAPI:
    """The HTTP server around `models`, which it starts and closes with itself.

    Without `reach` it goes by the names of loopback, without `keys` it asks for none.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with app.state.log.attached():
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
    gateway = (gateway_health, operator)
    rooms = (health, page, metrics, *openai, messages, *ollama, streams, *gateway)
    for room in rooms:
        app.include_router(room.router)
    document.install(app, [operation for room in rooms for operation in room.OPERATIONS])
    return app
