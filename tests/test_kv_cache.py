"""What the KV cache keeps, shares, saves and gives up, as the scheduler uses it."""

import pytest

from inference.sequence import Save, StepPlan
from tests.scheduling import expected, finish, machine, make_sequence, step

pytestmark = pytest.mark.usefixtures("short_prefixes_are_worth_a_copy")


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


def test_what_was_given_up_is_not_saved_however_little_of_it_is_left():
    scheduler, engine = machine(2, "unified", cells=100, host=100)
    scheduler.add([make_sequence(1, [3] * 60)])
    step(scheduler, engine)
    scheduler.cancel(1)
    scheduler.add([make_sequence(2, [2] * 50, 40, ignore_eos=True)])
    finish(scheduler, engine)
    assert scheduler.cells == 100 and not engine.host


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


def test_what_is_to_be_copied_is_not_overwritten_before():
    scheduler, engine = machine(3, "streams", host=1000)
    scheduler.add([make_sequence(0, [9] * 40, 1)])
    finish(scheduler, engine)
    talks = [make_sequence(n, [n] * 60, n, ignore_eos=True) for n in (1, 2, 3)]
    scheduler.add(talks)
    finish(scheduler, engine)
    assert engine.host  # [9] * 40 had to leave
    copied = make_sequence(4, [2] * 10 + [8] * 5, 1)
    restored = make_sequence(5, [9] * 40 + [7] * 30, 1)
    scheduler.add([copied, restored])
    finish(scheduler, engine)
    assert copied.cached == 10
    assert restored.tokens == expected([9] * 40 + [7] * 30, 1)
