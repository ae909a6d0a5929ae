"""`POST /api/pull`: brings the weights of a listed model here, in Ollama's lines of progress.

A name is looked up in models.yaml, and that says where its file comes from; a client never does.
"""

import logging
from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import partial
from typing import Final

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec import UNSET, UnsetType

from api.body import WireModel, Word, read, read_object
from api.document import JSON, Operation, body_schema
from api.errors import UNFORESEEN, problem_of, status_of
from api.json_reply import JsonReply
from api.metrics import Meter
from api.ollama.errors import LINES, OLLAMA, framed
from api.streaming import TokenStream, metered, unless_gone
from inference import InferenceError, Models, PullProgress

_log = logging.getLogger(__name__)
router = APIRouter()


class PullBody(WireModel):
    """`name` is what `model` was once called."""

    model: Word | None = None
    name: Word | None = None
    stream: bool = True


class PullLine(msgspec.Struct):
    """`digest` is of the one file, of which `completed` of `total` bytes are here."""

    status: str
    digest: str | UnsetType = UNSET
    total: int | UnsetType = UNSET
    completed: int | UnsetType = UNSET


_VERIFYING, _SUCCESS = PullLine("verifying sha256 digest"), PullLine("success")
_PULLING: Final = replace(OLLAMA, ping=framed(PullLine("pulling")))  # while a hub is silent


@router.post("/api/pull")
async def pull(http: Request) -> Response:
    async def reply(meter: Meter) -> Response:
        body = read(PullBody, await read_object(http, meter.hold), {})
        models: Models = http.app.state.models
        pulling = Pulling(models.pull(body.model or body.name), meter)
        if body.stream:
            return TokenStream(pulling.frames(), pulling, _PULLING)
        await unless_gone(http, pulling.end())
        meter.end(200)
        return JsonReply(_SUCCESS)

    return await metered(http, "ollama_pull", reply)


class Pulling:
    """A pull as lines, with whatever goes wrong."""

    def __init__(self, steps: AsyncGenerator[PullProgress, None], meter: Meter) -> None:
        self._steps = steps
        self._meter = meter
        self._outcome = 499

    async def frames(self) -> AsyncGenerator[bytes, None]:
        try:
            async for line in _lines(self._steps):
                yield framed(line)
            self._outcome = 200
        except InferenceError as error:
            yield self._failed(error)
        except Exception:  # an exception that leaves this generator breaks the connection
            _log.exception("A pull failed.")
            yield self._failed(UNFORESEEN)

    async def end(self) -> None:
        """Wait for it."""
        try:
            async for _ in self._steps:
                pass
        finally:
            await self._steps.aclose()

    async def aclose(self) -> None:
        """However it ended: nobody looks on any more, and it is counted."""
        await self._steps.aclose()
        self._meter.end(self._outcome)

    def _failed(self, error: InferenceError) -> bytes:
        self._outcome = status_of(error)
        return b"".join(OLLAMA.broken(problem_of(error)))


async def _lines(steps: AsyncGenerator[PullProgress, None]) -> AsyncGenerator[PullLine, None]:
    verifying = False
    yield PullLine("pulling manifest")
    async for step in steps:
        if step.sha256:
            digest = f"sha256:{step.sha256}"
            yield PullLine(f"pulling {step.sha256[:12]}", digest, step.size, step.done)
        if step.size and step.done == step.size and not verifying:
            verifying = True
            yield _VERIFYING
    if not verifying:  # it was here, and has been read through
        yield _VERIFYING
    yield _SUCCESS


OPERATIONS: Final = (
    Operation(
        "/api/pull",
        "The weights of a listed model downloaded and verified",
        {200: {JSON: PullLine, LINES: PullLine}},
        (400, 404, 408, 413, 429, 500, 502, 503),
        partial(body_schema, PullBody, {}),
        methods=("post",),
    ),
)
