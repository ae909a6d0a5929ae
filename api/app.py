"""Puts the HTTP application together. No logic: routes, errors and the life of the models."""

import asyncio
import shutil
import tempfile
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from api import document, errors, health, metrics, streams
from api.admission import Admission
from api.anthropic import messages
from api.gateway import login
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
from api.page import routes as page
from api.sockets import Sockets
from api.store.database import Database
from api.store.logins import Logins
from api.tape import Archive
from inference import Models


def create_app(
    models: Models,
    reach: Reach | None = None,
    keys: KeyFile | None = None,
    database: Database | None = None,
) -> FastAPI:
    """The HTTP server around `models`, which it starts and closes with itself, as `database`.

    Without `reach` it goes by the names of loopback, without `keys` it asks for none, and without a
    `database` it forgets everything when it ends.
    """
    database = database or _temporary()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await app.state.logins.load()
        await models.start()
        expelling = expel_revoked(keys, models, app.state.sockets) if keys else None
        watching = asyncio.create_task(expelling) if expelling else None
        try:
            yield
        finally:
            if watching:
                watching.cancel()
            app.state.archive.close()
            await models.close()
            database.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    app.state.models = models
    app.state.metrics = metrics.Metrics(models)
    app.state.archive = Archive()
    app.state.responses = Store()
    app.state.database = database
    app.state.logins = Logins(database)
    app.state.sockets = Sockets()
    app.state.admission = Admission(keys, app.state.logins)
    errors.install(app)
    app.add_middleware(
        Guard,
        reach=reach or Reach(),
        admission=app.state.admission,
        sockets=app.state.sockets,
    )
    openai = (openai_models, chat, completions, create, stored, embeddings, tokens)
    ollama = (generation, ollama_embeddings, ollama_models, pull)
    rooms = (health, metrics, *openai, messages, *ollama, streams, page, login)
    for room in rooms:
        app.include_router(room.router)
    document.install(app, [operation for room in rooms for operation in room.OPERATIONS])
    return app


def _temporary() -> Database:
    """One that is gone as soon as nobody has it any more."""
    folder = Path(tempfile.mkdtemp(prefix="onebox-"))
    database = Database(folder / "onebox.db")
    weakref.finalize(database, shutil.rmtree, folder, ignore_errors=True)
    return database
