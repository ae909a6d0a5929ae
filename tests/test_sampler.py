"""One row of logits to one token: greedy, truncation, penalties, reproducible draws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference import sampler
from inference.sequence import SamplingParams


def row_of(*logits: float) -> sampler.Row:
    return np.array(logits, np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def frequencies(row: sampler.Row, params: SamplingParams, draws: int = 4000) -> np.ndarray:
    tokens = [sampler.draw(row, params, position) for position in range(draws)]
    return np.bincount(tokens, minlength=len(row)) / draws


def test_temperature_zero_takes_the_largest():
    assert sampler.draw(row_of(1, 5, 2), SamplingParams(temperature=0), 0) == 1


def test_a_temperature_too_small_for_numbers_is_greedy():
    for temperature in (1e-300, 1e-45, 1e-7):
        assert sampler.draw(row_of(1, 5, 2), SamplingParams(temperature=temperature), 0) == 1


def test_draws_follow_the_softmax():
    row = row_of(0.0, 1.0, 2.0, -1.0)
    assert frequencies(row, SamplingParams()) == pytest.approx(softmax(row), abs=0.03)


def test_temperature_comes_before_top_p():
    row = row_of(0.0, 1.0, 2.0, -1.0)
    found = frequencies(row, SamplingParams(temperature=0.25, top_p=0.95))
    assert found.nonzero()[0].tolist() == [2]  # 0.982 of the mass at this temperature


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 50), st.floats(0.05, 1.0), st.floats(0.0, 0.5))
def test_only_tokens_that_survive_every_truncation_are_drawn(seed, top_k, top_p, min_p):
    row = np.random.default_rng(seed).normal(size=200).astype(np.float32)
    params = SamplingParams(top_k=top_k, top_p=top_p, min_p=min_p, seed=seed)
    order = np.argsort(-row, kind="stable")[:top_k]
    weights = softmax(row[order].astype(np.float64))
    reach = min(int(np.searchsorted(weights.cumsum(), top_p * (1 - 1e-9))) + 2, top_k)
    allowed = set(order[:reach][weights[:reach] >= min_p * weights[0] * (1 - 1e-6)].tolist())
    assert {sampler.draw(row, params, p) for p in range(40)} <= allowed


@pytest.mark.parametrize("scale", [0.01, 5.0])
def test_top_p_over_a_whole_vocabulary_is_exact_for_flat_and_for_peaked_logits(scale):
    row = np.random.default_rng(1).normal(scale=scale, size=20_000).astype(np.float32)
    ids, _ = sampler._candidates(row, SamplingParams(top_p=0.8))
    order = np.argsort(-row, kind="stable")
    needed = int(softmax(row[order].astype(np.float64)).cumsum().searchsorted(0.8)) + 1
    assert abs(len(ids) - needed) <= 1
    assert set(ids[: needed - 1]) <= set(order[:needed])


def test_a_draw_depends_on_seed_and_position_alone():
    row = np.zeros(1000, np.float32)
    first = [sampler.draw(row, SamplingParams(seed=7), p) for p in range(20)]
    assert first == [sampler.draw(row, SamplingParams(seed=7), p) for p in range(20)]
    assert first != [sampler.draw(row, SamplingParams(seed=8), p) for p in range(20)]


def test_penalties_follow_their_definitions():
    row = row_of(2.0, -2.0, 2.0, 2.0)
    params = SamplingParams(repeat_penalty=2.0, presence_penalty=0.5, frequency_penalty=0.25)
    sampler.adjust(row, params, tokens=[0, 1, 2, 2], prompt_len=2)
    assert row.tolist() == [1.0, -4.0, 1.0 - 0.5 - 2 * 0.25, 2.0]


def test_logit_bias_moves_the_choice_and_forbidden_tokens_never_come():
    row = row_of(3.0, 2.0, 1.0)
    sampler.adjust(row, SamplingParams(logit_bias=((2, 100.0),)), [], 0)
    assert row.argmax() == 2
    sampler.forbid(row, (2, 0))
    assert sampler.draw(row, SamplingParams(), 3) == 1
