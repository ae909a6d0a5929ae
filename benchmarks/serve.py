"""Workloads against running servers: `onebox bench`, or `python -m benchmarks.serve`.

Any OpenAI-compatible server will do. The first is compared with each other one.
"""

import asyncio
import secrets
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markdown import Markdown

from benchmarks import run
from benchmarks.client import Server, discover
from benchmarks.figures import Result, Targets
from benchmarks.machine import describe
from benchmarks.report import Report
from benchmarks.rounds import Rounds, Scenario, measure
from benchmarks.workloads import WORKLOADS, Steady, Workload

_HERE: Final = ["http://127.0.0.1:8000"]


def main(  # noqa: PLR0913 - typer wants one parameter per option
    urls: Annotated[
        list[str] | None, typer.Argument(help=f"Base URLs; by default {_HERE[0]}.")
    ] = None,
    *,
    workload: Annotated[
        list[str] | None,
        typer.Option("--workload", "-w", help=f"Any of {', '.join(WORKLOADS)}; may be repeated."),
    ] = None,
    clients: Annotated[str, typer.Option(help="Of steady; 1,2,4,8 measures four loads.")] = "8",
    prompt: Annotated[int, typer.Option(min=1, help="Tokens in, of steady.")] = 128,
    answer: Annotated[int, typer.Option(min=1, help="Tokens out, of steady.")] = 48,
    rounds: Annotated[int, typer.Option(min=1, help="On every server; medians are shown.")] = 3,
    busy: Annotated[bool, typer.Option(help="Keep one core busy meanwhile.")] = False,
    ttft_target: Annotated[float, typer.Option(help="Seconds a good answer may take.")] = 1.0,
    itl_target: Annotated[float, typer.Option(help="Seconds its p99 gap may be.")] = 0.2,
    seed: Annotated[
        int | None, typer.Option(help="Of prompts; used twice, caches know them the second time.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder for report.md, report.json and plots.")
    ] = None,
) -> None:
    """Measure running servers and compare the first with the others."""
    steady = [Steady(count, prompt, answer) for count in _counts(clients)]
    scenarios = [Scenario(w, busy) for w in _workloads(workload or ["steady"], steady)]
    seed = secrets.randbelow(10**6) if seed is None else seed
    how = Rounds(rounds, seed, Targets(ttft_target, itl_target))
    servers, results = asyncio.run(_measure(urls or _HERE, scenarios, how))
    about = {server.name: server.model for server in servers} | how.about | describe()
    report = Report(about, results, judged=False)
    Console().print(Markdown(report.tables))
    if out:
        report.write(out)
        typer.echo(f"{out / 'report.md'} is written.")


def _counts(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise typer.BadParameter(f"--clients {text} is not a list of numbers like 1,2,4,8.")
    return counts


def _workloads(names: list[str], steady: list[Steady]) -> list[Workload]:
    """`steady` stands for every load asked for."""
    for name in names:
        if name not in WORKLOADS:
            raise typer.BadParameter(f"{name} is none of {', '.join(WORKLOADS)}.")
    return [w for name in names for w in (steady if name == "steady" else [WORKLOADS[name]])]


async def _measure(
    urls: list[str], scenarios: list[Scenario], how: Rounds
) -> tuple[list[Server], list[Result]]:
    servers = [await discover(url) for url in urls]
    return servers, await measure(servers, scenarios, how)


if __name__ == "__main__":
    run(main)
