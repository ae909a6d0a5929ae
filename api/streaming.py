"""Carries a generation to its client: as a stream of frames, or folded into one answer.

The first event is awaited before the answer begins, so a refusal has its own HTTP status. A
client that hangs up, at any time, closes the generation, and that cancels it in the model.
An agent is laid under the requests that name it. Knows no dialect: an `Encoder` makes the
frames of an answer, a `Dialect` those around it. Knows no clock either: a `Connection` cuts
off who does not read.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from fastapi import Request, Response
from sse_starlette import EventSourceResponse
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from api.body import read_object
from api.dialect import Dialect
from api.dialects import dialect_of
from api.errors import UNFORESEEN, ClientGone, error_response, problem_of, status_of
from api.metrics import Meter
from api.store.agents import Agents
from api.tape import Archive, Tape
from api.underlay import of_agent
from inference import (
    BadRequest,
    GenerationEvent,
    GenerationRequest,
    InferenceError,
    Models,
    NotReady,
    Started,
)

_PING_SECONDS: Final = 15
_NO_HURRY: Final = 3600  # seconds: a pool that closes ends its streams, sse-starlette need not

Events = AsyncGenerator[GenerationEvent, None]
Frames = AsyncGenerator[bytes, None]
Result = TypeVar("Result")
_log = logging.getLogger(__name__)


class Encoder(Protocol):
    """One dialect's way to write the events of one request: as frames of a stream, of which
    `close` gives the last, or folded as JSON."""

    def encode(self, event: GenerationEvent) -> list[bytes]: ...
    def close(self) -> list[bytes]: ...
    def fold(self, events: list[GenerationEvent]) -> bytes: ...


class Closable(Protocol):
    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Call:
    """A body understood: what to generate and how to answer. Several prompts, several requests.

    Where frames around an answer depend on it, its `dialect` is not just that of its address. Where
    its events are not simply what a model makes of its requests, they are `told` by another.
    """

    requests: tuple[GenerationRequest, ...]
    encoder: Encoder
    stream: bool
    resumable: bool = False
    dialect: Dialect | None = None
    told: Callable[[], Events] | None = None


Meant = Callable[[GenerationRequest], GenerationRequest]
Errand = Callable[[Models, Meant], Awaitable[Response]]
"""What else a body can ask for; `meant` makes of a request what its client means by it."""


async def answer(
    http: Request, endpoint: str, understand: Callable[[dict[str, Any], str], Call | Errand]
) -> Response:
    """Serve one request; `understand(body, name_of_the_model)` speaks the dialect, and has an
    errand where there is nothing to generate.

    With a `Last-Event-ID` it goes on with that stream instead, whatever its body says.
    """
    models: Models = http.app.state.models

    async def reply(meter: Meter) -> Response:
        last = http.headers.get("last-event-id")
        if last and dialect_of(http.scope["path"]).resumable:
            id, _, number = last.rpartition(":")
            return replay(http, id, event_number(number))
        body = await read_object(http, meter.hold)
        call = understand(body, name_of(http, body.get("model")))
        if not isinstance(call, Call):
            response = await unless_gone(http, call(models, partial(meant, http)))
            meter.end(200)
            return response
        if call.told:
            return await _reply(http, call.told(), call, meter)
        requests = tuple(meant(http, request) for request in call.requests)
        check_stream(models, requests[0], stream=call.stream)
        return await _reply(http, _generate(models, requests), call, meter)

    return await metered(http, endpoint, reply)


async def metered(
    http: Request, endpoint: str, reply: Callable[[Meter], Awaitable[Response]]
) -> Response:
    """What `reply` makes, or the refusal it raises, which is counted."""
    meter = Meter(http.app.state.metrics, endpoint)
    try:
        return await reply(meter)
    except InferenceError as error:
        meter.end(status_of(error))
        return error_response(error, http.scope["path"])
    except Exception:
        meter.end(500)
        raise


def replay(http: Request, id: str, after: int) -> Response:
    """The events of a recorded stream from the one after number `after` on."""
    tape = recorded(http, id)
    if after > tape.length:
        raise BadRequest(f"The stream has no event {after} yet.", "Last-Event-ID")
    archive: Archive = http.app.state.archive
    events = archive.read(tape, after)
    return TokenStream(events, events, dialect_of(http.scope["path"]), id)


def recorded(http: Request, id: str) -> Tape:
    """Raises UnknownStream, also for those of other tenants."""
    archive: Archive = http.app.state.archive
    return archive.find(id, http.state.tenant)


def event_number(text: str) -> int:
    """Raises BadRequest."""
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise BadRequest("This is not the id of an event of the stream.", "Last-Event-ID")
    return int(text)


async def _reply(http: Request, events: Events, call: Call, meter: Meter) -> Response:
    archive: Archive = http.app.state.archive
    dialect = call.dialect or dialect_of(http.scope["path"])
    resumable = call.resumable or http.headers.get("x-resumable", "").lower() == "true"
    resumable = resumable and call.stream and dialect.resumable
    if resumable:
        archive.make_room()
    first = await unless_gone(http, anext(events))
    if call.stream:
        narration = Narration(first, events, call.encoder, dialect, meter)
        if resumable:
            tape = archive.record(call.requests[0].id, http.state.tenant, narration)
            return replay(http, tape.id, 0)
        return TokenStream(_joined(narration), narration, dialect)
    rest = await unless_gone(http, _collect(events, meter))
    response = Response(call.encoder.fold([first, *rest]), media_type="application/json")
    meter.end(200)
    return response


def name_of(http: HTTPConnection, said: object) -> str:
    """What an answer calls the model that a client names."""
    models: Models = http.app.state.models
    agents: Agents = http.app.state.agents
    agent = agents.named(said, http.state.tenant)
    return agent.name if agent else models.name_of(said)


def meant(http: Request, request: GenerationRequest) -> GenerationRequest:
    """`request` in the name of who asks, for a model if it names an agent."""
    agents: Agents = http.app.state.agents
    [mine] = owned((request,), http.state.tenant)
    return of_agent(mine, agents.named(mine.model, http.state.tenant))


def check_stream(models: Models, request: GenerationRequest, *, stream: bool) -> None:
    """Raises BadRequest where the model of a request only streams, and the answer is to be whole;
    and UnknownModel."""
    now = models.status(request.model)
    if now.streams_only and not stream:
        raise BadRequest(
            f'stream: {now.name} only streams its answers; say "stream": true.', "stream"
        )


def owned(requests: tuple[GenerationRequest, ...], tenant: str) -> tuple[GenerationRequest, ...]:
    """`requests` in the name of `tenant`; what tenants have computed they never share."""
    if not tenant:
        return requests
    return tuple(  # no name holds a NUL, so no salt of one is a salt of another
        replace(request, tenant=tenant, salt=f"{tenant}\0{request.salt}") for request in requests
    )


async def _generate(models: Models, requests: tuple[GenerationRequest, ...]) -> Events:
    """The events of all requests in turn; every one is accepted before the first streams."""
    streams = [models.generate(request) for request in requests]
    try:
        accepted = [await anext(stream) for stream in streams]
        yield Started(sum(event.prompt_tokens for event in accepted if isinstance(event, Started)))
        for place, stream in enumerate(streams):
            async for event in stream:
                yield _shifted(event, place * requests[0].n)
    finally:
        for stream in streams:
            await stream.aclose()


def _shifted(event: GenerationEvent, by: int) -> GenerationEvent:
    if by == 0 or isinstance(event, Started):
        return event
    return replace(event, index=event.index + by)


async def _collect(events: Events, meter: Meter) -> list[GenerationEvent]:
    collected = []
    async for event in events:
        meter.saw(event)
        collected.append(event)
    return collected


async def unless_gone(http: Request, work: Awaitable[Result]) -> Result:
    """The result of `work`; ends it and raises `ClientGone` if the client hangs up first.

    Only a streaming answer watches its client by itself. The body must have been read. The work is
    done in this very task: a refusal, which waits for nothing, then leaves before the next request
    of a burst is looked at.
    """
    here = asyncio.current_task()
    assert here
    watching = asyncio.create_task(_cancel_if_gone(http, here))
    try:
        return await work
    except asyncio.CancelledError:
        if watching.done():
            here.uncancel()
            raise ClientGone("The client hung up.") from None
        raise NotReady("The server is shutting down.") from None  # uvicorn's patience has ended
    finally:
        watching.cancel()


async def _cancel_if_gone(http: Request, task: asyncio.Task[Any]) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
    task.cancel()


class Narration:
    """A generation as frames, with whatever goes wrong; owns it."""

    def __init__(
        self,
        first: GenerationEvent,
        events: Events,
        encoder: Encoder,
        dialect: Dialect,
        meter: Meter,
    ) -> None:
        self._first = first
        self._events = events
        self._encoder = encoder
        self._dialect = dialect
        self._meter = meter
        self._outcome = 499

    async def frames(self) -> AsyncGenerator[list[bytes], None]:
        encode, saw = self._encoder.encode, self._meter.saw
        try:
            yield encode(self._first)
            async for event in self._events:
                saw(event)
                yield encode(event)
            yield self._encoder.close()
            self._outcome = 200
        except InferenceError as error:
            yield self._failed(error)
        except Exception:  # an exception that leaves this generator breaks the connection
            _log.exception("A stream failed.")
            yield self._failed(UNFORESEEN)

    def cut_off(self, reason: str = "The stream was cancelled.") -> list[bytes]:
        """The last frames of a stream that was not allowed to end."""
        return self._failed(NotReady(reason))

    async def aclose(self) -> None:
        """However it ended: the model is done with it, and it is counted."""
        await self._events.aclose()
        self._meter.end(self._outcome)

    def _failed(self, error: InferenceError) -> list[bytes]:
        self._outcome = status_of(error)
        return self._dialect.broken(problem_of(error))


class TokenStream(EventSourceResponse):
    """Frames as they come; closes their `owner`, however the stream ends."""

    def __init__(self, frames: Frames, owner: Closable, dialect: Dialect, id: str = "") -> None:
        headers = {"Cache-Control": "no-cache"} | ({"X-Stream-Id": id} if id else {})
        said = dialect.ping
        ping: Any = said if callable(said) else lambda: said  # bytes are sent as they are
        super().__init__(
            frames,
            headers=headers,
            media_type=dialect.media,
            ping=_PING_SECONDS,
            ping_message_factory=ping,
            shutdown_grace_period=_NO_HURRY,
        )
        self._owner = owner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._owner.aclose()


async def _joined(narration: Narration) -> Frames:
    async for frames in narration.frames():
        if frames:
            yield b"".join(frames)
