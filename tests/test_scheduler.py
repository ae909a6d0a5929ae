"""Laws of the scheduler, on token counts and predicted times alone."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference import kv_cache
from inference.cost_model import CostModel
from inference.kv_cache import StreamCache, UnifiedCache
from inference.scheduler import Scheduler
from inference.sequence import Sampled, Save, Sequence, StepPlan, StepResult, TextOut
from tests.fake_engine import END, FakeEngine, next_token


@pytest.fixture(autouse=True, scope="module")
def short_prefixes_are_worth_a_copy():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kv_cache, "WORTH_A_COPY", 3)
        yield


LAYOUTS = st.sampled_from(["unified", "streams"])


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


@pytest.mark.parametrize("layout", ["unified", "streams"])
def test_a_burst_with_a_common_prefix_computes_it_once(layout):
    scheduler, engine = machine(4, layout)
    prefix = list(range(1, 101))
    burst = [make_sequence(i, [*prefix, 200 + i], 4) for i in range(6)]
    scheduler.add(burst)
    finish(scheduler, engine)
    tails = sum(seq.generated for seq in burst)
    assert engine.computed == len(prefix) + tails
    assert [seq.cached for seq in burst] == [0] + [len(prefix)] * 5
    for i, seq in enumerate(burst):
        assert seq.tokens == expected([*prefix, 200 + i], 4)


@pytest.mark.parametrize("layout", ["unified", "streams"])
def test_cells_are_never_shared_between_salts(layout):
    scheduler, engine = machine(4, layout)
    prompt = list(range(1, 61))
    scheduler.add([make_sequence(i, prompt, 2, salt=salt) for i, salt in enumerate("aab")])
    sequences = list(scheduler.waiting)
    finish(scheduler, engine)
    scheduler.add([again := make_sequence(9, prompt, 2, salt="c")])
    finish(scheduler, engine)
    assert [seq.cached for seq in [*sequences, again]] == [0, 59, 0, 0]


@pytest.mark.parametrize("layout", ["unified", "streams"])
def test_a_conversation_computes_only_what_is_new(layout):
    scheduler, engine = machine(2, layout)
    first = make_sequence(1, [5, 6, 7, 8], 5, min_tokens=5)
    scheduler.add([first])
    finish(scheduler, engine)
    history = list(first.tokens)
    second = make_sequence(2, [*history, 9, 9], 3)
    scheduler.add([second])
    finish(scheduler, engine)
    assert second.cached == len(history) - 1  # the last token of an answer is never computed
    assert scheduler.counters.cached_tokens == second.cached


def test_growing_streams_that_do_not_fit_together_all_end():
    """Eight of them in half the cells they need."""
    scheduler, engine = machine(8, cells=8 * 160 // 2)
    streams = [make_sequence(i, [i + 1] * 10, 150, ignore_eos=True) for i in range(8)]
    scheduler.add(streams)
    ends = finish(scheduler, engine)
    assert set(ends.values()) == {"length"} and len(ends) == 8
    assert 0 < scheduler.counters.preemptions < 20
    assert [seq.cached for seq in streams] == [0] * 8


def test_the_oldest_of_the_highest_priority_is_preempted_last():
    scheduler, engine = machine(3, cells=240)
    kinds = [(0, 0.0), (1, 2.0), (0, 1.0)]
    streams = [
        make_sequence(i, [i + 1] * 10, 100, ignore_eos=True, priority=p, arrived=a)
        for i, (p, a) in enumerate(kinds)
    ]
    scheduler.add(streams)
    order = []
    while not scheduler.idle:
        order += [p.seq.id for p in step(scheduler, engine)[1] if p.reason]
    assert order == [1, 0, 2] and scheduler.counters.preemptions


def test_cached_prefixes_go_before_anybody_is_preempted_the_oldest_first():
    scheduler, engine = machine(1, cells=100)
    for start in (1, 2, 3):
        scheduler.add([make_sequence(start, [start] * 30, 1)])
        finish(scheduler, engine)
    scheduler.add([make_sequence(4, [4] * 35, 1)])
    finish(scheduler, engine)
    assert scheduler.counters.preemptions == 0
    cached = []
    for start in (3, 2, 1):
        scheduler.add([seq := make_sequence(start, [start] * 30, 1)])
        plan = scheduler.plan(0.0)
        cached.append(seq.cached)
        scheduler.cancel(start)
        engine.step(StepPlan(plan.moves))
    assert cached[:2] == [29, 29] and 0 < cached[2] < 6


@pytest.mark.parametrize("layout", ["unified", "streams"])
def test_what_had_to_leave_the_cache_comes_back_from_host_memory(layout):
    scheduler, engine = machine(1, layout, cells=120, host=200)
    talks = {start: [start] * 60 for start in (1, 2, 3, 4)}
    for start, prompt in talks.items():
        scheduler.add([make_sequence(start, prompt, 2)])
        finish(scheduler, engine)
    assert sum(map(len, engine.host.values())) <= 200
    scheduler.add([back := make_sequence(5, [*talks[2], 9], 2)])
    finish(scheduler, engine)
    assert back.cached == engine.restored == 60
    assert back.tokens == expected([*talks[2], 9], 2)


def test_in_streams_those_who_run_are_brought_together():
    scheduler, engine = machine(5, "streams", host=500, following=lambda tokens: len(tokens) % 7)
    answers = [60, 6, 60, 6, 60]
    streams = [make_sequence(i, [i + 1] * 40, n, ignore_eos=True) for i, n in enumerate(answers)]
    scheduler.add(streams)
    while len(scheduler.running) != 3 or streams[0].generated < 10:
        step(scheduler, engine)
    assert sorted(seq.slot for seq in scheduler.running) == [0, 1, 2]
    finish(scheduler, engine)
    for i, seq in enumerate(streams):
        assert seq.tokens == [i + 1] * 40 + [n % 7 for n in range(40, 40 + answers[i])]


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


def test_a_short_prompt_does_not_take_the_place_of_a_long_conversation():
    scheduler, engine = machine(2, "streams")
    system = list(range(1, 31))
    talk = [*system, *range(100, 300)]
    for id, prompt in enumerate([talk, [*system, 7, 7, 7]]):
        scheduler.add([make_sequence(id, prompt, 2, min_tokens=2)])
        finish(scheduler, engine)
    scheduler.add([again := make_sequence(9, [*talk, 8], 2)])
    finish(scheduler, engine)
    assert again.cached == len(talk)


@pytest.mark.parametrize("layout", ["unified", "streams"])
def test_what_is_there_already_does_not_make_a_prompt_long(layout):
    scheduler, engine = machine(2, layout, share=512)
    talk = list(range(1, 301))
    scheduler.add([make_sequence(1, talk)])
    finish(scheduler, engine)
    scheduler.add([fresh := make_sequence(2, [5] * 60), again := make_sequence(3, [*talk, 7])])
    assert scheduler.waiting == [again, fresh]


def test_what_was_given_up_is_not_saved_however_little_of_it_is_left():
    scheduler, engine = machine(2, "unified", cells=100, host=100)
    scheduler.add([make_sequence(1, [3] * 60)])
    step(scheduler, engine)
    scheduler.cancel(1)
    scheduler.add([make_sequence(2, [2] * 50, 40, ignore_eos=True)])
    finish(scheduler, engine)
    assert scheduler.cells == 100 and not engine.host


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


def test_of_several_choices_the_one_that_began_last_is_preempted_first():
    scheduler, engine = machine(3, cells=240)
    choices = [make_sequence(1, [5] * 10, 100, index=i, ignore_eos=True) for i in range(3)]
    scheduler.add(choices)
    while not scheduler.counters.preemptions:
        step(scheduler, engine)
    assert [seq.slot >= 0 for seq in choices] == [True, True, False]


@pytest.mark.parametrize("layout", ["unified", "streams"])
def test_nobody_waits_for_more_than_one_prefix_to_be_saved(layout):
    scheduler, engine = machine(4, layout, cells=160, host=1000)
    for wave in range(3):
        for i in range(4):
            scheduler.add([make_sequence(10 * wave + i, [50 * wave + i] * 30, 2)])
        while not scheduler.idle:
            plan, _ = step(scheduler, engine)
            assert sum(isinstance(move, Save) for move in plan.moves) <= 1
    assert engine.host


@pytest.mark.parametrize("layout", ["streams", "unified"])
def test_what_has_to_leave_next_is_saved_while_nobody_waits(layout):
    scheduler, engine = machine(2, layout, cells=70, host=1000)
    scheduler.add([make_sequence(i, [i] * 30, 2) for i in (1, 2)])
    finish(scheduler, engine)
    assert scheduler.restless and not engine.host
    while scheduler.restless:
        before = len(engine.host)
        step(scheduler, engine)
        assert len(engine.host) == before + 1
    scheduler.add([make_sequence(3, [3] * 30, 2)])
    plan, _ = step(scheduler, engine)
    assert plan.prefills and not any(isinstance(move, Save) for move in plan.moves)


@pytest.mark.parametrize("layout", ["streams", "unified"])
@pytest.mark.parametrize(("rest", "computed"), [(64, 64), (60, 64), (48, 64), (47, 47), (70, 70)])
def test_a_rest_that_nearly_fills_a_tile_fills_it(layout, rest, computed):
    scheduler, engine = machine(2, layout, cells=800, batch=512, share=800, tile=64)
    system = [1, 2, 3] * 100
    for id, tail in enumerate(([4] * 70, [5] * rest)):
        scheduler.add([seq := make_sequence(id, system + tail, 1)])
        finish(scheduler, engine)
    assert seq.prompt_len - seq.cached == computed


def test_an_answer_alone_is_not_saved():
    """It is given up for another answer to the same question."""
    scheduler, engine = machine(1, "streams", host=1000, following=lambda tokens: len(tokens) % 7)
    for prompt in ([1] * 20, [1] * 20, [1] * 20 + [2] * 5):
        scheduler.add([make_sequence(1, prompt, 20)])
        finish(scheduler, engine)
    assert not engine.host


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
    result = StepResult([Sampled(seq, END, b"</s>", ends=True)])
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
    sampled[0] = Sampled(bad, -1, b"", fault="not a number")
    faults = [p.fault and p.fault.message for p in scheduler.commit(plan, StepResult(sampled), 0.0)]
    assert faults == ["not a number", None]
    assert scheduler.running == [good]
    finish(scheduler, engine)
    assert good.tokens == expected([3, 4], 8)
