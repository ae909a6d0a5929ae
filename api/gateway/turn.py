"""One answer while it is made: followed by whoever wants to, and of a session kept in its store.

Knows neither how it was asked for nor a wire shape.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, groupby
from time import monotonic
from typing import Any, Final, Literal

from api.errors import UNFORESEEN
from api.gateway.draft import Draft
from api.gateway.events import Stored
from api.store.errors import StoreFailed
from api.store.records import Message
from api.streaming import Events
from inference import (
    Finished,
    GenerationEvent,
    InferenceError,
    NotReady,
    ReasoningDelta,
    Started,
    TextDelta,
    Timings,
    Usage,
)

SAVE_EVERY: Final = 1.0  # seconds; a killed server loses so much of an answer at most
_PATIENCE: Final = (0.1, 0.4, 1.5)  # seconds between two tries to store the end of an answer
_log = logging.getLogger(__name__)

Keep = Callable[[Message], Awaitable[None]]


class Turn:
    """One answer, from its first event on, for any number of followers. It says whether somebody
    has `stopped` it, and whether what it told is `saved`."""

    def __init__(
        self,
        first: GenerationEvent,
        events: Events,
        asked: Message,
        stored: Stored | None = None,
        keep: Keep | None = None,
    ) -> None:
        self.asked = asked
        self.stored = stored
        self.saved = stored is not None
        self.stopped = False
        self._events = events
        self._keep = keep
        self._draft = Draft(asked)
        self._told = [first]
        self._news = asyncio.Event()
        self._failure: InferenceError | None = None
        self._stage: Literal["new", "running", "ending"] = "new"
        self._over = False
        self._began = monotonic()
        self._first_piece = 0.0
        self.task = asyncio.create_task(self._run())

    async def follow(self) -> AsyncGenerator[GenerationEvent, None]:
        """All events so far, with neighbouring texts in one, and those that come; raises what went
        wrong. To close it ends nothing."""
        place = 0
        while place < len(self._told) or not self._over:
            if events := self._told[place:]:
                place += len(events)
                for event in _joined(events):
                    yield event
            else:
                await self._news.wait()
        if self._failure:
            raise self._failure

    async def stop(self) -> None:
        """End it in the model; returns when it has ended."""
        if self._stage != "ending":
            self.stopped = True
        if self._stage == "running":
            self._stage = "ending"
            self.task.cancel()
        await asyncio.wait({self.task})

    async def _run(self) -> None:
        saving = asyncio.create_task(self._save_now_and_then()) if self._keep else None
        try:
            await self._generate()
            with suppress(asyncio.CancelledError):
                await self._events.aclose()
        finally:
            if saving:
                saving.cancel()
            try:
                await self._save_at_last(self._outcome())
            finally:
                self._over = True
                self._tell()

    async def _generate(self) -> None:
        if self.stopped:  # before it had begun
            self._add(self._end())
            return
        self._stage = "running"
        try:
            async for event in self._events:
                self._add(event)
        except InferenceError as error:
            self._failure = error
        except asyncio.CancelledError:
            if self.stopped:
                self._add(self._end())
            else:
                self._failure = NotReady("The server is shutting down.")
        except Exception:
            _log.exception("An answer failed.")
            self._failure = UNFORESEEN
        finally:
            self._stage = "ending"

    def _add(self, event: GenerationEvent) -> None:
        if not (self._draft.pieces or self._first_piece):
            self._first_piece = monotonic() - self._began
        self._draft.add(event)
        self._told.append(event)
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _end(self) -> Finished:
        """The end of an answer whose reader had enough: the worker tells no numbers of it. A piece
        of text is a token, or more than one where we were slow to take it."""
        [first, *_] = self._told
        prompt = first.prompt_tokens if isinstance(first, Started) else 0
        times = Timings(0.0, self._first_piece, monotonic() - self._began)
        return Finished(0, "stop", Usage(prompt, self._draft.pieces, 0), times)

    def _outcome(self) -> Message:
        if self._failure:
            return self._draft.failed(self._failure)
        return self._draft.message("stopped" if self.stopped else "done")

    async def _save_now_and_then(self) -> None:
        saved = 0
        while True:
            await asyncio.sleep(SAVE_EVERY)
            if self._draft.pieces > saved:
                saved = self._draft.pieces
                await self._save(self._draft.message("running"))

    async def _save_at_last(self, message: Message) -> None:
        """A disk that is full for a moment shall not cost the answer."""
        await self._save(message)
        for pause in _PATIENCE:
            if self.saved or not self._keep:
                return
            await asyncio.sleep(pause)
            await self._save(message)

    async def _save(self, message: Message) -> None:
        """A disk that fails does not end an answer: its followers are told at the end."""
        if self._keep:
            try:
                await self._keep(message)
                self.saved = True
            except StoreFailed:
                self.saved = False
            except Exception:
                _log.exception("An answer could not be stored.")
                self.saved = False


def _joined(events: Sequence[GenerationEvent]) -> Iterator[GenerationEvent]:
    """Neighbouring texts, and neighbouring thoughts, as one: who is late gets fewer events."""
    for kind, run in groupby(events, type):
        if kind in (TextDelta, ReasoningDelta):
            yield _one([*run])
        else:
            yield from run


def _one(run: Sequence[Any]) -> GenerationEvent:
    """Texts, or thoughts, as one of them; told once, however many there are."""
    first: TextDelta | ReasoningDelta = run[0]
    if len(run) == 1:
        return first
    text = "".join(one.text for one in run)
    if isinstance(first, ReasoningDelta):
        return replace(first, text=text)
    return replace(first, text=text, logprobs=tuple(chain(*(one.logprobs for one in run))))
