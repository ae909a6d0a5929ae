"""Streams that outlive a connection: recorded as they are made, read from any event on.

A reader who lost its connection comes back with the id of the last event it has. What nobody
reads is kept for a while, then cancelled and forgotten. Knows neither the pool nor a dialect.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final, Protocol

from api.errors import StreamGone, UnknownStream
from inference import Overloaded

KEEP_SECONDS: Final = 60.0  # without a reader
MAX_TAPES: Final = 256
MAX_BYTES: Final = 8 << 20  # of one tape; what is older is gone
_AT_ONCE: Final = 64  # events of a reader that has to catch up


class Source(Protocol):
    """What is recorded: server-sent events as they are made, or, if it is `cut_off`, its last
    ones. `aclose` ends it, however far it is."""

    def frames(self) -> AsyncIterator[list[bytes]]: ...
    def cut_off(self) -> list[bytes]: ...
    async def aclose(self) -> None: ...


class Tape:
    """One stream, as events numbered from 1 with ids like `chatcmpl-...:17`."""

    def __init__(self, id: str, tenant: str, source: Source) -> None:
        self.id = id
        self.tenant = tenant
        self.readers = 0
        self._source = source
        self._events: list[bytes] = []
        self._forgotten = 0
        self._bytes = 0
        self._over = False
        self._news = asyncio.Event()
        self.recording = asyncio.create_task(self._record())

    @property
    def length(self) -> int:
        """Events so far, forgotten ones included."""
        return self._forgotten + len(self._events)

    async def read(self, after: int) -> AsyncGenerator[bytes, None]:
        """Server-sent events from the one after number `after` on, until the stream ends."""
        while after < self.length or not self._over:
            if after < self._forgotten:
                raise StreamGone
            start = after - self._forgotten
            if events := self._events[start : start + _AT_ONCE]:
                after += len(events)
                yield b"".join(events)
            else:
                news = self._news
                await news.wait()

    async def _record(self) -> None:
        try:
            async for frames in self._source.frames():
                for frame in frames:
                    self._add(frame)
        except asyncio.CancelledError:
            for frame in self._source.cut_off():
                self._add(frame)
        finally:
            self._over = True
            self._news.set()
            await self._source.aclose()

    def _add(self, frame: bytes) -> None:
        event = b"id: %b:%d\n%b" % (self.id.encode(), self.length + 1, frame)
        self._events.append(event)
        self._bytes += len(event)
        while self._bytes > MAX_BYTES:
            self._bytes -= len(self._events.pop(0))
            self._forgotten += 1
        self._news.set()
        self._news = asyncio.Event()


class Archive:
    """The tapes of a server. A tape without a reader is kept for `keep` seconds."""

    def __init__(self, keep: float = KEEP_SECONDS, most: int = MAX_TAPES) -> None:
        self._keep = keep
        self._most = most
        self._tapes: dict[str, Tape] = {}
        self._ends: dict[str, asyncio.TimerHandle] = {}

    def record(self, id: str, tenant: str, source: Source) -> Tape:
        """Begin to record `source`; it belongs to the archive from now on."""
        tape = self._tapes[id] = Tape(id, tenant, source)
        self._leave_alone(tape)
        return tape

    def make_room(self) -> None:
        """Forget the tape that was left alone first, if there are too many.

        Raises Overloaded when all of them are being read.
        """
        if len(self._tapes) >= self._most:
            if not self._ends:
                raise Overloaded("Too many resumable streams are open; please try again later.")
            self._forget(next(iter(self._ends)))

    def find(self, id: str, tenant: str) -> Tape:
        """Raises UnknownStream; other tenants' streams are unknown."""
        tape = self._tapes.get(id)
        if tape is None or tape.tenant != tenant:
            raise UnknownStream
        return tape

    async def read(self, tape: Tape, after: int) -> AsyncGenerator[bytes, None]:
        """As `Tape.read`; meanwhile the tape is not left alone."""
        tape.readers += 1
        if timer := self._ends.pop(tape.id, None):
            timer.cancel()
        try:
            async for events in tape.read(after):
                yield events
        finally:
            tape.readers -= 1
            if not tape.readers and tape.id in self._tapes:
                self._leave_alone(tape)

    def cancel(self, tape: Tape) -> None:
        """End a stream and forget it."""
        self._forget(tape.id)

    def close(self) -> None:
        for id in list(self._tapes):
            self._forget(id)

    def _leave_alone(self, tape: Tape) -> None:
        loop = asyncio.get_running_loop()
        self._ends[tape.id] = loop.call_later(self._keep, self._forget, tape.id)

    def _forget(self, id: str) -> None:
        if timer := self._ends.pop(id, None):
            timer.cancel()
        self._tapes.pop(id).recording.cancel()
