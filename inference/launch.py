"""Starts a worker: as a child process, or on a thread of this one. Waits for its end, or makes it.

Knows no requests and reads no frames.
"""

import asyncio
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from inference.wire import EngineConfig

WORKER: Final = (sys.executable, "-m", "inference.worker")
_LONGEST_END = 10.0  # seconds for a worker to finish its step; then it is killed
_LAST_WORDS = 1000  # bytes of stderr


@dataclass(frozen=True, slots=True)
class End:
    """How a worker ended: its exit code, None if it had to be killed, and its last words."""

    code: int | None
    words: str = ""


@dataclass(frozen=True, slots=True)
class Worker:
    """A started worker: our end of its socket, and its end. `pid` is None for a thread."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ended: "asyncio.Task[End]"
    pid: int | None

    def kill(self) -> None:
        """End it now; a thread can only be left alone."""
        self.ended.cancel()

    async def end(self) -> End:
        """Wait for the end of a worker that has closed its socket or was told to; kill it if that
        takes too long."""
        await asyncio.wait({self.ended}, timeout=_LONGEST_END)
        if not self.ended.done():
            self.kill()
            await asyncio.wait({self.ended})
        return End(None) if self.ended.cancelled() else self.ended.result()


Starter = Callable[[EngineConfig], Awaitable[Worker]]


def in_process(command: Sequence[str]) -> Starter:
    """Starts `command` with the descriptor of its socket as the last argument."""
    return partial(_start_process, command)


async def on_thread(_: EngineConfig) -> Worker:
    """Starts a worker on a thread of this process."""
    from inference.worker import serve  # noqa: PLC0415  (brings llama.cpp into this process)

    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve, args=(theirs,), daemon=True)
    thread.start()

    async def ended() -> End:
        await asyncio.to_thread(thread.join)
        return End(0)

    reader, writer = await asyncio.open_connection(sock=ours)
    return Worker(reader, writer, asyncio.create_task(ended()), None)


async def _start_process(command: Sequence[str], config: EngineConfig) -> Worker:
    ours, theirs = socket.socketpair()
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            str(theirs.fileno()),
            pass_fds=[theirs.fileno()],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | ({"CUDA_VISIBLE_DEVICES": config.gpu} if config.gpu else {}),
            start_new_session=True,  # Ctrl-C is for the server, which then ends its workers
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    reader, writer = await asyncio.open_connection(sock=ours)
    return Worker(reader, writer, asyncio.create_task(_end_of(process)), process.pid)


async def _end_of(process: asyncio.subprocess.Process) -> End:
    """Wait for the end of a process; kill it when nobody waits any longer."""
    assert process.stderr
    words = b""
    try:
        while read := await process.stderr.read(4096):
            words = (words + read)[-_LAST_WORDS:]
        code = await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    return End(code, words.decode(errors="replace"))
