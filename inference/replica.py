"""One worker process, seen from the API process: started, watched, restarted.

Every request submitted ends in exactly one `Rejected` or in one `End` per choice; when the
worker dies, its live requests are rejected with one clear sentence and a new worker is started,
after a pause that doubles while it keeps dying. Holds no native code and knows no HTTP.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from inference.types import ModelInfo, NotReady, WorkerLost
from inference.wire import (
    Accepted,
    Cancel,
    Delta,
    End,
    EngineConfig,
    Load,
    LoadFailed,
    Ready,
    Rejected,
    Report,
    Stats,
    Step,
    Submit,
    frame,
    receive,
)

State = Literal["loading", "ready", "restarting", "failed", "draining", "stopped"]
Answer = Accepted | Rejected | Delta | End
Answers = asyncio.Queue[Answer]

WORKER: Final = (sys.executable, "-m", "inference.worker")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0  # seconds before a restart
_LONGEST_END = 10.0  # seconds for a worker to finish its step; then it is killed
_NAMES = {int(s): s.name for s in signal.Signals}
_LOST = (
    "The process that runs the model died before this answer was complete; "
    "it is being restarted. Please try again."
)


@dataclass(frozen=True, slots=True)
class _Worker:
    """A started worker: our end of its socket, and how it ends."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ended: "asyncio.Task[str]"
    pid: int | None


class Replica:
    """A model in a worker of its own: `command`, given the descriptor of its socket.

    `in_process` runs the same worker loop on a thread.
    """

    def __init__(
        self,
        config: EngineConfig,
        *,
        in_process: bool = False,
        command: Sequence[str] = WORKER,
    ) -> None:
        self._config = config
        self._start_worker = _start_thread if in_process else partial(_start_process, command)
        self._worker: _Worker | None = None
        self._live: dict[int, Answers] = {}
        self._supervisor: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._refusal = ""  # why the worker could not load the model
        self.state: State = "loading"
        self.detail = ""
        self.info: ModelInfo | None = None
        self.stats = Stats()
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The worker's process id; None without a process."""
        return self._worker.pid if self._worker else None

    def start(self) -> None:
        self._supervisor = asyncio.create_task(self._supervise())

    async def close(self, patience: float = _LONGEST_END) -> None:
        """End the worker, by force after `patience` seconds; what is still live is rejected."""
        self._become("stopped", "the server is shutting down")
        worker = self._worker
        if self._supervisor:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
        if worker:
            await _end_of(worker, patience)

    async def settled(self) -> State:
        """Wait while the state is `loading`; the state then."""
        while self.state == "loading":
            self._changed.clear()
            await self._changed.wait()
        return self.state

    def submit(self, command: Submit) -> Answers:
        """Hand a request to the worker; its answers arrive in the queue.

        Raises WorkerLost when there is no worker to take it.
        """
        if self.state != "ready" or self._worker is None:
            raise WorkerLost("the model's worker is not running")
        answers = self._live[command.id] = asyncio.Queue()
        self._worker.writer.write(frame(command))
        return answers

    def finish(self, id: int, *, cancel: bool) -> None:
        """Nobody waits for request `id` any more; `cancel` it in the model unless it has ended."""
        self._live.pop(id, None)
        if cancel and self._worker is not None:
            self._worker.writer.write(frame(Cancel(id)))

    async def _supervise(self) -> None:
        pause = _FIRST_PAUSE
        while self.state != "stopped":
            was_ready, cause = await self._one_life()
            if self.info is None:
                self._become("failed", cause)
                return
            self._become("restarting", cause)
            self.restarts += 1
            pause = _FIRST_PAUSE if was_ready else min(2 * pause, _LONGEST_PAUSE)
            await asyncio.sleep(pause)

    async def _one_life(self) -> tuple[bool, str]:
        """Start a worker and follow it to its end; whether it got ready, and how it ended."""
        was_ready = False
        try:
            self._worker = await self._start_worker(self._config)
            was_ready = await self._attend(self._worker)
            if was_ready:
                self._become("restarting", "the worker is gone")
            end = await _end_of(self._worker)
            return was_ready, self._refusal or f"the worker died: {end}"
        except Exception as error:  # whatever it was, the model has to come back
            return was_ready, f"the worker could not be run: {error}"
        finally:
            if self._worker:
                self._worker.writer.close()
                self._worker = None
            self._reject_all()

    async def _attend(self, worker: _Worker) -> bool:
        """Pass on a worker's reports until it is gone; whether it ever got ready."""
        self._refusal = ""
        worker.writer.write(frame(Load(self._config)))
        was_ready = False
        while (report := await receive(worker.reader)) is not None:
            was_ready = was_ready or isinstance(report, Ready)
            self._route(report)
        return was_ready

    def _route(self, report: Report) -> None:
        match report:
            case Step():
                self.stats = report.stats
                for delta in report.deltas:
                    self._answer(delta)
                for end in report.ends:
                    self._answer(end)
            case Accepted() | Rejected():
                self._answer(report)
            case Ready():
                self.info = report.info
                self._become("ready", "")
            case LoadFailed():
                self._refusal = report.message

    def _answer(self, answer: Answer) -> None:
        if queue := self._live.get(answer.id):
            queue.put_nowait(answer)

    def _reject_all(self) -> None:
        self.stats = Stats()
        stopped = self.state == "stopped"
        code, message = (NotReady.code, self.detail) if stopped else (WorkerLost.code, _LOST)
        for id, queue in self._live.items():
            queue.put_nowait(Rejected(id, code, message))
        self._live.clear()

    def _become(self, state: State, detail: str) -> None:
        if self.state != "stopped":
            self.state, self.detail = state, detail
        self._changed.set()


async def _start_process(command: Sequence[str], config: EngineConfig) -> _Worker:
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
    return _Worker(reader, writer, asyncio.create_task(_autopsy(process)), process.pid)


async def _end_of(worker: _Worker, patience: float = _LONGEST_END) -> str:
    """Wait for the end of a worker that has closed its socket or was told to; how it ended."""
    done, _ = await asyncio.wait({worker.ended}, timeout=patience)
    if not done:
        worker.ended.cancel()
        await asyncio.wait({worker.ended})
        return "it hung and was killed"
    return worker.ended.result()


async def _autopsy(process: asyncio.subprocess.Process) -> str:
    """Wait for the end of a worker; how it ended, with its last words."""
    assert process.stderr
    words = b""
    try:
        while read := await process.stderr.read(4096):
            words = (words + read)[-1000:]
        code = await process.wait()
    except asyncio.CancelledError:  # nobody waits any longer
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    how = f"signal {_NAMES.get(-code, -code)}" if code < 0 else f"exit code {code}"
    last = words.decode(errors="replace").splitlines()[-2:]
    return " ".join([how, *(line.strip() for line in last)])


async def _start_thread(_: EngineConfig) -> _Worker:
    from inference.worker import serve  # noqa: PLC0415  (brings llama.cpp into this process)

    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve, args=(theirs,), daemon=True)
    thread.start()

    async def ended() -> str:
        await asyncio.to_thread(thread.join)
        return "its thread ended"

    reader, writer = await asyncio.open_connection(sock=ours)
    return _Worker(reader, writer, asyncio.create_task(ended()), os.getpid())
