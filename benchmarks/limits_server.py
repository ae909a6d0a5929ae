"""The two API processes that `benchmarks.limits` compares, neither with a model behind it.

`python -m benchmarks.limits_server onebox|bare PORT`: Onebox's own API on a fake worker, or the
least that FastAPI and sse-starlette can do for the same stream.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from sse_starlette import EventSourceResponse

from api.app import create_app
from api.server import bind, server_for
from benchmarks.fake_worker import BEAT, TEXT
from inference import Models, Pool, load_config, prepare

_WORKER: Final = (sys.executable, "-m", "benchmarks.fake_worker")


def onebox() -> FastAPI:
    return create_app(Models(Pool(prepare(load_config()), command=_WORKER)))


def bare() -> FastAPI:
    beat = Beat()
    app = FastAPI(lifespan=beat.lifespan)

    @app.get("/ready")
    async def ready() -> None: ...

    @app.post("/v1/completions")
    async def completions(body: dict[str, Any]) -> EventSourceResponse:
        return EventSourceResponse(_chunks(body["max_tokens"], beat))

    return app


class Beat:
    """Wakes every stream at once, as the step of a model does."""

    def __init__(self) -> None:
        self.next = asyncio.Event()

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(self._run())
        yield
        task.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            now, self.next = self.next, asyncio.Event()
            now.set()


async def _chunks(tokens: int, beat: Beat) -> AsyncIterator[str]:
    for left in reversed(range(tokens)):
        await beat.next.wait()
        yield _chunk(TEXT, None if left else "length")
    usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1}
    yield json.dumps({"choices": [], "usage": usage})
    yield "[DONE]"


def _chunk(text: str, reason: str | None) -> str:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "bare"}
    return json.dumps(head | {"choices": [choice]})


def _plain(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(app, http="h11", log_level="warning", access_log=False)


if __name__ == "__main__":
    kind, port = sys.argv[1:]
    with bind("127.0.0.1", int(port)) as listener:
        server = server_for(onebox()) if kind == "onebox" else uvicorn.Server(_plain(bare()))
        asyncio.run(server.serve(sockets=[listener]))
