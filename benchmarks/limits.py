"""CPU that the API process spends on a streamed token, with no model behind it, beside what the
least of a server on the same libraries spends.

The clients are this process; CPU time is counted in the API process alone, from before the first
request to after the last, so what requests cost themselves is in it.
"""

import asyncio
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import track

from benchmarks import BenchmarkError, run
from benchmarks.client import Client, Server
from benchmarks.figures import Figures, Result
from benchmarks.machine import describe
from benchmarks.processes import Running, free_port, running
from benchmarks.report import Report

_KINDS: Final = ("onebox", "bare")


def main(
    streams: Annotated[int, typer.Option(min=1)] = 64,
    tokens: Annotated[int, typer.Option(min=2, help="Of each stream.")] = 256,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    out: Annotated[Path | None, typer.Option(help="A folder for the report.")] = None,
) -> None:
    """Measure the CPU that the API spends on a streamed token, beside a bare server's."""
    report = Report(describe(), [measure(streams, tokens, rounds)])
    Console().print(Markdown(report.tables))
    if out:
        report.write(out)


def measure(streams: int, tokens: int, rounds: int) -> Result:
    """Both servers in turn, round by round."""
    result = Result("limits")
    with TemporaryDirectory() as logs, ExitStack() as stack:
        servers = {kind: _start(stack, kind, Path(logs)) for kind in _KINDS}
        for _ in track(range(rounds), "limits"):
            for kind, (process, client) in servers.items():
                result.add(kind, asyncio.run(_load(process, client, streams, tokens)))
    return result


def _start(stack: ExitStack, kind: str, logs: Path) -> tuple[Running, Client]:
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "benchmarks.limits_server", kind, str(port)]
    process = stack.enter_context(running(kind, command, logs / f"{kind}.log"))
    process.until_answers(f"{url}/ready")
    return process, Client(Server(kind, url, "default", None))


async def _load(process: Running, client: Client, streams: int, tokens: int) -> Figures:
    before = process.cpu_seconds(children=False)
    answers = await asyncio.gather(*(client.ask("word", tokens) for _ in range(streams)))
    spent = process.cpu_seconds(children=False) - before
    if failed := [answer.error for answer in answers if not answer.ok]:
        raise BenchmarkError(f"{client.server.name}: {failed[0]}")
    chunks = sum(len(answer.chunks) for answer in answers)
    return {
        "API CPU per token us": 1e6 * spent / sum(answer.tokens or 0 for answer in answers),
        "tokens in a chunk": sum(answer.tokens or 0 for answer in answers) / chunks,
    }


if __name__ == "__main__":
    run(main)
