"""Whether a crowd of slow readers and idle connections is felt by a healthy stream.

A real server on loopback. One healthy stream is measured beside other readers, and in turn beside
as many that hardly read, among thousands of silent, half-said and idle connections that come back
whenever they are turned out. The model has the same work both times: what differs is the API
process. The crowd is a process of its own, yet on this machine. Each round measures twice without
it: how far these differ is what the machine does by itself.
"""

import asyncio
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final

import msgspec
import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import BenchmarkError, run
from benchmarks.client import Client, Server
from benchmarks.crowd_client import Crowd, Fate
from benchmarks.processes import Running, free_port, running

BAR: Final = 1.1  # times the p95 gap without the crowd
_CONTEXT: Final = 2048  # tokens of a slot, and of every reader of the crowd
_ONEBOX: Final = (sys.executable, "-c", "from api.cli import app; app()", "serve", "qwen3-demo")
_BEAT: Final = (sys.executable, "-m", "benchmarks.limits_server", "onebox")
_QUANTILES: Final = (50, 95, 99, 100)


def main(
    slow: Annotated[int, typer.Option(min=0, help="Readers of a byte a second.")] = 16,
    idle: Annotated[int, typer.Option(min=0, help="Connections that ask for nothing.")] = 2000,
    tokens: Annotated[int, typer.Option(min=20, help="Of the healthy stream.")] = 800,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    model: Annotated[bool, typer.Option(help="Or a steady beat of 25 ms instead of one.")] = True,
) -> None:
    """Measure a healthy stream with and without a crowd; exit 1 where the crowd is felt."""
    port = free_port()
    without = Crowd(port=port, readers=slow, tokens=_CONTEXT - 100)
    crowd_of = msgspec.structs.replace(without, slow=True, idle=idle)
    crowds = {"without": without, "with": crowd_of, "without, again": without}
    gaps: dict[str, list[list[float]]] = {name: [] for name in crowds}
    fates = []
    with TemporaryDirectory() as logs, _served(port, slow + 1, model, Path(logs)) as server:
        client = Client(Server("onebox", f"http://127.0.0.1:{port}", "default", None))
        for number in track(range(rounds), "crowd"):
            for name in list(crowds)[:: -1 if number % 2 else 1]:
                asyncio.run(server.at_rest())
                with _beside(crowds[name]) as crowd:
                    answer = asyncio.run(client.ask("a", tokens))
                    fates.append(_gone(crowd))
                if not answer.ok:
                    raise BenchmarkError(f"the healthy stream {name} a crowd: {answer.error}")
                gaps[name].append(answer.gaps)
    ratio = _print(gaps, fates)
    if ratio > BAR:
        raise BenchmarkError(f"The crowd is felt: {ratio:.2f} is more than {BAR}.")


def _print(gaps: dict[str, list[list[float]]], fates: list[Fate]) -> float:
    """Show what was found; how much p95 grows with the crowd, the median over the rounds."""
    table = Table("a crowd", *(f"p{q} ms" for q in _QUANTILES), title="gaps between two tokens")
    for name, each in gaps.items():
        found = 1e3 * np.percentile(np.concatenate(each), _QUANTILES)
        table.add_row(name, *(f"{value:.1f}" for value in found))
    p95 = {name: [float(np.percentile(gap, 95)) for gap in each] for name, each in gaps.items()}
    console = Console()
    console.print(table)
    medians = {}
    for name in ("with", "without, again"):
        ratios = [a / b for a, b in zip(p95[name], p95["without"], strict=True)]
        medians[name] = statistics.median(ratios)
        rounds = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        console.print(f"p95 {name} / without: {medians[name]:.2f} (by round {rounds})")
    for kind in sorted({kind for fate in fates for kind in fate.turned_out}):
        count = sum(fate.turned_out.get(kind, 0) for fate in fates)
        longest = max(fate.longest.get(kind, 0.0) for fate in fates)
        console.print(f"{kind}: {count} turned out, after at most {longest:.1f} s")
    console.print(f"refused: {sum(fate.refused for fate in fates)}")
    return medians["with"]


@contextmanager
def _served(port: int, slots: int, model: bool, logs: Path) -> Iterator[Running]:
    size = ["--slots", str(slots), "--context", str(slots * _CONTEXT)]
    command = [*_ONEBOX, "--port", str(port), *size] if model else [*_BEAT, str(port)]
    with running("onebox", command, logs / "onebox.log") as server:
        server.until_answers(f"http://127.0.0.1:{port}/ready")
        yield server


@contextmanager
def _beside(crowd: Crowd) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that is all of `crowd`, once it is there."""
    command = [sys.executable, "-m", "benchmarks.crowd_client"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        assert process.stdin and process.stdout
        process.stdin.write(msgspec.json.encode(crowd) + b"\n")
        process.stdin.flush()
        if process.stdout.readline() != b"here\n":
            raise BenchmarkError("The crowd did not come; its error is above.")
        yield process


def _gone(crowd: "subprocess.Popen[bytes]") -> Fate:
    """Send the crowd away; what became of it."""
    output, _ = crowd.communicate()
    return msgspec.json.decode(output, type=Fate)


if __name__ == "__main__":
    run(main)
