"""A scheduler over a fake engine, and how to run it."""

from inference.cost_model import CostModel
from inference.kv_cache import StreamCache, UnifiedCache
from inference.scheduler import Scheduler
from inference.sequence import Sequence
from tests.fake_engine import END, FakeEngine, next_token


def cheap_rows(rows: int) -> float:
    """Seconds of a call on a box where guessing pays."""
    return 0.1 + 0.0001 * rows if rows else 0.0


def make_sequence(id: int, prompt: list[int], answer: int = 8, **kwargs) -> Sequence:
    return Sequence(id=id, tokens=list(prompt), limit=len(prompt) + answer, **kwargs)


def machine(slots: int, layout: str = "unified", cells: int = 10_000, batch: int = 64, **kwargs):
    """A scheduler and the engine under it."""
    seconds = kwargs.pop("seconds", lambda rows: 0.001 * (1 + rows))
    following = kwargs.pop("following", next_token)
    unified, host = layout == "unified", kwargs.pop("host", 0)
    cost = CostModel(streams=not unified, draft=kwargs.pop("draft", False))
    share, tile = kwargs.pop("share", 128), kwargs.pop("tile", 1)
    cache = (
        UnifiedCache(slots, cells, host, tile) if unified else StreamCache(slots, share, host, tile)
    )
    engine = FakeEngine(slots, cells if unified else None, seconds, following)
    return Scheduler(cache, cost, batch, **kwargs), engine


def step(scheduler: Scheduler, engine: FakeEngine, now: float = 0.0):
    plan = engine.draft(scheduler.plan(now))
    progress = scheduler.commit(plan, engine.step(plan), now)
    assert scheduler.cells == engine.used
    assert scheduler._cache._host._keys.keys() == engine.host.keys()
    return plan, progress


def finish(scheduler: Scheduler, engine: FakeEngine) -> dict[int, str]:
    """Run until idle; how every sequence ended, by request id."""
    ends: dict[int, str] = {}
    while not scheduler.idle:
        for progress in step(scheduler, engine)[1]:
            seq = progress.seq
            assert 0 <= seq.computed <= len(seq.tokens) <= seq.limit
            if progress.reason:
                assert seq.id not in ends
                ends[seq.id] = progress.reason
    return ends


def expected(prompt: list[int], answer: int) -> list[int]:
    """The tokens of an undisturbed run."""
    tokens = list(prompt)
    while len(tokens) < len(prompt) + answer and (len(tokens) == len(prompt) or tokens[-1] != END):
        tokens.append(next_token(tokens))
    return tokens
