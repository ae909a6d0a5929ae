"""The worker: one model, one intake thread, one step loop. Runs as a child process.

Started as `python -m inference.worker FD` with a socket at that descriptor, or on a thread of
the same process with a socket of its own; the frames are the same. The worker ends when the
other end of its socket does. Knows nothing of HTTP.
"""

import contextlib
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar

from inference import embedder
from inference.cost_model import TILE, CostModel, reach
from inference.drafter import Drafter
from inference.embedder import Embedder
from inference.engine import Engine
from inference.errors import BadModelFile, InferenceError
from inference.inbox import Audience, Inbox
from inference.intake import Intake
from inference.kv_cache import KvCache, StreamCache, UnifiedCache
from inference.llama import Llama
from inference.packing import Job
from inference.renderer import Renderer
from inference.sandbox import confine
from inference.scheduler import Scheduler
from inference.sequence import Chunk, Keep, Progress, Sequence, StepPlan
from inference.wire import (
    Accepted,
    Begin,
    Cancel,
    Channel,
    Count,
    Delta,
    Embed,
    End,
    EngineConfig,
    Load,
    Loaded,
    LoadFailed,
    Ready,
    Rejected,
    Stats,
    Step,
    Submit,
)

_PAUSE = 0.2  # seconds without a request before housekeeping begins
_WARM_UP = 64  # tokens computed before the first request

Result = TypeVar("Result")


def run(
    engine: Engine,
    scheduler: Scheduler,
    inbox: Inbox[list[Sequence] | Cancel],
    audience: Audience,
    channel: Channel,
) -> None:
    """The loop: commands, plan, draft, step, commit, send."""
    while (commands := inbox.take(_patience(scheduler))) is not None:
        for command in commands:
            match command:
                case Cancel(id):
                    scheduler.cancel(id)
                case sequences:
                    scheduler.add(sequences)
        plan = scheduler.plan(time.monotonic())
        audience.attends(chunk.seq.id for chunk in plan.chunks)
        announce(channel, plan, scheduler)
        plan = engine.draft(plan)
        result = engine.step(plan)
        report(channel, scheduler.commit(plan, result, time.monotonic()), scheduler)


def _patience(scheduler: Scheduler) -> float | None:
    """Seconds to wait for a command. Whoever had an answer often has the next question at once,
    and had better not find the worker at its housekeeping."""
    if not scheduler.idle:
        return 0
    return _PAUSE if scheduler.restless else None


def announce(channel: Channel, plan: StepPlan, scheduler: Scheduler) -> None:
    """Say who is computed from now on, and for how long nothing may be heard: should this step be
    the last, these are the suspects. A prompt of which all but the end is there just decodes."""
    begun = [*plan.prefills, *(chunk for chunk in plan.decodes if not chunk.seq.begun)]
    if begun:
        for chunk in begun:
            chunk.seq.begun = True
        channel.send(Begin([chunk.seq.id for chunk in begun], scheduler.predict(plan)))


def report(channel: Channel, progress: list[Progress], scheduler: Scheduler) -> None:
    """Send what a step gave. A fault ends all choices of its request, after their last text."""
    now = time.monotonic()
    faults = {p.seq.id: p.fault for p in progress if p.fault}
    for id in faults:
        scheduler.cancel(id)
    deltas = [_delta(p) for p in progress if p.text and not p.reason]
    ends = [_end(p, now) for p in progress if p.reason and p.seq.id not in faults]
    channel.send(Step(deltas, ends, _stats(scheduler)))
    for id, fault in faults.items():
        channel.send(Rejected(id, fault.code, fault.message))


def _delta(progress: Progress) -> Delta:
    seq = progress.seq
    tokens = seq.tokens[seq.told :]
    seq.told = len(seq.tokens)
    return Delta(seq.id, seq.index, progress.text, tokens, seq.take_logprobs())


def _stats(scheduler: Scheduler) -> Stats:
    return Stats(
        waiting=len(scheduler.waiting),
        running=len(scheduler.running),
        cells=scheduler.cells,
        **asdict(scheduler.counters),
    )


def _end(progress: Progress, now: float) -> End:
    seq = progress.seq
    assert progress.reason
    return End(
        id=seq.id,
        index=seq.index,
        text=progress.text,
        reason=progress.reason,
        completion_tokens=seq.generated,
        cached_tokens=seq.cached,
        queued=min(seq.admitted, seq.first_token) - seq.arrived,
        first_token=seq.first_token - seq.arrived,
        total=now - seq.arrived,
        stop=seq.text.met,
        reasoning_tokens=seq.thoughts,
        logprobs=seq.take_logprobs(),
    )


def receive(channel: Channel, intake: Intake, inbox: Inbox[Any], audience: Audience) -> None:
    """The intake thread: every `Submit`, `Embed` and `Count` is answered, in order; the end of the
    socket stops all."""
    try:
        while (command := channel.receive()) is not None:
            match command:
                case Submit():
                    _admit(command, channel, intake, inbox)
                case Embed():
                    _enlist(command, channel, intake, inbox)
                case Count():
                    _count(command, channel, intake)
                case Cancel(id):
                    inbox.put(command)
                    audience.loses(id)
    except OSError:
        pass  # the other end is gone
    finally:
        inbox.put(None)


def _admit(
    submit: Submit, channel: Channel, intake: Intake, inbox: Inbox[list[Sequence] | Cancel]
) -> None:
    if read := _attempt(partial(intake.sequences, submit), submit.id, channel):
        sequences, thinking = read
        first = sequences[0]
        guided = first.guide is not None
        channel.send(Accepted(submit.id, first.prompt_len, thinking, guided))
        inbox.put(sequences)


def _enlist(embed: Embed, channel: Channel, intake: Intake, inbox: Inbox[Job | Cancel]) -> None:
    if read := _attempt(partial(intake.job, embed), embed.id, channel):
        job, tokens = read
        channel.send(Accepted(embed.id, tokens))
        inbox.put(job)


def _count(count: Count, channel: Channel, intake: Intake) -> None:
    if counted := _attempt(partial(intake.counted, count), count.id, channel):
        channel.send(counted)


def _attempt(work: Callable[[], Result], id: int, channel: Channel) -> Result | None:
    """What `work` gives; if that is a refusal, it is sent."""
    try:
        return work()
    except InferenceError as error:
        channel.send(Rejected(id, error.code, error.message, error.field))
    except Exception:  # a fault of ours in one request is not everybody's end
        traceback.print_exc()
        channel.send(Rejected(id, InferenceError.code, "this request broke the server"))
    return None


def prove(engine: Engine, llama: Llama, cost: CostModel, drafts: int) -> None:
    """First calls before anybody waits for one: a wrong native build dies here and now, and the
    cost model gets its first measurements."""
    tokens = (llama.tokenize("a", special=False) * _WARM_UP)[:_WARM_UP]
    seq = Sequence(tokens=tokens, id=0, limit=2 * _WARM_UP, slot=0)
    last = _WARM_UP - 1
    prompts = [Chunk(seq, 0, count) for count in (_WARM_UP, _WARM_UP, _WARM_UP // 4, last)]
    answers = [Chunk(seq, last, 1), Chunk(seq, last, 1, tuple(tokens[:drafts]))]
    answers += [Chunk(seq, last, 1, asked=drafts)] * 2 if cost.draft else []
    plans = [StepPlan((Keep(0, 0),), prefills=(chunk,)) for chunk in prompts]
    plans += [StepPlan((Keep(0, last),), decodes=(chunk,)) for chunk in answers]
    engine.step(plans[0])  # the first call of all is slow
    for plan in map(engine.draft, plans[1:]):
        cost.observe(plan, engine.step(plan))


def copying_pays(llama: Llama, cost: CostModel) -> bool:
    """Whether cells come back from host memory sooner than they are computed again; slot 0 holds
    some, and is empty afterwards."""
    start = time.perf_counter()
    state = llama.save(0)
    llama.keep(0, 0)
    llama.restore(0, state)
    seconds = time.perf_counter() - start
    llama.keep(0, 0)
    return seconds < cost.prefill.predict(_WARM_UP, reach(0, _WARM_UP))


def load(
    config: EngineConfig, loaded: Callable[[], None] = lambda: None
) -> tuple[Llama, Engine, Scheduler]:
    """A model ready to serve; calls `loaded` before its first decode. Raises BadModelFile and
    DoesNotFit."""
    llama = Llama(config)
    engine = Engine(llama, _drafter(config, llama), joint=config.joint)
    loaded()
    cost = CostModel(streams=not config.unified, draft=bool(config.draft))
    prove(engine, llama, cost, config.drafts)
    host = config.host_cells if copying_pays(llama, cost) else 0
    tile = TILE if config.tiled else 1
    if config.unified:
        cache: KvCache = UnifiedCache(config.slots, config.context, host, tile)
    else:
        cache = StreamCache(config.slots, config.request_context, host, tile)
    target = config.itl_target_ms / 1000 if config.itl_target_ms else None
    return llama, engine, Scheduler(cache, cost, config.batch, target, config.drafts)


def _drafter(config: EngineConfig, llama: Llama) -> Drafter | None:
    """What guesses, if anything shall. Raises BadModelFile."""
    if not config.draft:
        return None
    small = Llama(config.for_draft)
    if small.pieces != llama.pieces:
        raise BadModelFile(
            f"{config.draft} cannot draft for {config.path}: their vocabularies differ."
        )
    return Drafter(small, config.batch)


def serve(sock: socket.socket) -> None:
    """Run a worker on `sock` until its other end closes."""
    with sock, contextlib.closing(Channel(sock)) as channel, Renderer() as renderer:
        command = channel.receive()
        if isinstance(command, Load):
            _serve(command.config, channel, renderer)


def _model(
    config: EngineConfig, loaded: Callable[[], None]
) -> tuple[Llama, Engine | Embedder, Callable[[Inbox[Any], Audience, Channel], None]]:
    """A model ready to serve, and the loop that does."""
    if config.pooling:
        llama, computes, packer = embedder.load(config, loaded)
        return llama, computes, partial(embedder.run, computes, packer)
    llama, engine, scheduler = load(config, loaded)
    return llama, engine, partial(run, engine, scheduler)


def _serve(config: EngineConfig, channel: Channel, renderer: Renderer) -> None:
    try:
        llama, engine, loop = _model(config, lambda: channel.send(Loaded()))
        intake = Intake(llama, renderer)
    except InferenceError as error:
        channel.send(LoadFailed(error.message))
        return
    inbox: Inbox[Any] = Inbox()
    audience = Audience(engine.interrupt)
    waiter = (channel, intake, inbox, audience)
    thread = threading.Thread(target=receive, args=waiter, daemon=True)
    thread.start()
    with contextlib.suppress(OSError):  # the other end is gone, and everybody who waited
        channel.send(Ready(llama.info))
        loop(inbox, audience, channel)
    channel.close()
    thread.join()  # it reads the vocabulary
    engine.close()


if __name__ == "__main__":
    confine()
    # A signal to the whole process group is for the server: this one ends with its socket.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(socket.socket(fileno=int(sys.argv[1])))
