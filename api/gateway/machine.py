"""What this box has left: processor, memory, graphics memory, and what each worker takes.

A look at the graphics cards takes a while, so it is taken in a thread, and once in a second however
many ask. Knows no HTTP.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Final, TypedDict

import psutil

from inference import Memory, read_memory

_GOOD_FOR: Final = 1.0  # seconds


class Used(TypedDict):
    """Bytes."""

    used: int
    total: int


class Card(Used):
    name: str


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at the box."""

    cpu_percent: float
    now: Memory

    @property
    def memory(self) -> Used:
        return Used(used=self.now.ram_total - self.now.ram_free, total=self.now.ram_total)

    @property
    def vram(self) -> list[Card]:
        return [Card(name=g.name, used=g.total - g.free, total=g.total) for g in self.now.gpus]


class Machine:
    """The box, seen from a server that has been `up` for so many seconds."""

    def __init__(self) -> None:
        self._began = monotonic()
        self._looking = asyncio.Lock()
        self._seen: Seen | None = None
        self._look_again = 0.0
        psutil.cpu_percent()  # counts from the call before

    @property
    def up(self) -> float:
        return monotonic() - self._began

    async def look(self) -> Seen:
        async with self._looking:
            if self._seen is None or monotonic() >= self._look_again:
                memory = await asyncio.to_thread(read_memory)
                self._seen = Seen(psutil.cpu_percent(), memory)
                self._look_again = monotonic() + _GOOD_FOR
            return self._seen


async def resident(pids: Iterable[int]) -> dict[int, int]:
    """The bytes of memory that processes have; those that are gone are left out."""
    return await asyncio.to_thread(_resident, list(pids))


def _resident(pids: list[int]) -> dict[int, int]:
    found = {}
    for pid in pids:
        try:
            found[pid] = psutil.Process(pid).memory_info().rss
        except psutil.Error:
            continue
    return found
