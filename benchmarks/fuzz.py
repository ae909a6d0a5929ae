"""Sends what nobody would send and watches whether the server minds: `python -m benchmarks.fuzz`.

Starts `onebox serve` on the bundled model, or takes a running server. Bodies come from its own
OpenAPI document (`generated`), from valid bodies with changes (`body_mutants`) and from bent HTTP
(`raw_mutants`). It passes if no answer is a fault, none is missing, each is as the document says,
no worker died, and the server answers afterwards as it did before.
"""

import asyncio
import re
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from benchmarks import BenchmarkError, run
from benchmarks.processes import free_port, running

try:
    from benchmarks.barrage import Plan, Tally, barrage
    from benchmarks.contract import Contract
except ModuleNotFoundError as error:
    raise SystemExit(f"{error.name} is missing; make dev installs it.") from None

_SHOWN: Final = 3  # shots of each problem
_LINES: Final = 10  # of the log
_CONTEXT: Final = ("--slots", "8", "--context", "2048")  # short: what asks for all of it ends soon
_QUESTION: Final = {
    "messages": [{"role": "user", "content": "What is 2 + 3?"}],
    "temperature": 0,
    "max_tokens": 24,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """A tally, and what became of the server; `same` is whether it answers as before."""

    tally: Tally
    restarts: int
    same: bool
    seconds: float

    @property
    def passed(self) -> bool:
        return self.same and not self.restarts and not self.tally.problems


def main(
    requests: Annotated[int, typer.Option(min=10)] = 50_000,
    seed: Annotated[int | None, typer.Option(help="The same seed sends the same again.")] = None,
    url: Annotated[str | None, typer.Option(help="A running Onebox; else one is started.")] = None,
    at_once: Annotated[int, typer.Option(min=1, help="Connections at a time.")] = 16,
) -> None:
    """Send requests that nobody would send; end with 1 if the server minds."""
    seed = secrets.randbelow(10**6) if seed is None else seed
    plan = Plan(requests, seed, at_once)
    with TemporaryDirectory() as folder, serving(url, Path(folder) / "onebox.log") as address:
        verdict = attack(address, plan)
    _print(verdict, plan)
    if not verdict.passed:
        raise SystemExit(1)


def attack(url: str, plan: Plan) -> Verdict:
    """Carry out `plan` on the server at `url`."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with httpx.Client(base_url=url, timeout=60) as http, Progress(*columns) as progress:
        contract = Contract(http.get("/openapi.json").raise_for_status().json())
        answer, before = _answer(http), restarts(http)
        task = progress.add_task("fuzz", total=plan.requests)
        began = time.monotonic()
        tally = asyncio.run(barrage(url, contract, plan, lambda: progress.advance(task)))
        seconds = time.monotonic() - began
        same = _answer(http) == answer  # loads the model again, if a request had it unloaded
        return Verdict(tally, restarts(http) - before, same, seconds)


@contextmanager
def serving(url: str | None, log: Path) -> Iterator[str]:
    """The server to attack, started if there is no `url`; then what it logs is told afterwards."""
    if url:
        yield url.rstrip("/").removesuffix("/v1")
        return
    address = f"http://127.0.0.1:{(port := free_port())}"
    onebox = str(Path(sys.executable).with_name("onebox"))
    command = [onebox, "serve", "qwen3-demo", "--port", str(port), "--no-tuned", *_CONTEXT]
    with running("onebox", command, log) as process:
        process.until_answers(f"{address}/ready")
        greeting = log.stat().st_size
        yield address
    said = Counter(log.read_bytes()[greeting:].decode(errors="replace").splitlines())
    for line, times in said.most_common(_LINES):
        typer.echo(f"{times} times in the log: {line[:200]}")


def restarts(http: httpx.Client) -> int:
    """How often workers were started again, if the model is loaded."""
    found = re.search(r"^onebox_worker_restarts_total{.*} (\S+)", http.get("/metrics").text, re.M)
    if not found:
        raise BenchmarkError(f"{http.base_url} has no metrics of Onebox.")
    return int(float(found[1]))


def _answer(http: httpx.Client) -> str:
    """What the server says to a plain question."""
    reply = http.post("/v1/chat/completions", json=_QUESTION)
    return str(reply.json()["choices"][0]["message"]) if reply.is_success else reply.text


def _print(verdict: Verdict, plan: Plan) -> None:
    tally = verdict.tally
    kinds = sorted({kind for kind, _ in tally.statuses})
    table = Table("status", *kinds, title=f"{tally.shots} shots of seed {plan.seed}")
    for status in sorted({status for _, status in tally.statuses}):
        table.add_row(status, *(str(tally.statuses[kind, status]) for kind in kinds))
    console = Console(markup=False, highlight=False)
    console.print(table)
    for problem, shots in tally.problems.items():
        console.print(f"{problem}: {len(shots)} times, for example")
        for shot in shots[:_SHOWN]:
            console.print(f"  {shot.kind}, {shot.name}: {b''.join(shot.pieces)[:600]!r}")
    console.print(
        f"{verdict.seconds:.0f} s, {tally.shots / verdict.seconds:.0f} shots/s, the slowest answer "
        f"{tally.slowest[0]:.1f} s ({tally.slowest[1]}); worker restarts {verdict.restarts}; "
        f"{'the same' if verdict.same else 'ANOTHER'} answer to a plain question afterwards; "
        f"{'passed' if verdict.passed else 'FAILED'}."
    )


if __name__ == "__main__":
    run(main)
