"""Clients that hang up at random, by the thousand, on a real server with the bundled model: what
they leave behind, and whether anybody else notices.

    python -m benchmarks.cancels --count 10000

They leave before their request is read, in the queue, in the prompt, in the answer and at its end,
over connections of their own, streaming or not. One in ten stays, and has to get the very text that
it gets from an idle server. Afterwards nothing runs, every slot is there, and both processes hold
what they held before. Exit status 1 says that something is off.
"""

import asyncio
import json
import random
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final

import httpx
import psutil
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import run
from benchmarks.client import words
from benchmarks.post import post
from benchmarks.processes import Running, free_port, running

_SLOTS: Final = 8
_WARM_UP: Final = 500  # requests after which memory is taken
_MEMORY: Final = 20 << 20  # bytes that either process may have more at the end
_METRIC: Final = r"(?m)^(\w+)(?:\{model=\"[^\"]*\"\})? (\S+)$"
_STAYS: Final = 0.1
_LONGEST: Final = 120.0  # seconds for one answer
_QUESTIONS: Final = (
    "What is the capital of France?",
    "Tell me a story.",
    "Count from one to ten.",
    "My name is Ada. What is my name?",
)
_SERVE: Final = (sys.executable, "-c", "from api.cli import app; app()", "serve", "demo")
_MODELS: Final = """
models:
  demo:
    bundled: qwen3-demo
    aliases: [default]
    thinking: false
    host_cache_mib: 8 # full after the warm-up: what grows after that is lost
"""


def main(
    count: Annotated[int, typer.Option(min=1, help="Requests.")] = 10_000,
    clients: Annotated[int, typer.Option(min=1, help="At the same time.")] = 48,
    seed: int = 0,
) -> None:
    """Hang up in every way at every time, and look at what is left."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    options = ("--port", str(port), "--slots", str(_SLOTS), "--context", str(1024 * _SLOTS))
    with TemporaryDirectory() as folder:
        log, models = Path(folder) / "server.log", Path(folder) / "models.yaml"
        models.write_text(_MODELS)
        command = [*_SERVE, *options, "--config", str(models)]
        with running("onebox", command, log) as server:
            server.until_answers(f"{url}/ready")
            crowd = Crowd(url, random.Random(seed), clients)
            lines = asyncio.run(_measure(server, crowd, count))
        unexpected = log.read_text().count("Traceback")
    lines.append(Line("tracebacks in the server's log", "0", str(unexpected), not unexpected))
    _print(lines, crowd)
    raise typer.Exit(not all(line.good for line in lines))


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table: what was expected or there before, what is there, and is it good."""

    name: str
    before: str
    after: str
    good: bool


@dataclass(frozen=True, slots=True)
class Visit:
    """A request and when its client leaves: after so many seconds or lines of the answer, if it
    does. `question` is the one whose answer has to be exact."""

    kind: str
    body: dict[str, Any]
    seconds: float = _LONGEST
    lines: int | None = None
    question: str = ""


class Crowd:
    """Clients of one server, and how their visits ended."""

    def __init__(self, url: str, rng: random.Random, size: int) -> None:
        self.url = url
        self._rng = rng
        self._size = size
        self._truth: dict[str, str | None] = {}
        self.ends: Counter[tuple[str, str]] = Counter()
        self.seconds = 0.0

    async def learn(self) -> None:
        """What an idle server answers."""
        for question in _QUESTIONS:
            self._truth[question] = await self._answer(_chat(question))

    async def visit(self, count: int) -> None:
        """So many visits, a crowd at a time."""
        visits = iter([self._visit() for _ in range(count)])
        began = time.perf_counter()
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("visits", total=count)

            async def client() -> None:
                for visit in visits:
                    self.ends[visit.kind, await self._make(visit)] += 1
                    progress.advance(task)

            await asyncio.gather(*(client() for _ in range(self._size)))
        self.seconds = time.perf_counter() - began

    async def all_slots(self) -> float:
        """How many requests run when there is one for every slot; they leave at once."""
        bodies = [_chat(f"Tell me a story. ({n})", ignore_eos=True) for n in range(_SLOTS)]
        streams = [asyncio.create_task(self._answer(body)) for body in bodies]
        most = 0.0
        while most < _SLOTS and not all(stream.done() for stream in streams):
            most = max(most, (await self.metrics())["onebox_requests_running"])
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
        return most

    async def metrics(self) -> dict[str, float]:
        async with httpx.AsyncClient() as http:
            text = (await http.get(f"{self.url}/metrics", timeout=30)).text
        return {name: float(value) for name, value in re.findall(_METRIC, text)}

    def _visit(self) -> Visit:
        """One that stays, or leaves where chance wants it."""
        rng = self._rng
        if rng.random() < _STAYS:
            question = rng.choice(_QUESTIONS)
            streams = rng.random() < 0.5
            return Visit("stays", _chat(question, stream=streams), question=question)
        short, long = words(rng, rng.randint(1, 30)), words(rng, rng.randint(200, 700))
        kind = rng.choice(("unread", "prompt", "answer", "end", "whole"))
        match kind:
            case "unread":
                return Visit(kind, _chat(short), seconds=rng.uniform(0, 0.003))
            case "prompt":
                return Visit(kind, _chat(long), seconds=rng.uniform(0, 0.3))
            case "answer":
                body = _chat(short, ignore_eos=True)
                return Visit(kind, body, lines=rng.randint(1, 120))
            case "end":
                tokens = rng.randint(1, 12)
                body = _chat(short, ignore_eos=True, max_tokens=tokens)
                return Visit(kind, body, lines=2 * tokens + rng.randint(0, 6))
        body = _chat(short, stream=False, ignore_eos=True)
        return Visit(kind, body, seconds=rng.uniform(0, 0.6))

    async def _make(self, visit: Visit) -> str:
        """Ask, and leave as planned; how it ended."""
        try:
            async with asyncio.timeout(visit.seconds):
                text = await self._answer(visit.body, visit.lines)
        except TimeoutError:
            return "late" if visit.question else "left"
        except OSError as error:
            return type(error).__name__
        if not visit.question:
            return "left" if text is None else "answered before it left"
        return "exact" if text == self._truth[visit.question] else "different"

    async def _answer(self, body: dict[str, Any], lines: int | None = None) -> str | None:
        """The text of an answer; None if it was left after so many `lines`."""
        got: list[str] = []
        url = f"{self.url}/v1/chat/completions"
        async with post(url, json.dumps(body).encode()) as reply:
            async for line in reply.lines():
                got.append(line)
                if len(got) == lines:
                    return None
        return _text(got)


def _chat(question: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    common = {"messages": messages, "temperature": 0, "max_tokens": 300, "stream": True}
    return common | fields


def _text(lines: list[str]) -> str:
    """The content, whether it came in events or as one object."""
    if lines and lines[0].startswith("{"):
        return str(json.loads("".join(lines))["choices"][0]["message"]["content"])
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def _measure(server: Running, crowd: Crowd, count: int) -> list[Line]:
    await crowd.learn()
    await crowd.visit(_WARM_UP)
    await _idle(crowd)
    before = _census(server)
    crowd.ends.clear()
    await crowd.visit(count)
    state = await _idle(crowd)
    after = await _settled(server, before)
    lines = [_line(name, before[name], after[name]) for name in before]
    for name in ("requests_running", "requests_waiting", "worker_restarts_total"):
        value = state[f"onebox_{name}"]
        lines.append(Line(name.replace("_", " "), "0", f"{value:.0f}", not value))
    used, total = state["onebox_kv_cells_used"], state["onebox_kv_cells_total"]
    lines.append(Line("KV cells in use", f"<= {total:.0f}", f"{used:.0f}", used <= total))
    slots = await crowd.all_slots()
    lines.append(Line("slots that run", str(_SLOTS), f"{slots:.0f}", slots == _SLOTS))
    stayed = sum(n for (kind, _), n in crowd.ends.items() if kind == "stays")
    exact = crowd.ends["stays", "exact"]
    lines.append(Line("exact answers of who stayed", str(stayed), str(exact), exact == stayed))
    odd = sum(n for (_, end), n in crowd.ends.items() if end not in _EXPECTED)
    lines.append(Line("visits that ended oddly", "0", str(odd), not odd))
    return lines


_EXPECTED: Final = {"left", "answered before it left", "exact"}


def _line(name: str, before: int, after: int) -> Line:
    if name.endswith("memory"):
        more = f"{(after - before) / 2**20:+.1f} MiB"
        return Line(name, f"<= +{_MEMORY >> 20} MiB", more, after - before <= _MEMORY)
    return Line(name, str(before), str(after), before == after)


def _census(server: Running) -> dict[str, int]:
    """What both processes hold."""
    api = psutil.Process(server.pid)
    [worker] = api.children()
    census = {"workers": len(api.children(recursive=True))}
    for who, process in (("API", api), ("worker", worker)):
        census[f"{who} descriptors"] = process.num_fds()
        census[f"{who} threads"] = process.num_threads()
        census[f"{who} memory"] = process.memory_info().rss
    return census


async def _idle(crowd: Crowd) -> dict[str, float]:
    """Wait until nothing runs and nothing waits, as long as that may take."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        state = await crowd.metrics()
        if state["onebox_requests_running"] == state["onebox_requests_waiting"] == 0:
            break
        await asyncio.sleep(0.05)
    return state


async def _settled(server: Running, before: dict[str, int]) -> dict[str, int]:
    """What is held once connections that were closed are gone on the server's side too."""
    deadline = time.monotonic() + 10
    while (now := _census(server)) != before and time.monotonic() < deadline:
        if all(_line(name, before[name], now[name]).good for name in before):
            break
        await asyncio.sleep(0.1)
    return now


def _print(lines: list[Line], crowd: Crowd) -> None:
    console = Console()
    ends = Table("leaves in", "how it ended", "visits", title="Visits")
    for (kind, end), count in sorted(crowd.ends.items()):
        ends.add_row(kind, end, str(count))
    table = Table("", "before or allowed", "after", "", title="What is left")
    for line in lines:
        table.add_row(line.name, line.before, line.after, "good" if line.good else "OFF")
    total = sum(crowd.ends.values())
    console.print(ends, table, f"{total} visits in {crowd.seconds:.0f} s")


if __name__ == "__main__":
    run(main)
