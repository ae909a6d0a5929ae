"""Puts the HTTP application together. No logic: routes, errors and the life of the models."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress

from fastapi import FastAPI

from api import document, errors, health, metrics, streams
from api.anthropic import messages
from api.gateway import sessions
from api.guard import Guard, expel_revoked
from api.keys import KeyFile
from api.ollama import embeddings as ollama_embeddings
from api.ollama import generation, pull
from api.ollama import models as ollama_models
from api.openai import chat, completions, embeddings, tokens
from api.openai import models as openai_models
from api.openai.responses import create, stored
from api.openai.responses.store import Store
from api.origins import Reach
from api.store.database import Database, temporary
from api.store.errors import StoreFailed
from api.store.sessions import Sessions
from api.tape import Archive
from inference import Models


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

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with nullcontext(database) if database else temporary() as app.state.database:
            app.state.sessions = Sessions(app.state.database)
            with suppress(StoreFailed):  # who only wants answers gets them from a full disk as well
                await app.state.sessions.cut_running()
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
    app.state.archive = Archive()
    app.state.responses = Store()
    errors.install(app)
    app.add_middleware(Guard, reach=reach or Reach(), keys=keys)
    openai = (openai_models, chat, completions, create, stored, embeddings, tokens)
    ollama = (generation, ollama_embeddings, ollama_models, pull)
    rooms = (health, metrics, *openai, messages, *ollama, sessions, streams)
    for room in rooms:
        app.include_router(room.router)
    document.install(app, [operation for room in rooms for operation in room.OPERATIONS])
    return app
