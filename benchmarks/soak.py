"""Hours of mixed use with faults: `make soak MINUTES=60`, or `python -m benchmarks.soak`.

A real server on loopback with the bundled model, and clients of every temper: some read to the end,
some hang up, some lose their connection and come back, some hardly read; now and then the worker is
killed. Every text that should be whole is compared with one from before. What must not grow is
sampled all along; the report says what was seen, and whether it is good.
"""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final

import httpx
import psutil
import typer
from rich.console import Console
from rich.markdown import Markdown

from benchmarks import BenchmarkError, run
from benchmarks.machine import describe
from benchmarks.processes import Running, onebox
from benchmarks.witness import CHAT, Account, frames, question, witness

_QUESTIONS: Final = 21
_PATIENCE: Final = 300  # seconds for an answer
_GROWTH: Final = 32.0  # MiB that the server may have grown since it was warm
_SLOW_BYTES: Final = 200  # a second
_TEMPERS: Final = {"faithful": 8, "fickle": 3, "unlucky": 3, "slow": 2}  # clients of each


@dataclass(frozen=True, slots=True)
class Sample:
    """At `at` seconds: memory in MiB, descriptors, and the seconds in which /health answered."""

    at: float
    server: float
    worker: float
    descriptors: int
    health: float


@dataclass(slots=True)
class Log:
    """What happened: streams by how they ended, kills, and samples."""

    ends: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    samples: list[Sample] = field(default_factory=list)

    def judge(self, account: Account, expected: str) -> None:
        if not account.explicit:
            self.ends["BAD: no end, or two"] += 1
        elif account.errors:
            self.ends[f"BAD: {account.errors[0]}"] += 1
        elif account.numbers != sorted(set(account.numbers)):
            self.ends["BAD: an event lost or doubled"] += 1
        else:
            self.ends["right" if account.said == expected else "BAD: wrong text"] += 1

    @property
    def growth(self) -> float:
        """MiB that the server has grown since the first quarter."""
        warm = self.samples[len(self.samples) // 4 :]
        return warm[-1].server - warm[0].server

    @property
    def complaints(self) -> list[str]:
        found = [f"{n} streams: {end}" for end, n in self.ends.items() if end.startswith("BAD")]
        if self.growth > _GROWTH:
            found.append(f"the server has grown by {self.growth:.0f} MiB")
        if self.samples[-1].descriptors > self.samples[0].descriptors:
            found.append("descriptors are left over")
        return found


def main(
    minutes: Annotated[float, typer.Option(min=0.1)] = 60.0,
    kill_every: Annotated[float, typer.Option(min=0, help="Seconds; 0 never kills.")] = 60.0,
    seed: Annotated[int, typer.Option()] = 0,
    out: Annotated[Path | None, typer.Option(help="A file for the report.")] = None,
) -> None:
    """Use a server for a long time, with faults; end with 1 if anything is not as it should be."""
    with TemporaryDirectory() as folder, onebox(Path(folder)) as (server, address):
        soak = _Soak(server, address, random.Random(seed))
        log = asyncio.run(soak.run(60 * minutes, kill_every))
    report = _report(log, minutes, kill_every)
    Console().print(Markdown(report))
    if out:
        out.write_text(report)
    if log.complaints:
        raise SystemExit(1)


class _Soak:
    def __init__(self, server: Running, url: str, rng: random.Random) -> None:
        self._server = server
        self._rng = rng
        self._http = httpx.AsyncClient(
            base_url=url, timeout=_PATIENCE, limits=httpx.Limits(max_connections=None)
        )
        self._right: list[str] = []
        self._log = Log()
        self._began = 0.0

    async def run(self, seconds: float, kill_every: float) -> Log:
        async with self._http:
            for number in range(_QUESTIONS):
                self._right.append((await witness(self._http, question(number))).said)
            self._began = time.monotonic()
            await self._sample()
            await self._use(seconds, kill_every)
            await self._server.at_rest()
        async with httpx.AsyncClient(base_url=self._http.base_url) as self._http:
            await self._sample()
        return self._log

    async def _use(self, seconds: float, kill_every: float) -> None:
        until = time.monotonic() + seconds

        async def again(act: Callable[[], Awaitable[None]], pause: float = 0.0) -> None:
            await asyncio.sleep(pause)
            while time.monotonic() < until:
                await act()
                await asyncio.sleep(min(pause, max(0.0, until - time.monotonic())))

        async with asyncio.TaskGroup() as tasks:
            for temper, count in _TEMPERS.items():
                for _ in range(count):
                    tasks.create_task(again(getattr(self, f"_{temper}")))
            tasks.create_task(again(self._sample, min(10.0, seconds / 20)))
            if kill_every:
                tasks.create_task(again(self._kill, kill_every))

    def _pick(self) -> int:
        return self._rng.randrange(_QUESTIONS)

    async def _faithful(self) -> None:
        number = self._pick()
        self._log.judge(await witness(self._http, question(number)), self._right[number])

    async def _fickle(self) -> None:
        """Hangs up, anywhere."""
        account, most = Account(), self._rng.randrange(150)
        async with self._http.stream("POST", CHAT, json=question(self._pick())) as response:
            async for frame in frames(response):
                account.take(frame)
                if (most := most - 1) < 0:
                    break
        self._log.ends["hung up"] += 1

    async def _unlucky(self) -> None:
        """Loses its connection again and again, and goes on."""
        number, account = self._pick(), Account()
        body = question(number) | {"resumable": True}
        while not account.done:
            headers = {"Last-Event-ID": account.last} if account.last else {}
            most = self._rng.randrange(1, 60)
            async with self._http.stream("POST", CHAT, json=body, headers=headers) as response:
                if response.status_code != 200:
                    account.errors.append(f"status {response.status_code}")
                    account.done = True
                async for frame in frames(response):
                    account.take(frame)
                    if (most := most - 1) < 0:
                        break
        self._log.judge(account, self._right[number])

    async def _slow(self) -> None:
        """Reads a little each second, for a while."""
        with suppress(httpx.StreamClosed):
            async with self._http.stream("POST", CHAT, json=question(self._pick())) as response:
                parts = response.aiter_raw(_SLOW_BYTES)
                for _ in range(self._rng.randrange(10)):
                    await anext(parts, b"")
                    await asyncio.sleep(1)
        self._log.ends["read slowly"] += 1

    async def _kill(self) -> None:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(self._server.worker).send_signal(signal.SIGKILL)
            self._log.kills += 1

    async def _sample(self) -> None:
        server, worker = psutil.Process(self._server.pid), 0.0
        with suppress(psutil.NoSuchProcess, BenchmarkError):
            worker = psutil.Process(self._server.worker).memory_info().rss / (1 << 20)
        asked = time.perf_counter()
        (await self._http.get("/health")).raise_for_status()
        sample = Sample(
            at=time.monotonic() - self._began,
            server=server.memory_info().rss / (1 << 20),
            worker=worker,
            descriptors=server.num_fds(),
            health=time.perf_counter() - asked,
        )
        self._log.samples.append(sample)


def _report(log: Log, minutes: float, kill_every: float) -> str:
    lines = [f"# {minutes:g} minutes, a kill every {kill_every:g} seconds", ""]
    lines += [f"- {name}: {value}" for name, value in describe().items()]
    lines += ["", "| streams | |", "|---|---|"]
    lines += [f"| {end} | {count} |" for end, count in sorted(log.ends.items())]
    lines += [f"| kills | {log.kills} |", "", "| at (s) | server (MiB) | worker (MiB) | fds |"]
    lines += ["|---|---|---|---|"]
    step = max(1, len(log.samples) // 12)
    for sample in [*log.samples[:-1:step], log.samples[-1]]:
        memory = f"{sample.server:.0f} | {sample.worker:.0f}"
        lines.append(f"| {sample.at:.0f} | {memory} | {sample.descriptors} |")
    slowest = max(sample.health for sample in log.samples)
    lines += ["", f"/health took at most {1000 * slowest:.0f} ms. "]
    return "\n".join(lines) + ("; ".join(log.complaints) or "All is as it should be.") + "\n"


if __name__ == "__main__":
    run(main)
