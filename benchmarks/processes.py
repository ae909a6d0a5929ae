"""Servers as child processes: started on loopback, waited for, watched for rest, ended by pid."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx
import psutil

from benchmarks import BenchmarkError

_LONGEST_START: Final = 300.0  # seconds
_LONGEST_END: Final = 30.0
_LONGEST_WORK: Final = 120.0  # that a server may do for clients that have gone
_WINDOW: Final = 0.3  # over which rest is judged
_REST: Final = 0.03  # of one core


class Running:
    """A started server and the processes it has started itself."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    def until_answers(self, url: str) -> None:
        """Wait for a 200 from `url`. Raises BenchmarkError if it does not come."""
        deadline = time.monotonic() + _LONGEST_START
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise BenchmarkError(
                    f"{self.name} ended before it was ready; {self._log} says why."
                )
            with suppress(httpx.TransportError):
                if httpx.get(url, timeout=5).status_code == 200:
                    return
            time.sleep(0.1)
        raise BenchmarkError(
            f"{self.name} is not ready after {_LONGEST_START:.0f} s; see {self._log}."
        )

    @property
    def worker(self) -> int:
        """The process id of Onebox's worker. Raises BenchmarkError if there is none."""
        for child in psutil.Process(self.pid).children():
            with suppress(psutil.NoSuchProcess):
                if "inference.worker" in child.cmdline():
                    return int(child.pid)
        raise BenchmarkError(f"{self.name} has no worker.")

    def cpu_seconds(self, *, children: bool = True) -> float:
        """CPU time of the server so far, with or without that of the processes it started."""
        server = psutil.Process(self._process.pid)
        others = server.children(recursive=True) if children else []
        spent = 0.0
        for process in (server, *others):
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                times = process.cpu_times()
                spent += times.user + times.system
        return spent

    async def at_rest(self) -> None:
        """Wait until it idles. Raises BenchmarkError if it never does: measuring another server
        beside it would be unfair."""
        deadline = time.monotonic() + _LONGEST_WORK
        while time.monotonic() < deadline:
            before = self.cpu_seconds()
            await asyncio.sleep(_WINDOW)
            if self.cpu_seconds() - before <= _REST * _WINDOW:
                return
        raise BenchmarkError(f"{self.name} does not come to rest; see {self._log}.")


@contextmanager
def running(
    name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] = os.environ
) -> Iterator[Running]:
    """`command` as a child process that writes to `log`; it is ended in any case, and what it
    stores goes with it."""
    with log.open("wb") as output, TemporaryDirectory() as data:
        environment = {**environment, "XDG_DATA_HOME": data}
        try:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        except OSError as error:
            raise BenchmarkError(f"{command[0]} cannot be started: {error.strerror}.") from None
        try:
            yield Running(name, process, log)
        finally:
            process.terminate()
            try:
                process.wait(_LONGEST_END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def onebox(logs: Path, *options: str) -> Iterator[tuple[Running, str]]:
    """Onebox with the bundled model, ready, on a loopback port of its own; and its address."""
    port, program = str(free_port()), str(Path(sys.executable).with_name("onebox"))
    command = [program, "serve", "qwen3-demo", "--port", port, "--no-tuned", *options]
    with running("onebox", command, logs / "onebox.log") as server:
        server.until_answers(f"http://127.0.0.1:{port}/ready")
        yield server, f"http://127.0.0.1:{port}"


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
