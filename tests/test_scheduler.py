"""Laws of the scheduler, on token counts and predicted times alone."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.errors import NumericalError
from inference.sequence import Sampled, StepResult
from inference.text_out import TextOut
from tests.fake_engine import END
from tests.scheduling import cheap_rows, expected, finish, machine, make_sequence, step

pytestmark = pytest.mark.usefixtures("short_prefixes_are_worth_a_copy")

LAYOUTS = st.sampled_from(["unified", "streams"])


prompts = st.lists(st.integers(1, 3), min_size=1, max_size=30)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(prompts, st.integers(1, 12)), min_size=1, max_size=12),
    st.integers(1, 4),
    LAYOUTS,
    st.sampled_from([42, 64, 200]),
    st.fixed_dictionaries(
        {
            "drafts": st.sampled_from([0, 24]),
            "draft": st.booleans(),
            "host": st.sampled_from([0, 50, 500]),
        }
    ),
)
def test_every_sequence_ends_once_with_the_tokens_of_an_undisturbed_run(
    requests, slots, layout, cells, kwargs
):
    """Also where it was preempted, forked from another, spilled, or ran on guesses."""
    scheduler, engine = machine(slots, layout, cells, seconds=cheap_rows, **kwargs)
    sequences = [make_sequence(i, p, answer) for i, (p, answer) in enumerate(requests)]
    scheduler.add(sequences)
    ends = finish(scheduler, engine)
    assert set(ends) == set(range(len(requests)))
    for seq, (prompt, answer) in zip(sequences, requests, strict=True):
        assert seq.tokens == expected(prompt, answer)


BASES = ([1, 2, 3] * 7, [2, 2, 1] * 7, [3, 1] * 10)


alike = st.builds(
    lambda base, length, tail: base[:length] + tail,
    st.sampled_from(BASES),
    st.integers(1, 20),
    st.lists(st.integers(1, 3), max_size=8),
)


arrivals = st.fixed_dictionaries(
    {
        "step": st.integers(0, 60),
        "prompt": alike,
        "answer": st.integers(1, 12),
        "priority": st.integers(-1, 1),
        "salt": st.sampled_from(["", "mine"]),
        "tenant": st.sampled_from(["", "other"]),
        "cancelled": st.none() | st.integers(0, 15),
        "deadline": st.just(math.inf) | st.integers(1, 30),
    }
)


@settings(max_examples=250)
@given(
    st.lists(arrivals, min_size=1, max_size=20),
    st.sets(st.integers(0, 60), max_size=8),
    st.integers(1, 4),
    LAYOUTS,
    st.sampled_from([45, 60, 120]),
    st.fixed_dictionaries(
        {
            "host": st.sampled_from([0, 40, 90]),
            "drafts": st.sampled_from([0, 24]),
            "draft": st.booleans(),
        }
    ),
)
def test_whatever_comes_and_goes_everybody_ends_once_as_if_alone(
    arriving, aborted, slots, layout, cells, kwargs
):
    """Arrivals, hang-ups, deadlines and interrupted steps at any time."""
    scheduler, engine = machine(slots, layout, cells, batch=16, seconds=cheap_rows, **kwargs)
    sequences = {}
    ends: dict[int, list] = {}
    now = 0
    while now <= 60 or not scheduler.idle:
        for id, a in enumerate(arriving):
            if a["step"] == now:
                sequences[id] = make_sequence(
                    id,
                    a["prompt"],
                    a["answer"],
                    priority=a["priority"],
                    salt=a["salt"],
                    tenant=a["tenant"],
                    arrived=now,
                    deadline=now + a["deadline"],
                )
                scheduler.add([sequences[id]])
            if a["cancelled"] is not None and a["step"] + a["cancelled"] == now:
                scheduler.cancel(id)
        if not scheduler.idle:
            plan = engine.draft(scheduler.plan(now))
            result = engine.step(plan, aborted=now in aborted)
            for progress in scheduler.commit(plan, result, now):
                if progress.reason or progress.fault:
                    ends.setdefault(progress.seq.id, []).append(progress)
            assert scheduler.cells == engine.used
            assert scheduler._cache._host._keys.keys() == engine.host.keys()
        now += 1
        assert now < 2000
    for id, a in enumerate(arriving):
        seq = sequences[id]
        whole = expected(a["prompt"], a["answer"])
        assert seq.tokens == whole[: len(seq.tokens)]
        assert len(ends.get(id, [])) <= 1
        assert seq.tokens == whole or a["cancelled"] is not None or ends[id][0].fault


@settings(max_examples=100)
@given(
    st.lists(st.integers(1, 600), min_size=1, max_size=8),
    st.floats(0.002, 0.2),
    st.floats(1e-5, 1e-3),
    LAYOUTS,
    st.sampled_from([64, 512]),
)
def test_no_step_is_larger_than_the_batch_nor_predicted_to_miss_the_target(
    lengths, target, each, layout, batch
):
    scheduler, engine = machine(
        4,
        layout,
        batch=batch,
        share=1024,
        itl_target=target,
        seconds=lambda rows: 0.001 + each * rows,
    )
    cost = scheduler._cost
    for chunk_rows in (16, 64, 16, 64):
        cost.prefill.observe(chunk_rows, chunk_rows * chunk_rows // 2, 0.001 + each * chunk_rows)
    scheduler.add([make_sequence(0, [1], 200)])
    step(scheduler, engine)
    scheduler.add([make_sequence(n, [n] * length) for n, length in enumerate(lengths, 1)])
    while not scheduler.idle:
        plan = scheduler.plan(0.0)
        assert sum(c.rows for c in plan.chunks) <= batch
        assert {c.seq for c in plan.decodes} == {s for s in scheduler.running if s.pending == 1}
        if plan.decodes and plan.prefills:
            decode = cost.decode.predict(*cost.load(plan.decodes))
            prefill = cost.prefill.predict(*cost.load(plan.prefills))
            least = len(plan.prefills) == 1 and plan.prefills[0].count <= 16
            assert least or decode + prefill <= target
        assert plan.prefills or not any(s.pending > 1 for s in scheduler.running)
        scheduler.commit(plan, engine.step(plan), 0.0)


@settings(max_examples=50)
@given(st.data())
def test_nobody_starves(data):
    """Whatever keeps arriving, and however it is favoured, a prompt gets its turn."""
    scheduler, engine = machine(2, batch=32, itl_target=0.02)
    last = make_sequence(0, [9] * 60, 2, priority=-1)
    scheduler.add([last])
    now, id = 0.0, 0
    while last.generated < 2:
        for _ in range(data.draw(st.integers(0, 3))):
            id += 1
            prompt = [1 + id % 7] * data.draw(st.integers(1, 20))
            scheduler.add([make_sequence(id, prompt, 2, priority=1, arrived=now)])
        step(scheduler, engine, now)
        now += 1.0
        assert now < 300


def test_a_short_prompt_overtakes_a_long_one_that_came_just_before():
    scheduler, engine = machine(3, batch=64, itl_target=0.02, seconds=lambda rows: 0.01 * rows)
    scheduler.add([make_sequence(1, [1, 2, 3], 50)])
    step(scheduler, engine)
    scheduler.add([make_sequence(2, list(range(400)), arrived=1.0)])
    step(scheduler, engine, 1.0)
    short = make_sequence(3, [7, 7, 7, 7], arrived=1.1)
    scheduler.add([short])
    plan, _ = step(scheduler, engine, 1.1)
    assert plan.prefills[0].seq is short


def test_a_higher_priority_goes_first_and_waiting_makes_up_for_a_lower_one():
    scheduler, engine = machine(1)
    low = make_sequence(1, [1, 1], priority=-1, arrived=0.0)
    fresh = make_sequence(2, [2, 2], priority=0, arrived=10.0)
    late = make_sequence(3, [3, 3], priority=1, arrived=100.0)
    scheduler.add([late, fresh, low])
    order = []
    while not scheduler.idle:
        order += [p.seq.id for p in step(scheduler, engine)[1] if p.reason]
    assert order == [2, 1, 3]


def test_a_crowd_whose_decodes_are_slow_gets_longer_steps():
    """Otherwise a prompt would get less time in a step than those who decode."""
    few, many = (longest_chunk(decoding) for decoding in (1, 40))
    assert many > few


def longest_chunk(decoding: int) -> int:
    """Of a long prompt beside so many that decode; a decode costs as much as four tokens of it."""
    scheduler, engine = machine(
        48, "streams", batch=512, share=4096, drafts=0, seconds=lambda rows: 0.02 + 0.02 * rows
    )
    for rows in [1, 16, 64, 128, 256] * 10:
        scheduler._cost.decode.observe(rows, rows, 0.02 + 0.02 * rows)
        scheduler._cost.prefill.observe(rows, rows, 0.02 + 0.005 * rows)
    scheduler.add([make_sequence(id, [id], 50, ignore_eos=True) for id in range(1, decoding + 1)])
    step(scheduler, engine)
    scheduler.add([make_sequence(0, [3] * 2000)])
    return max(chunk.count for chunk in scheduler.plan(0.0).prefills)


@pytest.mark.parametrize("layout", ["unified", "streams"])
def test_what_is_there_already_does_not_make_a_prompt_long(layout):
    scheduler, engine = machine(2, layout, share=512)
    talk = list(range(1, 301))
    scheduler.add([make_sequence(1, talk)])
    finish(scheduler, engine)
    scheduler.add([fresh := make_sequence(2, [5] * 60), again := make_sequence(3, [*talk, 7])])
    assert scheduler.waiting == [again, fresh]


def test_who_is_waited_for_is_as_urgent_as_who_waits():
    scheduler, engine = machine(4, batch=64)
    prompt = list(range(1, 301))
    scheduler.add([leader := make_sequence(1, prompt, priority=-1)])
    step(scheduler, engine)
    others = [make_sequence(2, [9] * 300), make_sequence(3, [8] * 300)]
    scheduler.add([*others, make_sequence(4, [*prompt, 7], priority=1)])
    plan, _ = step(scheduler, engine)
    assert [chunk.seq for chunk in plan.prefills] == [leader]


def test_who_waits_for_a_prefix_keeps_its_place_in_line():
    scheduler, engine = machine(2, batch=16)
    prompt = list(range(1, 101))
    leader, follower = make_sequence(1, prompt, 30), make_sequence(2, [*prompt[:90], 5, 5], 30)
    stranger = make_sequence(3, [9] * 20, 300, arrived=1.0)
    scheduler.add([leader])
    step(scheduler, engine)
    scheduler.add([follower, stranger])
    while follower.slot < 0:
        step(scheduler, engine, 2.0)
        assert stranger.slot < 0
    assert follower.cached >= 90


def test_a_deadline_ends_a_request_wherever_it_is():
    scheduler, engine = machine(1)
    running, waiting = (make_sequence(i, [i, i], 99, deadline=5.0) for i in (1, 2))
    scheduler.add([running, waiting])
    step(scheduler, engine, 1.0)
    _, progress = step(scheduler, engine, 5.0)
    assert {p.seq: p.fault.code for p in progress} == dict.fromkeys(
        (running, waiting), "deadline_exceeded"
    )
    assert scheduler.idle


def test_a_text_that_repeats_is_guessed_and_is_the_same():
    period = [3, 1, 4, 1, 5, 9]

    def repeating(tokens):
        return period[len(tokens) % len(period)]

    def computed(drafts: int) -> tuple[list[int], int]:
        scheduler, engine = machine(
            1, drafts=drafts, following=repeating, seconds=lambda rows: 1 + 0.01 * rows
        )
        scheduler.add([seq := make_sequence(1, [7], 60)])
        steps = 0
        while not scheduler.idle:
            step(scheduler, engine)
            steps += 1
        assert scheduler.counters.accepted <= scheduler.counters.drafted
        return seq.tokens, steps

    plain, drafted = computed(0), computed(15)
    assert drafted[0] == plain[0]
    assert drafted[1] < plain[1] / 2


def test_a_draft_model_guesses_what_was_never_said_before():
    scheduler, engine = machine(1, drafts=15, draft=True, seconds=cheap_rows)
    engine._guesses = lambda chunk: tuple(expected(chunk.seq.tokens, chunk.asked))[-chunk.asked :]
    scheduler.add([seq := make_sequence(1, [7], 60, ignore_eos=True)])
    finish(scheduler, engine)
    assert scheduler.counters.accepted > len(seq.tokens) / 2


@pytest.mark.parametrize("draft", [False, True])
def test_who_does_not_want_guesses_gets_none(draft):
    scheduler, engine = machine(1, drafts=15, following=lambda _: 5, draft=draft)
    scheduler.add([make_sequence(1, [5] * 10, 20, speculate=False)])
    finish(scheduler, engine)
    assert scheduler.counters.drafted == 0


def test_an_end_token_ends_a_text_and_is_not_shown():
    scheduler, _ = machine(1)
    scheduler.add([seq := make_sequence(1, [1, 2])])
    plan = scheduler.plan(0.0)
    result = StepResult([Sampled(seq, END, b"", ends=True)])
    [progress] = scheduler.commit(plan, result, 1.0)
    assert (progress.text, progress.reason) == ("", "stop")
    assert scheduler.idle


@pytest.mark.parametrize(
    ("stop", "text", "reason"), [(("c d",), "a b ", "stop"), ((), "a b c", "length")]
)
def test_a_stop_string_ends_a_text_wherever_tokens_cut_it(stop, text, reason):
    scheduler, _ = machine(1)
    seq = make_sequence(1, [1], answer=4 if stop else 3, text=TextOut(stop))
    scheduler.add([seq])
    shown, ended = "", None
    for piece in [b"a ", b"b ", b"c", b" d"]:
        plan = scheduler.plan(0.0)
        [progress] = scheduler.commit(plan, StepResult([Sampled(seq, 7, piece)]), 0.0)
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
    scheduler, engine = machine(2)
    bad, good = make_sequence(1, [1, 2]), make_sequence(2, [3, 4])
    scheduler.add([bad, good])
    plan = scheduler.plan(0.0)
    sampled = engine.step(plan).sampled
    sampled[0] = Sampled(bad, -1, b"", fault=NumericalError("not a number"))
    faults = [p.fault and p.fault.message for p in scheduler.commit(plan, StepResult(sampled), 0.0)]
    assert faults == ["not a number", None]
    assert scheduler.running == [good]
    finish(scheduler, engine)
    assert good.tokens == expected([3, 4], 8)


def busy_with(tenant, slots=2, waiting=4):
    """A machine of which `tenant` has all slots, and more in the queue."""
    scheduler, engine = machine(slots)
    scheduler.add([make_sequence(i, [1, 2, i], 30, tenant=tenant) for i in range(slots + waiting)])
    step(scheduler, engine)
    assert len(scheduler.running) == slots
    return scheduler, engine


def test_a_tenant_of_whom_nothing_runs_gets_a_slot_at_once():
    scheduler, engine = busy_with("many")
    scheduler.add([make_sequence(100 + i, [3, i], 30, tenant="few", arrived=9.0) for i in range(3)])
    step(scheduler, engine)
    assert sorted(seq.tenant for seq in scheduler.running) == ["few", "many"]
    for _ in range(10):  # and no more than its share
        step(scheduler, engine)
    assert sorted(seq.tenant for seq in scheduler.running) == ["few", "many"]
    assert scheduler.counters.preemptions == 1
    assert len(finish(scheduler, engine)) == 9


def test_a_slot_that_gets_free_goes_to_the_tenant_who_has_least():
    scheduler, engine = busy_with("many", slots=4)
    scheduler.add([make_sequence(100 + i, [3, i], 30, tenant="few", arrived=9.0) for i in range(3)])
    step(scheduler, engine)
    scheduler.cancel(next(seq.id for seq in scheduler.running if seq.tenant == "many"))
    step(scheduler, engine)
    assert sorted(seq.tenant for seq in scheduler.running) == ["few", "few", "many", "many"]


def test_one_tenant_alone_is_served_by_rank():
    scheduler, _ = busy_with("one", slots=1, waiting=2)
    scheduler.add([make_sequence(9, [3], 30, tenant="one", priority=1)])
    assert [seq.id for _, seq in scheduler._turns()] == [9, 1, 2]
    assert scheduler.counters.preemptions == 0
