"""Carries a generation to its client: as server-sent events, or folded into one answer.

The first event is awaited before the answer begins, so a refusal has its own HTTP status. A
client that hangs up, at any time, closes the generation, and that cancels it in the model.
Every stream ends in `data: [DONE]`, after an error too. Knows no wire dialect: an `Encoder` does,
and no clock: a `Connection` cuts off who does not read.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, TypeVar

import msgspec
from fastapi import Request, Response
from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send

from api.body import read_object
from api.errors import UNFORESEEN, ClientGone, error_body, error_response, status_of
from api.metrics import Meter
from inference import GenerationEvent, GenerationRequest, InferenceError, NotReady, Pool, Started

_PING_SECONDS: Final = 15
_NO_HURRY: Final = 3600  # seconds: a pool that closes ends its streams, sse-starlette need not
_DONE: Final = b"data: [DONE]\n\n"

Events = AsyncGenerator[GenerationEvent, None]
Result = TypeVar("Result")
_log = logging.getLogger(__name__)


class Encoder(Protocol):
    """One dialect's way to write the events of one request; every value is JSON."""

    def encode(self, event: GenerationEvent) -> list[bytes]: ...
    def close(self) -> list[bytes]: ...
    def fold(self, events: list[GenerationEvent]) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Call:
    """A body understood: what to generate and how to answer. Several prompts, several requests."""

    requests: tuple[GenerationRequest, ...]
    encoder: Encoder
    stream: bool


async def answer(
    http: Request, endpoint: str, understand: Callable[[dict[str, Any], str], Call]
) -> Response:
    """Serve one request; `understand(body, served_model_name)` speaks the dialect."""
    pool: Pool = http.app.state.pool
    meter = Meter(http.app.state.metrics, endpoint)
    try:
        call = understand(await read_object(http), pool.status().name)
        return await _reply(http, _generate(pool, call.requests), call, meter)
    except InferenceError as error:
        meter.end(status_of(error))
        return error_response(error)
    except Exception:
        meter.end(500)
        raise


async def _reply(http: Request, events: Events, call: Call, meter: Meter) -> Response:
    first = await _unless_gone(http, anext(events))
    if call.stream:
        return TokenStream(first, events, call.encoder, meter)
    rest = await _unless_gone(http, _collect(events, meter))
    response = Response(call.encoder.fold([first, *rest]), media_type="application/json")
    meter.end(200)
    return response


async def _generate(pool: Pool, requests: tuple[GenerationRequest, ...]) -> Events:
    """The events of all requests in turn; every one is accepted before the first streams."""
    streams = [pool.generate(request) for request in requests]
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


async def _unless_gone(http: Request, work: Awaitable[Result]) -> Result:
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


class TokenStream(EventSourceResponse):
    """A generation as server-sent events; owns it, and closes it however the stream ends."""

    def __init__(
        self, first: GenerationEvent, events: Events, encoder: Encoder, meter: Meter
    ) -> None:
        super().__init__(
            self._frames(first),
            headers={"Cache-Control": "no-cache"},
            ping=_PING_SECONDS,
            sep="\n",
            shutdown_grace_period=_NO_HURRY,
        )
        self._events = events
        self._encoder = encoder
        self._meter = meter
        self._outcome = 499

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()
            self._meter.end(self._outcome)

    async def _frames(self, first: GenerationEvent) -> AsyncGenerator[bytes, None]:
        encode, saw = self._encoder.encode, self._meter.saw
        try:
            if head := encode(first):
                yield _frame(head)
            async for event in self._events:
                saw(event)
                if chunks := encode(event):
                    yield _frame(chunks)
            if tail := self._encoder.close():
                yield _frame(tail)
            self._outcome = 200
        except InferenceError as error:
            yield self._failed(error)
        except Exception:  # an exception that leaves this generator breaks the connection
            _log.exception("A stream failed.")
            yield self._failed(UNFORESEEN)
        yield _DONE

    def _failed(self, error: InferenceError) -> bytes:
        self._outcome = status_of(error)
        return _frame([msgspec.json.encode(error_body(error))])


def _frame(chunks: list[bytes]) -> bytes:
    return b"".join([b"data: %b\n\n" % chunk for chunk in chunks])
