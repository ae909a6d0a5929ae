"""Runs scenarios on several servers in turn, round by round, so that a drift of the machine hits
all of them; shows how far it is while it runs.

Knows neither how servers are started nor what a workload asks.
"""

import random
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import BenchmarkError
from benchmarks.client import Answer, Client, Server
from benchmarks.figures import Outcome, Result, Targets, figures
from benchmarks.workloads import Steady, Workload

_WARM_UP: Final = Steady(prompt=64, answer=4, each=1)
_TARGETS: Final = Targets()
_COLUMNS: Final = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("answers, {task.fields[tokens]} tokens"),
    TimeElapsedColumn(),
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A workload, perhaps beside a process that keeps one core busy."""

    workload: Workload
    busy: bool = False

    @property
    def title(self) -> str:
        return f"{self.workload.title}, busy box" if self.busy else self.workload.title

    @property
    def clients(self) -> int | None:
        """The load of a point on the curve of the first token over load."""
        match self.workload:
            case Steady(clients=clients, name="steady") if not self.busy:
                return clients
        return None


async def at_once() -> None:
    """For servers that are taken as they are."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """How to measure. Before every run `settle` is awaited: until the servers are at rest."""

    count: int = 3
    seed: int = 0
    targets: Targets = _TARGETS
    settle: Callable[[], Awaitable[None]] = at_once

    @property
    def about(self) -> dict[str, str]:
        """What a report says of it."""
        good = f"TTFT within {self.targets.ttft:g} s, p99 gap within {self.targets.gap:g} s"
        return {"rounds": str(self.count), "seed": str(self.seed), "a good answer": good}


async def measure(servers: list[Server], scenarios: list[Scenario], how: Rounds) -> list[Result]:
    """Every scenario, `how.count` rounds on every server in turn.

    All are asked the same: in words, if one of them takes no token ids. Raises BenchmarkError if
    a server cannot even be warmed up.
    """
    if not all(server.ids for server in servers):
        servers = [replace(server, ids=None) for server in servers]
    with Progress(*_COLUMNS, refresh_per_second=2) as progress:
        for server in servers:
            warm = await _run(server, Scenario(_WARM_UP), f"{how.seed}")
            if not any(answer.ok for answer in warm.answers):
                raise BenchmarkError(f"{server.name}: {warm.answers[0].error}")
        return [await _measure(servers, scenario, how, progress) for scenario in scenarios]


async def _measure(
    servers: list[Server], scenario: Scenario, how: Rounds, progress: Progress
) -> Result:
    result = Result(scenario.title, scenario.clients)
    runs = how.count * len(servers)
    task = progress.add_task("", total=runs * scenario.workload.requests, tokens=0)
    tokens = 0

    def watch(answer: Answer) -> None:
        nonlocal tokens
        tokens += answer.tokens or 0
        progress.update(task, advance=1, tokens=tokens)

    for number in range(1, how.count + 1):
        for server in servers:
            where = f"{scenario.title}: round {number} of {how.count}, {server.name}"
            progress.update(task, description=where)
            await how.settle()
            seed = f"{how.seed} {scenario.title} {number}"
            outcome = await _run(server, scenario, seed, watch)
            result.add(server.name, figures(outcome, how.targets), outcome.gaps, outcome.error)
    return result


async def _run(
    server: Server, scenario: Scenario, seed: str, watch: Callable[[Answer], None] = lambda _: None
) -> Outcome:
    with _neighbour() if scenario.busy else nullcontext():
        return await scenario.workload.run(Client(server, watch), random.Random(seed))


@contextmanager
def _neighbour() -> Iterator[None]:
    """Another process that keeps one core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()
