"""Kills the worker under running streams: `python -m benchmarks.kills`.

First once with all streams open, then again and again under load. A real server on loopback with
the bundled model; every text is compared with that of a run in which nobody was killed.
"""

import asyncio
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final

import httpx
import psutil
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import run
from benchmarks.processes import Running, onebox
from benchmarks.witness import Account, question, witness

_PATIENCE: Final = 300  # seconds for an answer
_QUESTIONS: Final = 21  # of which the answers are known


@dataclass(slots=True)
class Tally:
    """Streams by how they ended, and the seconds until the server was ready again."""

    right: int = 0
    wrong: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    endless: int = 0
    down: list[float] = field(default_factory=list)

    def book(self, account: Account, expected: str) -> None:
        if not account.explicit:
            self.endless += 1
        elif account.errors:
            self.failed[account.errors[0]] += 1
        elif account.said == expected:
            self.right += 1
        else:
            self.wrong += 1

    @property
    def clean(self) -> bool:
        return not (self.wrong or self.failed or self.endless)


def main(
    streams: Annotated[int, typer.Option(min=1, help="At a time.")] = 32,
    kills: Annotated[int, typer.Option(min=0, help="In a row, under load.")] = 20,
    tokens: Annotated[int, typer.Option(min=8, help="Of every answer.")] = 200,
    seed: Annotated[int, typer.Option(help="Of when the worker is killed.")] = 0,
) -> None:
    """Kill the worker under running streams; end with 1 unless all of them end as they should."""
    with TemporaryDirectory() as folder, onebox(Path(folder)) as (server, address):
        trial = _Trial(server, address, tokens, random.Random(seed))
        once, often = asyncio.run(trial.run(streams, kills))
    table = Table("", "right", "wrong text", "an error", "no end", "restarts", "down, longest (s)")
    for name, tally in (("one kill", once), (f"{kills} kills", often)):
        errors = ", ".join(f"{n} {code}" for code, n in tally.failed.items()) or "0"
        row = (tally.right, tally.wrong, errors, tally.endless, len(tally.down))
        table.add_row(name, *map(str, row), f"{max(tally.down, default=0):.2f}")
    Console().print(table)
    if not (once.clean and often.clean):
        raise SystemExit(1)


class _Trial:
    def __init__(self, server: Running, url: str, tokens: int, rng: random.Random) -> None:
        self._server = server
        self._tokens = tokens
        self._rng = rng
        limits = httpx.Limits(max_connections=None)
        self._http = httpx.AsyncClient(base_url=url, timeout=_PATIENCE, limits=limits)
        self._right: dict[int, str] = {}

    async def run(self, streams: int, kills: int) -> tuple[Tally, Tally]:
        async with self._http:
            for number in range(_QUESTIONS):
                self._right[number] = (await self._ask(number)).said
            return await self._once(streams), await self._often(streams, kills)

    async def _ask(self, number: int) -> Account:
        return await witness(self._http, question(number % _QUESTIONS, self._tokens))

    async def _once(self, streams: int) -> Tally:
        tally = Tally()
        asked = [asyncio.create_task(self._ask(number)) for number in range(streams)]
        await asyncio.sleep(0.5)  # some answer, some are read, some wait
        await self._kill(tally)
        for number, account in enumerate(await asyncio.gather(*asked)):
            tally.book(account, self._right[number % _QUESTIONS])
        return tally

    async def _often(self, streams: int, kills: int) -> Tally:
        tally, numbers, over = Tally(), count(), asyncio.Event()

        async def ask_on() -> None:
            while not over.is_set():
                number = next(numbers)
                tally.book(await self._ask(number), self._right[number % _QUESTIONS])

        async with asyncio.TaskGroup() as tasks:
            for _ in range(streams):
                tasks.create_task(ask_on())
            for _ in range(kills):
                await asyncio.sleep(self._rng.uniform(0.1, 1.5))
                await self._kill(tally)
            over.set()
        return tally

    async def _kill(self, tally: Tally) -> None:
        """Kill the worker, and wait until there is another."""
        psutil.Process(self._server.worker).send_signal(signal.SIGKILL)
        began = time.monotonic()
        while (await self._http.get("/ready")).status_code == 200:
            await asyncio.sleep(0.005)
        while (await self._http.get("/ready")).status_code != 200:
            await asyncio.sleep(0.01)
        tally.down.append(time.monotonic() - began)


if __name__ == "__main__":
    run(main)
