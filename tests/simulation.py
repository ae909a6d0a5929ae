"""A pool with its workers in one process and in virtual time, and what befalls them, by seed.

    python -m tests.simulation 17             what happens with seed 17
    python -m tests.simulation --seeds 20000  the figures of many; those that fail are named

Pool, Replica, Journal and frames are real, and so is what runs in a worker down to the engine. One
seed is one run, the same each time: who asks, who hangs up, and how workers die all follow from it.
"""

import asyncio
import logging
import multiprocessing
import random
import signal
import time
import traceback
from collections import Counter, defaultdict
from contextlib import aclosing
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Annotated
from unittest.mock import patch

import typer
from rich.progress import track

from inference import kv_cache, replica
from inference.config import load_config
from inference.errors import DeadlineExceeded, InferenceError, Overloaded
from inference.launch import Worker
from inference.pool import Pool
from inference.types import Finished, Started, TextDelta, TokenLogprob
from tests.scenario import Ask, Fate, Scenario, draw
from tests.sim_worker import SimWorker
from tests.virtual_time import run

LONGEST = 10_000.0  # virtual seconds after which a request is one that waits for ever
HOPELESS = 3  # workers in a row that got nowhere: then requests may be lost
KILLED = 0.7  # of the blame for a death, where it came from outside
DEADLY = 4  # workers that a poisonous request may end, at most


class Record(logging.Handler):
    """The log of a run, and what went wrong in it."""

    def __init__(self, clock) -> None:
        super().__init__()
        self._clock = clock
        self.lines: list[str] = []
        self.violations: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(f"{self._clock():.6f} {line}")

    def violation(self, what: object) -> None:
        if isinstance(what, BaseException):
            what = "".join(traceback.format_exception(what))
        self(f"VIOLATION {what}")
        self.violations.append(str(what))

    def emit(self, record: logging.LogRecord) -> None:
        """What the replica logs; what it did not expect has a traceback."""
        error = record.exc_info and record.exc_info[1]
        self(record.getMessage())
        if error:
            self.violation(error)


@dataclass(slots=True)
class Answer:
    """What a client got."""

    texts: dict[int, str] = field(default_factory=lambda: defaultdict(str))
    listed: dict[int, list[TokenLogprob]] = field(default_factory=lambda: defaultdict(list))
    ends: dict[int, Finished] = field(default_factory=dict)
    started: bool = False
    outcome: str = ""
    seconds: float = 0.0


class World:
    """One run."""

    def __init__(self, scenario: Scenario) -> None:
        self._loop = asyncio.get_running_loop()
        self._scenario = scenario
        self._rng = random.Random(f"{scenario.seed} on the way")
        self.note = Record(self._loop.time)
        self._loop.set_exception_handler(self._unhandled)
        deployment = SimpleNamespace(
            model=_MODEL, engine=scenario.config, header=_HEADER, plan=_PLAN
        )
        self._pool = Pool(deployment, queue=scenario.queue, stall=scenario.stall)
        self._pool._replica._start_worker = self._start_worker
        self._bound = scenario.queue + scenario.config.slots
        self._live = 0
        self._left: dict[int, float] = {}
        self._fates = list(scenario.fates)
        self._workers: list[SimWorker] = []
        self._barren = self._most_barren = 0
        self._closed_early = False
        self.deaths = 0
        self.answers = {ask.number: Answer() for ask in scenario.asks}

    def _unhandled(self, _, context) -> None:
        self.note.violation(context.get("exception") or context["message"])

    async def _start_worker(self, _) -> Worker:
        fate = self._fates.pop(0) if self._fates else Fate()
        await asyncio.sleep(self._rng.uniform(0, 0.1))
        if fate.stage == "start":
            self._ended(None)
            raise OSError("no descriptors are left")
        worker = SimWorker(self._scenario, fate, self._rng, self._left, self.note.violation)
        worker.ended.add_done_callback(lambda ended: self._ended(worker))
        self._workers.append(worker)
        self.note(f"worker {len(self._workers)} starts: {fate}")
        return Worker(worker.wire.reader, worker.wire, worker.ended, len(self._workers))

    def _ended(self, worker: SimWorker | None) -> None:
        """Book the end of a worker; None was none to begin with."""
        self.deaths += 1
        self._barren = 0 if worker and worker.served else self._barren + 1
        self._most_barren = max(self._barren, self._most_barren)

    def _blame(self, number: int) -> float:
        """What may be held against a request: it was in the hands of workers that died, or had
        been sent to them."""
        blame = 0.0
        for worker in self._workers:
            if number in worker.touched | worker.unread:
                ended = None if worker.ended.cancelled() else worker.ended.result().code
                blame += KILLED if ended == -signal.SIGKILL else 1.0
        return blame

    # Clients.

    async def _client(self, ask: Ask) -> None:
        await asyncio.sleep(ask.at)
        answer, began = self.answers[ask.number], self._loop.time()
        room = self._live + ask.request.n <= self._bound
        self._live += ask.request.n
        try:
            async with asyncio.timeout(ask.patience or LONGEST):
                answer.outcome = await self._converse(ask, answer)
        except TimeoutError:
            answer.outcome = "left"
            if ask.patience is None:
                self.note.violation(f"request {ask.number} waits for ever")
        except InferenceError as error:
            answer.outcome = error.code
            if isinstance(error, Overloaded) and room:
                self.note.violation(f"request {ask.number} was refused though there was room")
        finally:
            self._live -= ask.request.n
        if answer.outcome == "left":
            self._left[ask.number] = self._loop.time()
        answer.seconds = self._loop.time() - began
        self.note(f"client {ask.number}: {answer.outcome}")

    async def _converse(self, ask: Ask, answer: Answer) -> str:
        count = 0
        async with aclosing(self._pool.generate(ask.request)) as events:
            async for event in events:
                self._saw(ask, answer, event)
                count += 1
                if count == ask.events:
                    return "left"
                await asyncio.sleep(ask.pace)
        return "finished"

    def _saw(self, ask: Ask, answer: Answer, event) -> None:
        self.note(f"client {ask.number} gets {event}")
        match event:
            case Started(prompt_tokens):
                assert not answer.started and prompt_tokens == len(ask.request.prompt)
                answer.started = True
            case TextDelta(index, text, logprobs):
                assert answer.started and index not in answer.ends
                answer.texts[index] += text
                answer.listed[index] += logprobs
            case Finished(index, _, _, timings):
                assert index not in answer.ends, "a choice has ended twice"
                assert 0 <= timings.queued <= timings.first_token <= timings.total + 1e-9
                answer.ends[index] = event

    # What must have come of it.

    def _judge(self, ask: Ask, answer: Answer) -> None:
        context = self._scenario.config.request_context
        for index in range(ask.request.n if answer.started else 0):
            text, reason, tokens = ask.answer(index, context)
            got = answer.texts[index]
            assert text.startswith(got), f"choice {index} is {got!r}, not {text!r}"
            if end := answer.ends.get(index):
                assert got == text, f"choice {index} ends with {got!r}, not {text!r}"
                figures = end.reason, end.usage.completion_tokens, end.usage.prompt_tokens
                assert figures == (reason, tokens, len(ask.request.prompt)), f"{end}"
                assert end.usage.cached_tokens <= end.usage.prompt_tokens, f"{end}"
            if ask.request.logprobs is not None:
                self._judge_listed(ask, answer, index)
        assert answer.started or not answer.texts
        assert answer.outcome in self._possible(ask, answer, context), (
            f"request {ask.number} ends as {answer.outcome}"
        )
        if answer.outcome == "finished":
            assert len(answer.ends) == ask.request.n

    def _judge_listed(self, ask: Ask, answer: Answer, index: int) -> None:
        """Every token is listed once, and not later than its text."""
        listed, prompt = answer.listed[index], len(ask.request.prompt)
        places = [0 if one.logprob is None else round(-one.logprob) for one in listed]
        first = 0 if ask.request.echo else prompt
        assert places == [*range(first, first + len(listed))], f"choice {index} lists {places}"
        end, length = answer.ends.get(index), len(answer.texts[index])
        assert not length or listed[-1].end >= length, f"choice {index} lists too little"
        if end and not end.stop:
            assert len(listed) == end.usage.completion_tokens + prompt - first
        elif end and listed:
            assert listed[-1].start < length, f"choice {index} lists what was cut off"

    def _possible(self, ask: Ask, answer: Answer, context: int) -> set[str]:
        """How this request may have ended."""
        possible = ask.fates(context, self._bound)
        if not self._scenario.peaceful and self._blame(ask.number) >= 2:
            possible.add("request_quarantined")
        if ask.leaves:
            possible.add("left")
        if ask.request.deadline is not None and answer.seconds >= ask.request.deadline:
            possible.add(DeadlineExceeded.code)
        if self._bound < sum(other.request.n for other in self._scenario.asks):
            possible.add("queue_full")
        if self._most_barren >= HOPELESS and not self._scenario.peaceful:
            possible |= {"worker_lost", "not_ready"}
        if self._closed_early or self._pool.status().info is None:
            possible.add("not_ready")
        return possible

    # From start to end.

    async def live(self) -> None:
        logger = replica._log
        logger.addHandler(self.note)
        logger.propagate = False
        try:
            await self._live_through()
        finally:
            logger.propagate = True
            logger.removeHandler(self.note)

    async def _live_through(self) -> None:
        await self._pool.start()
        failed = await self._pool._replica.settled() == "failed"
        async with asyncio.TaskGroup() as clients:
            for ask in self._scenario.asks:
                clients.create_task(self._client(ask))
            if self._scenario.closes is not None:
                clients.create_task(self._close_early())
        if not self._closed_early and not failed:
            await self._comes_back()
        await self._pool.close()
        self._nothing_is_left()
        poisons = sum(ask.poison is not None for ask in self._scenario.asks)
        if self._scenario.peaceful and self.deaths > 1 + DEADLY * poisons:
            self.note.violation(f"{poisons} poisonous requests ended {self.deaths} workers")
        for ask in self._scenario.asks:
            try:
                self._judge(ask, self.answers[ask.number])
            except AssertionError as error:
                self.note.violation(f"request {ask.number}: {error}")

    async def _close_early(self) -> None:
        await asyncio.sleep(self._scenario.closes)
        self._closed_early = True
        self.note("closes")
        await self._pool.close()

    async def _comes_back(self) -> None:
        """When all is over, the pool serves, and the worker is empty."""
        await asyncio.sleep(2 * self._scenario.stall)  # a worker may hang, and nobody wait for it
        async with asyncio.timeout(LONGEST):
            while not self._pool.ready:
                await asyncio.sleep(1)
        await asyncio.sleep(5)
        if self._workers[-1].deaf:
            return  # it will be found out when somebody comes
        scheduler = self._workers[-1].scheduler
        stats = self._pool.status().stats
        if not scheduler.idle or scheduler._cache.idle != scheduler._cache.slots:
            self.note.violation("the worker still has something")
        if stats.running or stats.waiting:
            self.note.violation(f"the gauges say {stats}")

    def _nothing_is_left(self) -> None:
        if len(self._pool._replica._journal) or self._pool._live:
            self.note.violation("the pool still owes something")
        if self._pool._replica.state not in ("stopped", "failed"):
            self.note.violation("the pool was not closed")
        if left := asyncio.all_tasks() - {asyncio.current_task()}:
            self.note.violation(f"tasks are left: {left}")


@dataclass(frozen=True, slots=True)
class Run:
    seed: int
    lines: list[str]
    violations: list[str]
    outcomes: Counter
    deaths: int
    seconds: float


def simulate(seed: int) -> Run:
    """One run, from its seed to its figures."""

    async def main() -> Run:
        loop = asyncio.get_running_loop()
        world = World(draw(seed))
        with patch("time.monotonic", loop.time), patch.object(kv_cache, "WORTH_A_COPY", 3):
            await world.live()
        outcomes = Counter(answer.outcome for answer in world.answers.values())
        note = world.note
        return Run(seed, note.lines, note.violations, outcomes, world.deaths, loop.time())

    return run(main())


_MODEL = load_config().find("default")
_HEADER = SimpleNamespace(quant="", size=0)
_PLAN = SimpleNamespace(on_gpu=SimpleNamespace(weights=0))


def main(
    seed: Annotated[int, typer.Argument(help="The one to show, or the first of many.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="How many to run.")] = 1,
) -> None:
    """Run the simulation, and say what broke in it."""
    if seeds == 1:
        shown = simulate(seed)
        typer.echo("\n".join(shown.lines))
        raise typer.Exit(bool(shown.violations))
    began, total, broken = time.perf_counter(), Counter(), []
    with multiprocessing.Pool() as processes:
        runs = processes.imap_unordered(simulate, range(seed, seed + seeds), chunksize=8)
        for one in track(runs, "simulations", seeds):
            total += Counter(one.outcomes) + Counter(
                {"events": len(one.lines), "deaths of workers": one.deaths}
            )
            total["virtual hours"] += one.seconds / 3600
            if one.violations:
                broken.append(one.seed)
                typer.echo(f"seed {one.seed}: {one.violations[0]}")
    for name, count in sorted(total.items()):
        typer.echo(f"{name:>24} {count:10,.0f}")
    typer.echo(f"{seeds} seeds in {time.perf_counter() - began:.0f} s; broken: {broken or 'none'}")
    raise typer.Exit(bool(broken))


if __name__ == "__main__":
    typer.run(main)
