"""The cost model against boxes whose costs are known."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.cost_model import TILE, CallCost, CostModel, passes, reach
from inference.sequence import Chunk, Sequence

costs = st.tuples(st.floats(1e-4, 0.1), st.floats(1e-5, 0.01), st.floats(0, 1e-7))


def box(cost):
    """Seconds of a call on a box with these costs."""
    fixed, each, attention = cost
    return lambda rows, reach: fixed + each * rows + attention * reach


@settings(max_examples=60)
@given(costs, st.integers(0, 10**6))
def test_it_learns_what_a_call_costs(cost, seed):
    rng, truth, learnt = random.Random(seed), box(cost), CallCost()
    for _ in range(64):
        rows, start = rng.randrange(1, 512), rng.randrange(4096)
        learnt.observe(rows, reach(start, rows), truth(rows, reach(start, rows)))
    for rows in (16, 64, 256, 500):
        seconds = truth(rows, reach(1000, rows))
        assert abs(learnt.predict(rows, reach(1000, rows)) - seconds) < 0.15 * seconds


def test_a_box_that_becomes_slower_is_noticed_within_a_few_dozen_calls():
    learnt = CallCost()
    for speed in (1, 3):
        for rows in [16, 64, 128, 256] * 12:
            learnt.observe(rows, reach(0, rows), speed * (0.01 + 0.001 * rows))
    assert 0.9 < learnt.predict(128, reach(0, 128)) / (3 * 0.138) < 1.1


def test_a_single_hiccup_changes_little():
    learnt = CallCost()
    for rows in [16, 64, 128, 256] * 12:
        learnt.observe(rows, reach(0, rows), 0.01 + 0.001 * rows)
    for _ in range(8):
        learnt.observe(64, reach(0, 64), 0.074)
    learnt.observe(64, reach(0, 64), 60.0)
    for _ in range(8):
        learnt.observe(64, reach(0, 64), 0.074)
    assert learnt.predict(64, reach(0, 64)) < 0.15


def model(fixed: float, each: float) -> CostModel:
    learnt = CostModel()
    for rows in [16, 64, 128, 256] * 12:
        learnt.prefill.observe(rows, reach(0, rows), fixed + each * rows)
    return learnt


def test_a_chunk_is_the_largest_that_fits_and_leaves_no_less_than_a_tile():
    learnt = model(0.01, 0.001)
    assert learnt.chunk(0, 1000, 512, 0.2) == 2 * TILE
    assert learnt.chunk(0, 1000, 512, math.inf) == 512
    assert learnt.chunk(0, 100, 512, 0.2) == 100
    assert learnt.chunk(0, 3 * TILE - 1, 512, 0.2) == TILE
    assert learnt.chunk(0, 1000, 512, 0.0) == learnt.chunk(0, 50, 49, math.inf) == 0
    assert learnt.chunk(0, 1000, 512, 0.2) >= learnt.chunk(100_000, 1000, 512, 0.2)


def test_where_nothing_fits_a_tile_is_computed_unless_that_takes_too_long():
    learnt = model(0.01, 0.001)
    assert learnt.least(0, 1000, 512, 0.1) == TILE
    assert learnt.least(0, 70, 512, 0.1) == 70
    assert learnt.least(0, 1000, 512, 0.01) == TILE // 4
    assert learnt.least(0, 5, 512, 0.0) == 5
    assert learnt.least(0, 1000, 8, 1.0) == 8


def test_a_fair_step_is_the_shortest_that_gives_the_prompt_its_share():
    learnt = model(0.05, 0.002)
    seconds = learnt.fair(0.1, 512, 0.75)
    chunk = learnt.chunk(0, 512, 512, seconds)
    for size, enough in ((chunk, True), (chunk - TILE, False)):
        own = learnt.prefill.predict(size, reach(0, size)) - learnt.prefill.fixed
        assert (own >= 0.75 * (0.1 + learnt.prefill.fixed + own)) is enough


def test_the_load_of_a_call_counts_drafts_and_the_cells_that_are_looked_at():
    seq = Sequence(id=0, tokens=[1] * 10, limit=20)
    chunks = [Chunk(seq, 9, 1, (5, 5)), Chunk(seq, 0, 4)]
    assert CostModel().load(chunks) == (7, (10 + 11 + 12) + 10, 1)


@pytest.mark.parametrize(
    ("rows", "times"),
    [
        ({0: 1, 1: 1, 2: 1}, 1),
        ({0: 4, 1: 4, 2: 4}, 1),
        ({0: 1, 1: 4, 2: 1}, 2),
        ({0: 4, 1: 1, 2: 4}, 3),
        ({0: 128, 1: 70}, 2),
        ({3: 1, 5: 1, 6: 1}, 2),
        ({}, 0),
    ],
)
def test_in_streams_a_pass_takes_as_much_of_each_slot_side_by_side(rows, times):
    chunks = [
        Chunk(Sequence(id=slot, slot=slot, tokens=[1] * 200, limit=300), 0, count)
        for slot, count in rows.items()
    ]
    assert passes(chunks) == times


def test_a_pass_more_costs_what_one_costs():
    learnt = CallCost()
    for rows, times in [(1, 1), (4, 1), (4, 2), (16, 3), (64, 1), (64, 2)] * 8:
        learnt.observe(rows, reach(0, rows), 0.03 * times + 0.002 * rows, times)
    assert abs(learnt.predict(8, reach(0, 8), 2) - 0.076) < 0.01
    assert abs(learnt.fixed - 0.03) < 0.005
