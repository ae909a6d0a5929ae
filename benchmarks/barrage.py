"""Fires shots at a server, so many at a time, and tallies what comes back.

The same seed fires the same shots; only their order depends on how fast the server answers.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice
from typing import Final
from urllib.parse import urlsplit

from benchmarks.body_mutants import Mutants
from benchmarks.contract import Contract, fault
from benchmarks.exchange import Exchange, Shot, exchange
from benchmarks.generated import generate
from benchmarks.raw_mutants import raw_mutants

_SCHEMA, _RAW = 0.1, 0.2  # of all shots; making one of the former takes 35 ms of CPU
_PATIENCE: Final = 30  # seconds for an answer; longer is a hang


@dataclass(frozen=True, slots=True)
class Plan:
    requests: int
    seed: int
    at_once: int = 16


@dataclass(slots=True)
class Tally:
    """What came back; `problems` is problem -> the shots that had it."""

    shots: int = 0
    slowest: tuple[float, str] = (0.0, "none")
    statuses: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: dict[str, list[Shot]] = field(default_factory=dict)

    def count(self, shot: Shot, found: Exchange, contract: Contract) -> None:
        self.shots += 1
        self.slowest = max(self.slowest, (found.seconds, f"{shot.kind}, {shot.name}"))
        statuses = [str(reply.status) for reply in found.replies] or ["none"]
        self.statuses.update((shot.kind, status) for status in statuses)
        breaches = (fault(reply) or contract.breach(reply, shot.path) for reply in found.replies)
        for problem in filter(None, (found.trouble, *breaches)):
            self.problems.setdefault(problem, []).append(shot)


class _Over(BaseException):
    """Nobody takes shots any more. An `Exception` would have Hypothesis make the same again."""


async def barrage(url: str, contract: Contract, plan: Plan, watch: Callable[[], None]) -> Tally:
    """Fire all of `plan` at `url`; `watch` is called after every shot."""
    host = urlsplit(url).netloc
    name, _, port = host.rpartition(":")
    tally = Tally()
    shots: asyncio.Queue[Shot | None] = asyncio.Queue(plan.at_once)

    async def fire() -> None:
        while shot := await shots.get():
            tally.count(shot, await exchange(name, int(port), shot, _PATIENCE), contract)
            watch()

    async with asyncio.TaskGroup() as group:
        for _ in range(plan.at_once):
            group.create_task(fire())
        await _load(shots, host, contract, plan)
        for _ in range(plan.at_once):
            await shots.put(None)
    return tally


async def _load(
    shots: asyncio.Queue[Shot | None], host: str, contract: Contract, plan: Plan
) -> None:
    """Make the shots of all kinds, beside each other."""
    schema, raw = round(plan.requests * _SCHEMA), round(plan.requests * _RAW)
    mutants = iter(Mutants(contract, host, plan.seed))

    async def put(some: Iterable[Shot]) -> None:
        for shot in some:
            await shots.put(shot)

    async def put_generated() -> None:
        left = schema
        async with aclosing(_generated(contract, host, plan.seed, schema)) as some:
            async for shot in some:
                await shots.put(shot)
                left -= 1
        await put(islice(mutants, left))  # Hypothesis may run out of bodies

    async with asyncio.TaskGroup() as group:
        group.create_task(put_generated())
        group.create_task(put(islice(raw_mutants(host, plan.seed), raw)))
        group.create_task(put(islice(mutants, plan.requests - schema - raw)))


async def _generated(
    contract: Contract, host: str, seed: int, count: int
) -> AsyncGenerator[Shot, None]:
    """What `generate` makes, on a thread of its own."""
    loop, over = asyncio.get_running_loop(), threading.Event()
    made: asyncio.Queue[Shot | None] = asyncio.Queue()

    def take(shot: Shot | None) -> None:
        if over.is_set():
            raise _Over
        loop.call_soon_threadsafe(made.put_nowait, shot)

    def make() -> None:
        try:
            generate(contract, host, seed, count, take)
        finally:
            take(None)

    making = asyncio.create_task(asyncio.to_thread(make))
    try:
        while shot := await made.get():
            yield shot
        await making
    finally:
        over.set()
