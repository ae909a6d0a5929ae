"""Fires shots at a server, so many at a time, and tallies what comes back.

The same seed fires the same shots; only their order depends on how fast the server answers.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from itertools import islice
from typing import Final
from urllib.parse import urlsplit

from benchmarks.contract import Contract
from benchmarks.exchange import Exchange, Shot, exchange
from benchmarks.generated import generate
from benchmarks.mutants import Mutants
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
        breaches = (contract.breach(reply, shot.path) for reply in found.replies)
        for problem in filter(None, (found.trouble, *breaches)):
            self.problems.setdefault(problem, []).append(shot)


class _Over(BaseException):
    """Nobody takes shots any more. After an `Exception`, Hypothesis would make the same again."""


async def barrage(url: str, contract: Contract, plan: Plan, watch: Callable[[], None]) -> Tally:
    """Fire all of `plan` at `url`; `watch` is called after every shot."""
    host = urlsplit(url).netloc
    tally = Tally()
    shots: asyncio.Queue[Shot | None] = asyncio.Queue(plan.at_once)
    async with asyncio.TaskGroup() as group:
        for _ in range(plan.at_once):
            group.create_task(_fire(host, shots, contract, tally, watch))
        await _load(host, shots, contract, plan)
        for _ in range(plan.at_once):
            await shots.put(None)
    return tally


async def _fire(
    host: str,
    shots: asyncio.Queue[Shot | None],
    contract: Contract,
    tally: Tally,
    watch: Callable[[], None],
) -> None:
    name, _, port = host.rpartition(":")
    while shot := await shots.get():
        tally.count(shot, await exchange(name, int(port), shot, _PATIENCE), contract)
        watch()


async def _load(
    host: str, shots: asyncio.Queue[Shot | None], contract: Contract, plan: Plan
) -> None:
    """Make the shots of all kinds, beside each other."""
    loop = asyncio.get_running_loop()
    schema, raw = round(plan.requests * _SCHEMA), round(plan.requests * _RAW)

    async def put(made: Iterable[Shot]) -> None:
        for shot in made:
            await shots.put(shot)

    def take(shot: Shot) -> None:
        try:
            asyncio.run_coroutine_threadsafe(shots.put(shot), loop).result()
        except CancelledError:
            raise _Over from None

    mutants = iter(Mutants(contract, host, plan.seed))
    async with asyncio.TaskGroup() as group:
        generated = group.create_task(
            asyncio.to_thread(generate, contract, host, plan.seed, schema, take)
        )
        group.create_task(put(islice(raw_mutants(host, plan.seed), raw)))
        group.create_task(put(islice(mutants, plan.requests - schema - raw)))
    await put(islice(mutants, schema - generated.result()))
