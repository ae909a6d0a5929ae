"""One worker process, seen from the API process: started, watched, restarted.

Every request submitted ends in exactly one `Rejected`, in one `End` per choice or in one `Vector`
per input. When the worker dies or hangs, a new one is started and goes on with what was live, after
a pause that doubles while workers die without having got anywhere. Holds no native code and knows
no HTTP.
"""

import asyncio
import contextlib
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from inference.autopsy import Death, Stage, kills_for_memory
from inference.errors import (
    BadRequest,
    InferenceError,
    NotReady,
    NumericalError,
    Poisonous,
    WorkerLost,
)
from inference.gguf_format import printable
from inference.journal import Answer, Journal, Request
from inference.launch import LONGEST_END, WORKER, Worker, in_process, on_thread
from inference.types import Asked, LiveRequest, ModelInfo
from inference.wire import (
    Accepted,
    Begin,
    Cancel,
    Counted,
    EngineConfig,
    Load,
    Loaded,
    LoadFailed,
    Ready,
    Rejected,
    Report,
    Stats,
    Step,
    frame,
    receive,
)

State = Literal["loading", "ready", "restarting", "failed", "draining", "stopped", "unloaded"]
Answers = asyncio.Queue[Answer]

STALL: Final = 30.0  # seconds without a word from a worker that owes one
_LOADING_STALL = 900.0  # seconds for the weights to come from a slow disk
_LONG_STEPS = 10.0  # times as long as it was thought to take may a step be, beyond the stall
_LOOKS = 8  # at a worker in the time of a stall: an event loop that was late is no stall
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 60.0  # seconds before a restart
_GOOD_LIFE = 60.0  # seconds
_HOPELESS = 3  # lives in a row that got nowhere
_TOO_MANY_FAULTS, _IN_SECONDS = 3, 60.0  # of a worker that did better before
_RETIRES_EVERY = 3600.0  # seconds: what a new worker does not mend, the next would not either
_OWN_FAULT, _KILLED = 1.0, 0.7  # blame for a request; what comes from outside says less of it
_LOST = "The process that runs the model keeps dying; please try again later."
_POISONOUS = "The process that runs the model keeps dying at this request; it is not tried again."
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Life:
    """One worker from start to end. `cancelled` says that it was told of a hang-up, which ends in
    a `Step` too. `reading` and `computing` count the looks at it since its intake and its step
    loop last said something; after `patience` seconds of those it has hung. `sound` says that an
    answer came to its end, `faults` when output was last no number, `retired` that it was ended for
    that."""

    worker: Worker
    born: float
    stage: Stage = "loading"
    refusal: str = ""
    served: bool = False
    cancelled: bool = False
    reading: int = 0
    computing: int = 0
    patience: float = _LOADING_STALL
    sound: bool = False
    faults: deque[float] = field(default_factory=lambda: deque(maxlen=_TOO_MANY_FAULTS))
    retired: bool = False


class Replica:
    """A model in a worker of its own: `command`, given the descriptor of its socket.

    `threaded` runs the same worker loop on a thread. A worker that owes answers and says nothing
    for `stall` seconds is killed.
    """

    def __init__(
        self,
        config: EngineConfig,
        *,
        threaded: bool = False,
        command: Sequence[str] = WORKER,
        stall: float = STALL,
    ) -> None:
        self._config = config
        self._start_worker = on_thread if threaded else in_process(command)
        self._stall = stall
        self._life: _Life | None = None
        self._journal: Journal[Answers] = Journal()
        self._supervisor: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._bad_lives = 0
        self._next_start = 0.0
        self._next_retirement = 0.0
        self.state: State = "loading"
        self.detail = ""
        self.info: ModelInfo | None = None
        self.stats = Stats()
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The worker's process id; None without a process."""
        return self._life.worker.pid if self._life else None

    @property
    def accepting(self) -> bool:
        """Whether a request would be answered: now, or as soon as a worker is there again."""
        hopeful = self.state == "restarting" and self._bad_lives < _HOPELESS
        return self.state == "ready" or hopeful

    @property
    def retry_after(self) -> int:
        """Whole seconds after which a worker may be there."""
        return 1 + max(0, math.ceil(self._next_start - _now()))

    def start(self) -> None:
        self._supervisor = asyncio.create_task(self._supervise())

    async def close(self, patience: float = LONGEST_END) -> None:
        """End the worker, by force after `patience` seconds; what is still live is rejected."""
        self._become("stopped", "the server is shutting down")
        life = self._life
        if self._supervisor:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
        self._abandon(NotReady.code, self.detail)
        if life:
            await life.worker.end(patience)

    async def settled(self) -> State:
        """Wait while the state is `loading`; the state then."""
        while self.state == "loading":
            self._changed.clear()
            await self._changed.wait()
        return self.state

    def submit(self, command: Request, asked: Asked) -> Answers:
        """Hand a request to the worker, as soon as there is one; its answers arrive in the queue.
        It is what was `asked`.

        Raises WorkerLost when there will be none.
        """
        if not self.accepting:
            raise WorkerLost("the model's worker is not running")
        answers: Answers = asyncio.Queue()
        self._journal.add(command, answers, _now(), asked)
        self._hand_over()
        return answers

    def finish(self, id: int, *, cancel: bool) -> None:
        """Nobody waits for request `id` any more; `cancel` it in the model unless it has ended."""
        self._journal.remove(id)
        if cancel and self._life is not None:
            self._life.worker.writer.write(frame(Cancel(id)))
            self._life.cancelled = True
        self._hand_over()

    def live(self) -> list[LiveRequest]:
        """What it has been asked and has not answered."""
        return self._journal.seen(self._config.name, _now())

    def end(self, which: Callable[[Asked], bool], why: InferenceError) -> int:
        """Reject at once the requests of which `which` is true; how many there were."""
        found = self._journal.where(which)
        for entry in found:
            entry.reader.put_nowait(Rejected(entry.submit.id, why.code, why.message))
            self.finish(entry.submit.id, cancel=True)
        return len(found)

    async def _supervise(self) -> None:
        while self.state != "stopped":
            await self._one_life()
            if self.info is None:
                self._become("failed", self.detail)
                return
            if self._bad_lives >= _HOPELESS:
                self._abandon(WorkerLost.code, _LOST)
            self.restarts += 1
            pause = min(_FIRST_PAUSE * 2**self._bad_lives, _LONGEST_PAUSE)
            self._next_start = _now() + pause
            await asyncio.sleep(pause)

    async def _one_life(self) -> None:
        """Start a worker and follow it to its end."""
        kills = kills_for_memory()
        try:
            life = self._life = _Life(await self._start_worker(self._config), _now())
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(self._watch(life))
                await self._attend(life)
                watching.cancel()
            end = await life.worker.end()
            self._bury(life, Death(life.stage, end.code, end.words, kills_for_memory() > kills))
        except Exception as error:  # whatever it was, the model has to come back
            bug = not isinstance(error, OSError)
            _log.error("The worker could not be run: %s", error, exc_info=bug)
            if self._life:
                self._life.worker.kill()
            self._recover(0.0)
            self._bad_lives += 1
            self._become("restarting", f"the worker could not be run: {error}")
        finally:
            if self._life:
                self._life.worker.writer.close()
                self._life = None

    async def _attend(self, life: _Life) -> None:
        """Pass on a worker's reports until it is gone."""
        life.worker.writer.write(frame(Load(self._config)))
        while (report := await self._next(life)) is not None:
            self._route(report, life)
            self._hand_over()
        if life.stage == "serving":
            self._become("restarting", "the model's worker has died")

    async def _next(self, life: _Life) -> Report | None:
        """What a worker says; None when it is gone. One that cannot be understood is ended."""
        try:
            return await receive(life.worker.reader)
        except ValueError as error:
            life.refusal = f"the model's worker was killed: {error}"
            _log.error("The model's worker was killed: %s", error)
            life.worker.kill()
            return None

    async def _watch(self, life: _Life) -> None:
        """Kill a worker that has hung."""
        interval = self._stall / _LOOKS
        while max(life.reading, life.computing) * interval < life.patience:
            await asyncio.sleep(interval)
            reading, computing = self._journal.owed()
            computing = computing or life.cancelled or life.stage != "serving"
            life.reading = life.reading + 1 if reading else 0
            life.computing = life.computing + 1 if computing else 0
        life.worker.kill()

    def _route(self, report: Report, life: _Life) -> None:
        match report:
            case Step():
                life.computing, life.patience, life.cancelled = 0, self._stall, False
                self.stats = report.stats
                answers: list[Answer] = [*report.deltas, *report.ends, *report.vectors]
                life.served = life.served or bool(answers)
                life.sound = life.sound or bool(report.ends or report.vectors)
                for answer in answers:
                    self._answer(answer)
            case Begin():
                life.computing, life.patience = 0, self._stall + _LONG_STEPS * report.seconds
                self._journal.began(report.ids)
            case Accepted() | Counted() | Rejected():
                life.reading = 0
                life.served = life.served or isinstance(report, Rejected)
                self._answer(report)
                if isinstance(report, Rejected) and report.code == NumericalError.code:
                    self._doubt(life)
            case Loaded():
                life.computing, life.stage = 0, "first decode"
            case Ready():
                life.computing, life.stage, life.patience = 0, "serving", self._stall
                self.info = report.info
                self._become("ready", "")
            case LoadFailed():
                life.refusal = report.message

    def _doubt(self, life: _Life) -> None:
        """Output was no number. One that is always like that has a bad file, and stays; one that
        was not may have lost its memory, and is replaced."""
        life.faults.append(now := _now())
        many = len(life.faults) == _TOO_MANY_FAULTS and now - life.faults[0] < _IN_SECONDS
        if life.sound and many and now >= self._next_retirement:
            self._next_retirement = now + _RETIRES_EVERY
            life.retired = True
            life.refusal = "the model's worker was replaced: its output was no number three times"
            _log.error("The model's worker is replaced: its output was no number three times.")
            life.worker.kill()

    def _hand_over(self) -> None:
        """Send the worker what it should have."""
        if self.state != "ready" or self._life is None:
            return
        for submit in self._journal.due(_now()):
            try:
                self._life.worker.writer.write(frame(submit))
            except BadRequest as error:
                self._answer(Rejected(submit.id, error.code, error.message))

    def _answer(self, answer: Answer) -> None:
        if queue := self._journal.note(answer, _now()):
            queue.put_nowait(answer)

    def _bury(self, life: _Life, death: Death) -> None:
        """Draw the conclusions from a worker's end."""
        self.stats = Stats()
        blame = _OWN_FAULT if death.own_fault else _KILLED
        guilty = self._recover(0.0 if life.retired else blame)
        good = life.served or guilty or _now() - life.born > _GOOD_LIFE
        self._bad_lives = 0 if good else self._bad_lives + 1
        if not life.refusal:
            words = printable(" ".join(death.words.split()), most=1000) or "none"
            _log.error("%s Its last words: %s", death.sentence, words)
        self._become("restarting", life.refusal or death.sentence)

    def _recover(self, blame: float) -> bool:
        """Get ready for the next worker; whether a request was given up for this one's end."""
        guilty = self._journal.crash(blame)
        for entry in guilty:
            entry.reader.put_nowait(Rejected(entry.submit.id, Poisonous.code, _POISONOUS))
        return bool(guilty)

    def _abandon(self, code: str, message: str) -> None:
        for entry in self._journal.abandon():
            entry.reader.put_nowait(Rejected(entry.submit.id, code, message))

    def _become(self, state: State, detail: str) -> None:
        if self.state != "stopped":
            self.state, self.detail = state, detail
        self._changed.set()


def _now() -> float:
    return asyncio.get_running_loop().time()
