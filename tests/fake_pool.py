"""A stand-in at the Pool seam: answers requests from scripts and remembers what happened."""

import asyncio
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from fastapi import APIRouter

from api.app import create_app
from api.connection import Limits
from api.keys import KeyFile
from api.origins import Reach
from api.server import Server, bind, server_for
from api.store.database import Database
from inference import (
    EmbeddingRequest,
    Embeddings,
    Finished,
    GenerationEvent,
    GenerationRequest,
    InferenceError,
    LiveRequest,
    ModelInfo,
    Models,
    NotReady,
    PoolStatus,
    ShuttingDown,
    Started,
    TextDelta,
    Timings,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from inference.wire import Stats

Step = GenerationEvent | Exception | asyncio.Event
LIMITS = Limits()

CALL = ToolCallDelta(0, 0, ToolCall("call_1", "weather", '{"city": "Oslo"}'))
USAGE = Usage(prompt_tokens=7, completion_tokens=2, cached_tokens=3)
VECTOR = struct.pack("<2f", 0.6, 0.8)
TIMINGS = Timings(queued=0.001, first_token=0.1, total=0.3)


def end(index: int = 0, reason: str = "stop") -> Finished:
    return Finished(index, reason, USAGE, TIMINGS)


def hello(n: int = 1) -> list[Step]:
    texts = [TextDelta(i, text) for text in ("Hel", "lo") for i in range(n)]
    return [Started(7), *texts, *(end(i) for i in range(n))]


@dataclass
class Going:
    """A request that is being answered, and why it ends before its time."""

    asked: GenerationRequest | EmbeddingRequest
    events: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    why: InferenceError | None = None


class FakePool:
    """`scripts` are played one per request, in order; then every request is answered "Hello".

    A script's step is an event to yield, an error to raise or an `asyncio.Event` to wait for, which
    is over as well for who is ended.
    """

    def __init__(self, *scripts: list[Step]) -> None:
        self.scripts = list(scripts)
        self.requests: list[GenerationRequest] = []
        self.spared: list[set[str]] = []
        self.going: list[Going] = []
        self.waiting = asyncio.Event()
        self.cancelled = asyncio.Event()
        self._closed = asyncio.Event()
        self.now = PoolStatus(
            state="ready",
            detail="",
            name="fake",
            aliases=("fake:latest", "org/fake"),
            info=ModelInfo("fake", "qwen3", 4096, 4, 151936, 600_000_000, 640_000_000),
            cells=4096,
            restarts=1,
            stats=Stats(
                waiting=2,
                running=3,
                cells=100,
                prompt_tokens=70,
                cached_tokens=30,
                completion_tokens=20,
                preemptions=4,
                drafted=6,
                accepted=5,
            ),
        )

    @property
    def ready(self) -> bool:
        return self.now.state == "ready"

    def become(self, state: str, detail: str) -> None:
        self.now = replace(self.now, state=state, detail=detail)

    def status(self) -> PoolStatus:
        return self.now

    def expel(self, tenants) -> None:
        self.spared.append(tenants)

    def live(self) -> list[LiveRequest]:
        return [
            LiveRequest(one.asked.id, self.now.name, one.asked.tenant, 1.5, one.events, True)
            for one in self.going
        ]

    def end(self, which, why) -> int:
        found = [one for one in self.going if which(one.asked)]
        for one in found:
            one.why = why
            one.ended.set()
        return len(found)

    async def start(self) -> None:
        pass

    async def until_ready(self) -> None:
        pass

    def drain(self) -> None:
        self.become("draining", "it stops")

    async def close(self, patience: float = 10.0) -> None:
        self.become("stopped", "")
        self._closed.set()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        if self.now.state == "draining":
            raise ShuttingDown("it stops")
        self.requests.append(request)
        script = self.scripts.pop(0) if self.scripts else hello(request.n)
        one = Going(request)
        self.going.append(one)
        try:
            for step in script:
                match step:
                    case asyncio.Event():
                        self.waiting.set()
                        await self._until(step, one)
                    case Exception():
                        raise step
                    case event:
                        one.events += 1
                        yield event
        except (GeneratorExit, asyncio.CancelledError):
            self.cancelled.set()
            raise
        finally:
            self.going.remove(one)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """The same vector for every input, unless a script has an error."""
        self.requests.append(request)
        one = Going(request)
        self.going.append(one)
        try:
            for step in self.scripts.pop(0) if self.scripts else ():
                match step:
                    case asyncio.Event():
                        self.waiting.set()
                        await self._until(step, one)
                    case Exception():
                        raise step
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        finally:
            self.going.remove(one)
        return Embeddings((VECTOR,) * len(request.inputs), 7, 0.3)

    async def count(self, request: GenerationRequest) -> int:
        """Seven, unless a script of one error is to be played."""
        self.requests.append(request)
        for step in self.scripts.pop(0) if self.scripts else ():
            raise step
        return 7

    async def tokenize(self, request: GenerationRequest) -> list[int]:
        return [*range(await self.count(request))]

    async def detokenize(self, request: GenerationRequest) -> str:
        await self.count(request)
        return "Hi"

    async def _until(self, step: asyncio.Event, one: Going) -> None:
        over = step, self._closed, one.ended
        waits = [asyncio.create_task(event.wait()) for event in over]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if one.why:
            raise one.why
        if not step.is_set():
            raise NotReady("it has stopped")


def post_head(path: str, header: str) -> bytes:
    """The beginning of a POST of JSON, for those who write it by hand; `header` is one more."""
    lines = f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", header
    return "\r\n".join((*lines, "", "")).encode()


@asynccontextmanager
async def served(
    pool: FakePool | Models,
    drain: float = 5,
    *,
    limits: Limits = LIMITS,
    reach: Reach | None = None,
    keys: KeyFile | None = None,
    database: Database | None = None,
    rooms: tuple[APIRouter, ...] = (),
) -> AsyncIterator[tuple[str, Server]]:
    """The address of a real server around `pool`, on loopback, and the server; `rooms` are routes
    beside its own."""
    models = pool if isinstance(pool, Models) else Models(pool)
    listener = bind("127.0.0.1", 0)
    app = create_app(models, reach, keys, database)
    for room in rooms:
        app.include_router(room)
    server = server_for(app, drain, limits)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", server
    finally:
        server.stop()
        await asyncio.wait_for(task, 10)


@asynccontextmanager
async def serving(pool: FakePool | Models, **how) -> AsyncIterator[str]:
    async with served(pool, **how) as (url, _):
        yield url
