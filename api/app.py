"""Puts the HTTP application together. No logic: routes, errors and the pool's life."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from api import document, errors, health, metrics
from api.openai import chat, completions, models
from inference import Pool


def create_app(pool: Pool) -> FastAPI:
    """The HTTP server around `pool`, which it starts and closes with itself."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await pool.start()
        try:
            yield
        finally:
            await pool.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None)
    app.state.pool = pool
    app.state.metrics = metrics.Metrics(pool)
    errors.install(app)
    rooms = (health, metrics, models, chat, completions)
    for room in rooms:
        app.include_router(room.router)
    document.install(app, [room.OPERATIONS for room in rooms])
    return app
