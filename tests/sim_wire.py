"""A worker's connection in the simulation: real frames, in order, each of which takes its time."""

import asyncio
import random
from collections.abc import Callable
from typing import Literal

from inference.wire import Channel, Command

TICK = 1e-6  # seconds between two frames of one direction
SLOWEST = 0.002  # seconds that a frame is on its way


class Wire:
    """To the pool it is a stream's writer, beside its `reader`; to a `Channel` it is a socket.

    `sent` is told of every command at once, `received` when it arrives; None is the end. `spoils`
    says what becomes of the next frame of the worker: half of it arrives, or none that is one.
    """

    def __init__(self, rng: random.Random, sent: Callable, received: Callable) -> None:
        self._loop = asyncio.get_running_loop()
        self._rng, self._sent, self._received = rng, sent, received
        self._frame = b""
        self._last = {"there": 0.0, "back": 0.0}
        self.reader = asyncio.StreamReader()
        self.channel = Channel(self)
        self.spoils: Literal["", "halves", "garbles"] = ""

    def write(self, data: bytes) -> None:
        self._frame = data
        command: Command = self.channel.receive()
        self._sent(command)
        self._deliver("there", self._received, command)

    def close(self) -> None:
        self._deliver("there", self._received, None)

    def hang_up(self) -> None:
        """The worker's end closes."""
        self._deliver("back", self.reader.feed_eof)

    def makefile(self, *_, **__) -> "Wire":
        return self

    def read(self, size: int) -> bytes:
        data, self._frame = self._frame[:size], self._frame[size:]
        return data

    def sendall(self, data: bytes) -> None:
        if self.spoils == "halves":
            data = data[: self._rng.randrange(len(data))]
        if self.spoils == "garbles":
            data = data[:4] + b"\xc1" * (len(data) - 4)
        self._deliver("back", self.reader.feed_data, data)

    def _deliver(self, direction: str, callback: Callable, *args: object) -> None:
        soon = self._loop.time() + self._rng.uniform(0, SLOWEST)
        self._last[direction] = max(soon, self._last[direction] + TICK)
        self._loop.call_at(self._last[direction], callback, *args)
