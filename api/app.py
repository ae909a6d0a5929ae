"""Puts the HTTP application together. No logic: routes, errors and the pool's life."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from api import errors, health, metrics, streams
from api.openai import chat, completions, models
from api.tape import Archive
from inference import Pool


def create_app(pool: Pool) -> FastAPI:
    """The HTTP server around `pool`, which it starts and closes with itself."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await pool.start()
        try:
            yield
        finally:
            app.state.archive.close()
            await pool.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None)
    app.state.pool = pool
    app.state.metrics = metrics.Metrics(pool)
    app.state.archive = Archive()
    errors.install(app)
    for module in (health, metrics, models, chat, completions, streams):
        app.include_router(module.router)
    return app
