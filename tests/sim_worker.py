"""A worker of the simulation: real intake, scheduler, cache and frames over a fake engine, and an
end as its fate or a poisonous request wills it. In every step it checks what has to hold."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

from inference import worker
from inference.cost_model import CostModel
from inference.inbox import Audience, Inbox
from inference.intake import Intake
from inference.kv_cache import KvCache, StreamCache, UnifiedCache
from inference.launch import End
from inference.renderer import Renderer
from inference.scheduler import Scheduler
from inference.sequence import Progress, Sequence, StepPlan
from inference.types import ModelInfo
from inference.wire import Cancel, Command, EngineConfig, Load, Loaded, LoadFailed, Ready, Submit
from tests.fake_engine import VOCABULARY
from tests.scenario import HANG, PIECES, SEEDS, Ask, Engine, Fate, Scenario
from tests.sim_wire import TICK, Wire

SLOWEST_INTAKE = 0.004  # seconds for a request
SLOWEST_HANG_UP = 0.2  # seconds until a worker that computes has heard of it
SLOWEST_LOAD = 1.0  # seconds
SLOWEST_END = 0.05  # seconds from the last frame to the end of the process


class Died(Exception):
    def __init__(self, code: int) -> None:
        self.code = code


class SimWorker:
    """`ended` is a task that lasts as long as the process would. `left` tells when clients hung
    up. `touched` and `unread` are the requests of which it has computed something, and those that
    it was sent and did not answer."""

    def __init__(
        self,
        scenario: Scenario,
        fate: Fate,
        rng: random.Random,
        left: dict[int, float],
        violated: Callable,
    ) -> None:
        self._scenario, self._fate, self._rng, self._violated = scenario, fate, rng, violated
        self._left = left
        self._loop = asyncio.get_running_loop()
        self.wire = Wire(rng, self._sent, self._received)
        self._build(scenario.config)
        self._inbox = Inbox()
        self._audience = Audience(self._interrupt)
        self._load, self._wake, self._hung_up = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._busy_until = 0.0  # the intake
        self._counts: Counter[str] = Counter()
        self._code: int | None = None
        self._hangs = self.deaf = self._gone = False
        self._cancelled: set[int] = set()
        self.touched: set[int] = set()
        self.unread: set[int] = set()
        self.served = False
        self.ended = asyncio.create_task(self._life())
        if fate.stage == "any time" and fate.seconds < float("inf"):
            self._loop.call_later(fate.seconds, self._strike, fate.code)

    def _build(self, config: EngineConfig) -> None:
        cost = CostModel(streams=not config.unified, draft=self._scenario.draft)
        target = config.itl_target_ms / 1000 if config.itl_target_ms else None
        self.engine = Engine(config, self._scenario.asks, self._fate.slow)
        self.cache = _cache(config)
        self.scheduler = Scheduler(self.cache, cost, config.batch, target, config.drafts)
        context, slots = config.request_context, config.slots
        self._info = ModelInfo("simulated", "fake", context, slots, VOCABULARY, 0, 0)
        self._intake = Intake(
            SimpleNamespace(
                chat_template="",
                n_vocab=VOCABULARY,
                pieces=PIECES,
                written=PIECES.__getitem__,
                info=self._info,
            ),
            Renderer(),  # with nothing to render
        )

    # The process.

    async def _life(self) -> End:
        code = 0
        try:
            await self._work()
        except Died as death:
            code = death.code
        except asyncio.CancelledError:
            if self._code is None:  # killed from outside
                if not (self._hangs or self.deaf):
                    self._violated("a worker was killed that did not hang")
                self._leave()
                raise
            code = self._code
        except Exception as error:
            self._violated(error)
            code = 1
        self._leave()
        await asyncio.sleep(self._rng.uniform(0, SLOWEST_END))
        return End(code)

    def _leave(self) -> None:
        self._gone = True
        self.wire.hang_up()

    def _strike(self, code: int) -> None:
        """End it, or make it hang, in the middle of whatever it does."""
        if code == HANG:
            self._hangs = True
        elif not self._gone and self._code is None:
            self._code = code
            self.ended.cancel()

    async def _end(self, code: int) -> None:
        """The same, from within."""
        if code != HANG:
            raise Died(code)
        self._hangs = True
        await self._loop.create_future()

    async def _reaches(self, stage: str) -> None:
        """Where fate may strike."""
        self._counts[stage] += 1
        if self._fate.stage == stage and self._counts[stage] >= self._fate.count:
            await self._end(self._fate.code)
        if self._hangs:
            await self._end(HANG)

    # The intake, which is a thread in truth.

    def _sent(self, command: Command) -> None:
        if isinstance(command, Submit):
            self.unread.add(_number(command))

    def _received(self, command: Command | None) -> None:
        busy = max(self._busy_until + TICK, self._loop.time())
        if isinstance(command, Submit):
            busy += self._rng.uniform(0, SLOWEST_INTAKE)
        self._busy_until = busy
        self._loop.call_at(busy, self._handle, command)

    def _handle(self, command: Command | None) -> None:
        if self._hangs or self.deaf or self._gone:
            return
        match command:
            case None:
                self._inbox.put(None)
            case Load():
                self._load.set()
            case Cancel(id):
                self._inbox.put(command)
                self._audience.loses(id)
            case Submit():
                self._read(command)
        self._wake.set()

    def _read(self, submit: Submit) -> None:
        self._counts["intake"] += 1
        fate, poison = self._fate, self._ask(submit).poison
        if poison and poison.where == "intake":
            self._strike_intake(poison.code)
        elif fate.stage == "intake" and self._counts["intake"] >= fate.count:
            self._strike_intake(fate.code)
        else:
            worker._admit(submit, self.wire.channel, self._intake, self._inbox)
            self.unread.discard(_number(submit))

    def _strike_intake(self, code: int) -> None:
        if code == HANG:
            self.deaf = True
        else:
            self._strike(code)

    # The step loop.

    async def _work(self) -> None:
        await self._load.wait()
        await asyncio.sleep(self._rng.uniform(0, SLOWEST_LOAD))
        if self._fate.refuses:
            self.wire.channel.send(LoadFailed("refused"))
            return
        await self._reaches("loading")
        self.wire.channel.send(Loaded())
        await asyncio.sleep(self._rng.uniform(0, SLOWEST_LOAD))
        await self._reaches("first decode")
        self.wire.channel.send(Ready(self._info))
        while (commands := await self._commands()) is not None:
            for command in commands:
                match command:
                    case Cancel(id):
                        self.scheduler.cancel(id)
                        self._cancelled.add(id)
                    case sequences:
                        self.scheduler.add(sequences)
            await self._step()

    async def _commands(self) -> list[list[Sequence] | Cancel] | None:
        """Waits as `worker.run` does."""
        patience = worker._patience(self.scheduler)
        if patience != 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._wake.wait()
        self._wake.clear()
        return self._inbox.take(0)

    async def _step(self) -> None:
        await self._reaches("plan")
        now = self._loop.time()
        plan = self.scheduler.plan(now)
        self._audience.attends(chunk.seq.id for chunk in plan.chunks)
        computed = [chunk.seq for chunk in plan.chunks]
        self._check_plan(computed, now)
        self.touched |= set(map(_number, computed))
        worker.announce(self.wire.channel, plan, self.scheduler)
        plan = self.engine.draft(plan)
        for seq in computed:
            await self._dies_of(seq, "prompt")
        await self._reaches("step")
        self.engine.step(StepPlan(plan.moves))
        self._check_cells()
        aborted = await self._interrupted(plan)
        result = self.engine.step(replace(plan, moves=()), aborted=aborted)
        progress = self.scheduler.commit(plan, result, self._loop.time())
        for entry in progress:
            await self._dies_of(entry.seq, "answer")
        await self._report(progress)

    async def _dies_of(self, seq: Sequence, where: str) -> None:
        ask, poison = self._ask(seq), self._ask(seq).poison
        reached = where == "prompt" or (poison and seq.generated > poison.after)
        if poison and poison.where == where and reached and seq.index == ask.request.n - 1:
            await self._end(poison.code)

    async def _interrupted(self, plan: StepPlan) -> bool:
        """Let the step take its time; whether it was ended early."""
        calls = [sum(chunk.rows for chunk in chunks) for chunks in (plan.decodes, plan.prefills)]
        seconds = sum(map(self.engine.seconds, filter(None, calls)))
        early = bool(plan.chunks) and self._rng.random() < self._scenario.interrupted
        try:
            async with asyncio.timeout(seconds * self._rng.random() if early else seconds):
                await self._hung_up.wait()
        except TimeoutError:
            return early
        return True

    def _interrupt(self, now: bool) -> None:
        if now:
            self._hung_up.set()
        else:
            self._hung_up.clear()

    async def _report(self, progress: list[Progress]) -> None:
        last = self._fate.stage == "report" and self._counts["step"] >= self._fate.count
        if last:
            self.wire.spoils = "garbles" if self._fate.garbled else "halves"
        worker.report(self.wire.channel, progress, self.scheduler)
        self._check_sequences(progress)
        if last:
            await self._end(self._fate.code)
        self.served = self.served or any(p.text or p.reason or p.fault for p in progress)

    # What holds.

    def _check_plan(self, computed: list[Sequence], now: float) -> None:
        """Something is done where anybody waits, and nothing for those who hung up."""
        live = self.scheduler.running + self.scheduler.waiting
        assert computed or not live, "somebody waits, and nothing is done"
        assert not {seq.id for seq in computed} & self._cancelled, "nobody waits for this"
        heard = now - SLOWEST_HANG_UP
        late = {number for number in map(_number, computed) if self._left.get(number, now) < heard}
        assert self.deaf or not late, f"{late} have hung up, and are computed"

    def _check_cells(self) -> None:
        """When the moves of a plan are done, every id holds what the books say, but for what a
        stream has left from guesses after a stop string, which the next one trims."""
        config, tree, booked = self._scenario.config, self.cache.tree, []
        for id, cells in enumerate(self.engine.ids):
            if cells or id in tree._at:
                more = len(cells) - tree.length(id)
                resting = not config.unified and id in self.cache._idle
                assert more == 0 or (resting and more > 0), f"the cells of {id} are not as booked"
                booked.append(cells[: tree.length(id)])
        distinct = {cell for cells in booked for cell in cells}
        assert len(distinct) == self.scheduler.cells, "cells are lost or counted twice"
        assert not config.unified or len(distinct) <= config.context
        assert self.cache._host._keys.keys() == self.engine.host.keys(), "host memory differs"

    def _check_sequences(self, progress: list[Progress]) -> None:
        """After a step, who has ended or was cancelled has nothing, and every slot has an owner."""
        running, waiting = self.scheduler.running, self.scheduler.waiting
        slots = [seq.slot for seq in running] + list(self.cache._idle)
        assert sorted(slots) == list(range(self.cache.slots)), "a slot is lost or shared"
        assert all(seq.slot == -1 for seq in waiting)
        live = {seq.id for seq in running + waiting}
        assert not live & self._cancelled, "who was cancelled lives on"
        assert not live & {entry.seq.id for entry in progress if entry.fault}
        ended = [entry.seq for entry in progress if entry.reason or entry.fault]
        assert all(seq.slot == -1 for seq in ended), "who has ended holds a slot"
        assert not set(ended) & {*running, *waiting}

    def _ask(self, of: Submit | Sequence) -> Ask:
        return self._scenario.asks[_number(of)]


def _number(of: Submit | Sequence) -> int:
    """Whose it is, of those who ask."""
    return of.sampling.seed // SEEDS


def _cache(config: EngineConfig) -> KvCache:
    if config.unified:
        return UnifiedCache(config.slots, config.context, config.host_cells)
    return StreamCache(config.slots, config.request_context, config.host_cells)
