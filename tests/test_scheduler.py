"""Laws of the scheduler, on token counts alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.scheduler import Scheduler
from inference.sequence import Sampled, Sequence, TextOut
from tests.fake_engine import END, FakeEngine, next_token


def make_sequence(id: int, prompt: list[int], answer: int = 8, **kwargs) -> Sequence:
    return Sequence(id=id, tokens=list(prompt), limit=len(prompt) + answer, **kwargs)


def finish(scheduler: Scheduler, engine: FakeEngine) -> dict[int, str]:
    """Run until idle; how every sequence ended, by request id."""
    ends: dict[int, str] = {}
    while not scheduler.idle:
        plan = scheduler.plan(now=0.0)
        for progress in scheduler.commit(plan, engine.step(plan), now=0.0):
            seq = progress.seq
            assert 0 <= seq.cached <= seq.computed <= len(seq.tokens) <= seq.limit
            if progress.reason:
                assert progress.seq.id not in ends
                ends[progress.seq.id] = progress.reason
    return ends


def expected(prompt: list[int], answer: int) -> list[int]:
    """The tokens of an undisturbed run."""
    tokens = list(prompt)
    while len(tokens) < len(prompt) + answer and (len(tokens) == len(prompt) or tokens[-1] != END):
        tokens.append(next_token(tokens))
    return tokens


prompts = st.lists(st.integers(1, 3), min_size=1, max_size=30)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(prompts, st.integers(1, 12)), min_size=1, max_size=12),
    st.integers(1, 4),
    st.sampled_from([1, 3, 7, 64]),
)
def test_every_sequence_ends_once_with_the_tokens_of_an_undisturbed_run(requests, slots, chunk):
    scheduler, engine = Scheduler(slots, batch=64, chunk=chunk), FakeEngine(slots)
    sequences = [make_sequence(i, p, answer) for i, (p, answer) in enumerate(requests)]
    scheduler.add(sequences)
    ends = finish(scheduler, engine)
    assert set(ends) == set(range(len(requests)))
    for seq, (prompt, answer) in zip(sequences, requests, strict=True):
        assert seq.tokens == expected(prompt, answer)


@settings(max_examples=60)
@given(st.data())
def test_cancelling_at_any_time_frees_the_slot_and_disturbs_nobody(data):
    scheduler, engine = Scheduler(3, batch=16, chunk=4), FakeEngine(3)
    sequences = [make_sequence(i, data.draw(prompts), 10) for i in range(8)]
    cancelled = data.draw(st.sets(st.integers(0, 7)))
    moment = {id: data.draw(st.integers(0, 12)) for id in cancelled}
    scheduler.add(sequences)
    step = 0
    while not scheduler.idle:
        for id in (id for id, when in moment.items() if when == step):
            scheduler.cancel(id)
            assert all(seq.id != id for seq in [*scheduler.running, *scheduler.waiting])
        plan = scheduler.plan(0.0)
        scheduler.commit(plan, engine.step(plan), 0.0)
        step += 1
    assert scheduler.cells == sum(map(len, engine.cells))
    for seq in sequences:
        if seq.id not in cancelled:
            assert seq.tokens == expected(seq.tokens[: seq.prompt_len], 10)


@given(st.lists(prompts, min_size=2, max_size=10), st.sampled_from([1, 5, 16]))
def test_no_step_is_larger_than_the_batch_and_decodes_are_never_left_out(requests, chunk):
    scheduler, engine = Scheduler(4, batch=16, chunk=chunk), FakeEngine(4)
    scheduler.add([make_sequence(i, p) for i, p in enumerate(requests)])
    while not scheduler.idle:
        plan = scheduler.plan(0.0)
        assert sum(c.count for c in plan.chunks) <= 16
        assert {c.seq for c in plan.decodes} == {s for s in scheduler.running if s.pending == 1}
        if plan.decodes:
            assert sum(c.count for c in plan.prefills) <= chunk
        scheduler.commit(plan, engine.step(plan), 0.0)


def test_prompts_are_admitted_and_computed_in_order_of_arrival():
    scheduler = Scheduler(2, batch=8, chunk=8)
    scheduler.add([make_sequence(i, [1 + i] * 6) for i in range(3)])
    plan = scheduler.plan(0.0)
    assert [(c.seq.id, c.count) for c in plan.prefills] == [(0, 6), (1, 2)]
    assert [s.id for s in scheduler.waiting] == [2]


def test_a_conversation_computes_only_what_is_new():
    scheduler, engine = Scheduler(2, batch=64, chunk=64), FakeEngine(2)
    first = make_sequence(1, [5, 6, 7, 8], 5, min_tokens=5)
    scheduler.add([first])
    finish(scheduler, engine)
    history = list(first.tokens)
    second = make_sequence(2, [*history, 9, 9], 3)
    scheduler.add([second])
    finish(scheduler, engine)
    assert second.cached == len(history) - 1  # the last token of an answer is never computed
    assert scheduler.counters.cached_tokens == second.cached


def test_an_end_token_ends_a_text_and_is_not_shown():
    scheduler = Scheduler(1, batch=8, chunk=8)
    seq = make_sequence(1, [1, 2])
    scheduler.add([seq])
    plan = scheduler.plan(0.0)
    [progress] = scheduler.commit(plan, [Sampled(seq, END, b"</s>", ends=True)], 1.0)
    assert (progress.text, progress.reason) == ("", "stop")
    assert scheduler.idle


@pytest.mark.parametrize(
    ("stop", "text", "reason"), [(("c d",), "a b ", "stop"), ((), "a b c", "length")]
)
def test_a_stop_string_ends_a_text_wherever_tokens_cut_it(stop, text, reason):
    scheduler = Scheduler(1, batch=8, chunk=8)
    seq = make_sequence(1, [1], answer=4 if stop else 3, text=TextOut(stop))
    scheduler.add([seq])
    shown, ended = "", None
    for piece in [b"a ", b"b ", b"c", b" d"]:
        plan = scheduler.plan(0.0)
        [progress] = scheduler.commit(plan, [Sampled(seq, 7, piece)], 0.0)
        shown, ended = shown + progress.text, progress.reason
        if ended:
            break
    assert (shown, ended) == (text, reason)


def test_a_character_of_several_bytes_is_never_split():
    out = TextOut()
    pieces = [bytes([b]) for b in "你好👋".encode()]
    texts = [out.feed(piece)[0] for piece in pieces]
    assert "".join(texts) == "你好👋"
    assert all(text in ("", "你", "好", "👋") for text in texts)


def test_bytes_that_are_no_text_are_replaced_at_the_end():
    out = TextOut()
    assert out.feed("好".encode()[:2]) == ("", False)
    assert out.finish() == "\ufffd"


def test_a_fault_fails_its_own_sequence_only():
    scheduler, engine = Scheduler(2, batch=16, chunk=16), FakeEngine(2)
    bad, good = make_sequence(1, [1, 2]), make_sequence(2, [3, 4])
    scheduler.add([bad, good])
    plan = scheduler.plan(0.0)
    results = engine.step(plan)
    results[0] = Sampled(bad, -1, b"", fault="not a number")
    faults = [p.fault for p in scheduler.commit(plan, results, 0.0)]
    assert faults == ["not a number", ""]
    assert scheduler.running == [good]
    finish(scheduler, engine)
    assert good.tokens == expected([3, 4], 8)
