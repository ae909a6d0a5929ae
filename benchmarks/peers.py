"""Onebox beside llama-server, and where it is installed llama-cpp-python's own server: the same
model file, threads, slots and context, the workloads of the bars, in turn, in one report.

Servers that are not being measured are up and idle; each run waits until all of them are at
rest. A server is started anew for scenarios that want other settings.
"""

import asyncio
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Final

import psutil
import typer
from rich.console import Console
from rich.markdown import Markdown

from benchmarks import BenchmarkError, run
from benchmarks.client import discover
from benchmarks.figures import Result
from benchmarks.llama_server import built
from benchmarks.machine import describe
from benchmarks.processes import free_port, running
from benchmarks.report import Report
from benchmarks.rounds import Rounds, Scenario, measure
from benchmarks.workloads import WORKLOADS, Steady


@dataclass(frozen=True, slots=True)
class Setting:
    """How servers are started for a scenario; `context` counts tokens over all slots, and
    `unified` has the slots share them."""

    slots: int = 8
    context: int = 16_384
    queue: int = 256
    unified: bool = False

    def __str__(self) -> str:
        return f"{self.slots} slots, {self.context} tokens, queue {self.queue}"


@dataclass(frozen=True, slots=True)
class Case:
    """A scenario and what it wants of the servers."""

    scenario: Scenario
    setting: Setting = Setting()


_USUAL: Final = ("burst", "mixed", "chat", "cancel", "repeat", "novel")

# Neighbours with equal settings share a start. `growing` needs 4,096 cells in all.
CASES: Final = {
    "steady-1": Case(Scenario(Steady(1))),
    "steady-8": Case(Scenario(Steady(8))),
    **{name: Case(Scenario(WORKLOADS[name])) for name in _USUAL},
    "busy": Case(Scenario(Steady(8), busy=True)),
    "steady-32": Case(Scenario(Steady(32)), Setting(slots=32)),
    "overload": Case(Scenario(WORKLOADS["overload"]), Setting(queue=16)),
    "growing": Case(Scenario(WORKLOADS["growing"]), Setting(context=2048, unified=True)),
}


@dataclass(frozen=True, slots=True)
class Box:
    """What all servers have in common; `tools` is where llama-server is."""

    model: Path
    threads: int
    tools: Path


def onebox_command(box: Box, setting: Setting, port: int) -> list[str]:
    onebox = Path(sys.executable).with_name("onebox")
    options = f"--slots {setting.slots} --context {setting.context} --queue {setting.queue}"
    options += " --no-tuned" + (" --kv-layout unified" if setting.unified else "")
    return [str(onebox), "serve", str(box.model), *_split(options, box, "--threads", port)]


def llama_server_command(box: Box, setting: Setting, port: int) -> list[str]:
    options = f"-np {setting.slots} -c {setting.context} --no-webui"
    options += " -kvu" if setting.unified else ""
    server = box.tools / "llama-server"
    return [str(server), "-m", str(box.model), *_split(options, box, "-t", port)]


def llama_cpp_command(box: Box, setting: Setting, port: int) -> list[str]:
    """It has one slot, and by default drops a running answer for a new request."""
    options = f"--n_ctx {setting.context // setting.slots} --interrupt_requests false"
    module = [sys.executable, "-m", "llama_cpp.server", "--model", str(box.model)]
    return [*module, *_split(options, box, "--n_threads", port)]


def _split(options: str, box: Box, threads: str, port: int) -> list[str]:
    return f"{options} {threads} {box.threads} --host 127.0.0.1 --port {port}".split()


@dataclass(frozen=True, slots=True)
class Peer:
    """A server program: its command line, the path that says it is ready, and flags on top."""

    name: str
    command: Callable[[Box, Setting, int], list[str]]
    ready: str
    flags: tuple[str, ...] = ()


def main(  # noqa: PLR0913 - typer wants one parameter per option
    model: Annotated[Path, typer.Argument(exists=True, help="A GGUF file.")],
    folder: Annotated[Path, typer.Argument(help="Of benchmarks.llama_server, built if needed.")],
    *,
    case: Annotated[
        list[str] | None, typer.Option(help=f"Any of {', '.join(CASES)}; by default all.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1)] = psutil.cpu_count(logical=False) or 1,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    seed: Annotated[int, typer.Option(help="Of the prompts.")] = 0,
    onebox: Annotated[str, typer.Option(help="Further flags of onebox serve.")] = "",
    llama_server: Annotated[str, typer.Option(help="Further flags of llama-server.")] = "",
    llama_cpp: Annotated[bool, typer.Option(help="Measure llama_cpp.server as well.")] = False,
    out: Annotated[Path, typer.Option(help="A folder for the report and logs.")] = Path("peers"),
) -> None:
    """Measure Onebox beside its peers and write one report."""
    peers = [
        Peer("Onebox", onebox_command, "/ready", tuple(shlex.split(onebox))),
        Peer("llama-server", llama_server_command, "/health", tuple(shlex.split(llama_server))),
    ]
    if llama_cpp:
        peers.append(_third())
    chosen = _cases(case or list(CASES))
    out.mkdir(parents=True, exist_ok=True)
    bench = Bench(Box(model.absolute(), threads, built(folder.absolute())), peers, out)
    how = Rounds(rounds, seed)
    report = Report(describe() | bench.versions() | how.about, [])
    for setting, cases in groupby(chosen, attrgetter("setting")):
        commands, results = bench.measure(setting, [case.scenario for case in cases], how)
        report.about.update(commands)
        report.results.extend(results)
        report.write(out)  # what is measured is kept, whatever happens to the rest
    Console().print(Markdown(report.tables))
    typer.echo(f"{out / 'report.md'} is written.")


def _cases(names: list[str]) -> list[Case]:
    for name in names:
        if name not in CASES:
            raise typer.BadParameter(f"{name} is none of {', '.join(CASES)}.")
    return [case for name, case in CASES.items() if name in names]


def _third() -> Peer:
    if not find_spec("starlette_context"):  # of its extra, and of nothing else here
        raise BenchmarkError(
            "llama_cpp.server is not installed: pip install 'llama-cpp-python[server]'."
        )
    return Peer("llama_cpp.server", llama_cpp_command, "/v1/models")


@dataclass(frozen=True, slots=True)
class Bench:
    """The servers' programs, what they have in common, and the folder of their logs."""

    box: Box
    peers: list[Peer]
    logs: Path

    def versions(self) -> dict[str, str]:
        command = [str(self.box.tools / "llama-server"), "--version"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        said = (ran.stdout + ran.stderr).splitlines()
        version = next((line for line in said if line.startswith("version: ")), "unknown")
        return {"llama-server": version.removeprefix("version: "), "model": self.box.model.name}

    def measure(
        self, setting: Setting, scenarios: list[Scenario], how: Rounds
    ) -> tuple[dict[str, str], list[Result]]:
        """Start every server, measure the scenarios on all of them; their commands and results."""
        commands, started, urls = {}, [], {}
        with ExitStack() as stack:
            for peer in self.peers:
                port, label = free_port(), f"{peer.name}, {setting}"
                command = [*peer.command(self.box, setting, port), *peer.flags]
                commands[label] = shlex.join(command)
                log = self.logs / f"{label.replace(', ', '-').replace(' ', '-')}.log"
                server = stack.enter_context(running(label, command, log))
                started.append(server)
                urls[peer.name] = f"http://127.0.0.1:{port}"
                server.until_answers(urls[peer.name] + peer.ready)

            async def settle() -> None:
                for server in started:
                    await server.at_rest()

            return commands, asyncio.run(_measure(urls, scenarios, replace(how, settle=settle)))


async def _measure(urls: dict[str, str], scenarios: list[Scenario], how: Rounds) -> list[Result]:
    servers = [await discover(url, name) for name, url in urls.items()]
    return await measure(servers, scenarios, how)


if __name__ == "__main__":
    run(main)
