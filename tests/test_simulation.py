"""Pools in virtual time, whose workers die, hang and are poisoned: nothing is lost or doubled.

A seed that fails is replayed by `python -m tests.simulation SEED`.
"""

import asyncio

import pytest

from tests.scenario import draw
from tests.simulation import simulate
from tests.virtual_time import Stuck, run

SEEDS = range(200)


@pytest.mark.parametrize("first", SEEDS[::10])
def test_every_request_gets_its_answer_once_whatever_befalls_the_workers(first):
    broken = {}
    for seed in range(first, first + 10):
        if violations := simulate(seed).violations:
            broken[seed] = violations
    assert not broken


@pytest.mark.parametrize("seed", [3, 61, 213])
def test_a_seed_is_the_same_run_each_time(seed):
    first, again = simulate(seed), simulate(seed)
    assert len(first.lines) > 50
    assert "\n".join(first.lines) == "\n".join(again.lines)


def test_the_seeds_of_the_suite_bring_all_there_is():
    """Every kind of fate, of poison and of client."""
    scenarios = [draw(seed) for seed in SEEDS]
    fates = [fate for scenario in scenarios for fate in scenario.fates]
    asks = [ask for scenario in scenarios for ask in scenario.asks]
    stages = {"start", "loading", "first decode", "intake", "plan", "step", "report", "any time"}
    assert {fate.stage for fate in fates} == stages
    assert {ask.poison.where for ask in asks if ask.poison} == {"intake", "prompt", "answer"}
    assert any(fate.garbled for fate in fates) and any(fate.refuses for fate in fates)
    assert any(ask.patience for ask in asks) and any(ask.events == 0 for ask in asks)
    assert any(scenario.closes for scenario in scenarios)


def test_time_passes_only_where_somebody_waits_for_it():
    async def day() -> float:
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time()

    assert run(day()) == 86_400


def test_who_waits_for_nothing_is_told():
    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stuck):
        run(wait())
