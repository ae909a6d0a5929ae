"""Tuning: which settings are measured and chosen, and the process that measures."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from inference.testbed import Testbed, TookTooLong, TrialFailed
from inference.trial import Times, Trial
from inference.tune import CannotTune, Search, thread_counts
from inference.wire import EngineConfig

DEFAULTS = EngineConfig(name="m", path="m.gguf", context=32_768, slots=8, threads=4, unified=True)
EVEN = Times(prompt=500, decode=100, separate=300, joint=400)


def times(factor: float, base: Times = EVEN) -> Times:
    return Times(
        base.prompt * factor, base.decode * factor, base.separate * factor, base.joint * factor
    )


@dataclass
class Bench:
    """Measures by a rule instead of a model; every trial takes `each` seconds of its own clock."""

    rule: Callable[[EngineConfig], Times] = lambda _: EVEN
    each: float = 1.0
    now: float = 0.0
    trials: list[EngineConfig] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def measure(self, trial: Trial, seconds: float | None) -> Times:
        if seconds is not None:
            self.now += self.each
            self.trials.append(replace(trial.config, context=DEFAULTS.context))
            self.seconds.append(seconds)
        return self.rule(trial.config)

    def search(
        self,
        budget: float = 1000,
        suits: Callable[[EngineConfig], bool] = lambda _: True,
        threads: tuple[int, ...] = (3, 2),
        defaults: EngineConfig = DEFAULTS,
    ) -> Search:
        search = Search(defaults, self.measure, suits, threads, clock=lambda: self.now)
        search.run(budget, lambda *_: None)
        return search


def test_every_kind_of_setting_is_measured_once_where_none_is_better():
    bench = Bench(lambda c: EVEN if replace(c, context=32_768) == DEFAULTS else times(2))
    search = bench.search()
    kv = [(c.unified, c.flash_attention) for c in bench.trials[:4]]
    assert kv == [(True, None), (True, False), (False, None), (False, False)]
    assert [c.threads for c in bench.trials[4:6]] == [3, 2]
    assert [c.batch for c in bench.trials[6:10]] == [128, 256, 1024, 2048]
    assert bench.trials[10:] == [replace(DEFAULTS, kv_type="q8_0")]
    assert search.best is search.base
    assert search.complete


def test_settings_are_varied_around_the_best_so_far():
    def rule(config: EngineConfig) -> Times:
        gains = (config.flash_attention is False, config.threads == 3, config.batch == 256)
        return times(0.8 ** sum(gains))

    best = Bench(rule).search().best.config
    assert best == replace(DEFAULTS, flash_attention=False, threads=3, batch=256)


@pytest.mark.parametrize(("joint", "better"), [(400, False), (280, False), (150, True)])
def test_calls_are_joint_where_that_is_clearly_faster(joint, better):
    search = Bench(lambda _: replace(EVEN, joint=joint)).search()
    assert search.best is search.base
    assert search.best.joint is better


def test_a_small_gain_is_taken_for_noise():
    search = Bench(lambda c: times(0.92 if c.batch == 256 else 1)).search()
    assert search.best is search.base


@pytest.mark.parametrize(("gain", "layout"), [(0.85, True), (0.75, False)])
def test_the_other_layout_must_be_worth_what_it_takes_from_a_request(gain, layout):
    search = Bench(lambda c: times(1 if c.unified else gain)).search()
    assert search.best.config.unified is layout


@pytest.mark.parametrize(("gain", "threads"), [(0.85, 4), (0.75, 3)])
def test_other_threads_must_be_worth_more_than_a_neighbour_makes_of_them(gain, threads):
    search = Bench(lambda c: times(gain if c.threads == 3 else 1)).search()
    assert search.best.config.threads == threads


def test_another_kv_type_is_measured_and_never_chosen():
    search = Bench(lambda c: times(0.1 if c.kv_type == "q8_0" else 1)).search()
    assert [row.load < search.base.load for row in search.rows.values()].count(True) == 1
    assert search.best is search.base


def test_what_once_looked_fast_or_slow_is_measured_again():
    """A neighbour slows the first trial, which is that of the defaults."""
    bench = Bench()
    bench.rule = lambda _: times(3 if len(bench.trials) == 1 else 1)
    search = bench.search()
    assert bench.trials.count(DEFAULTS) > 1
    assert search.best is search.base


@pytest.mark.parametrize(("worse", "threads"), [(1.0, 3), (2.0, 4)])
def test_a_gain_smaller_than_what_the_same_settings_differ_by_is_noise(worse, threads):
    """Measured twice, the defaults differ by that factor; three threads take 70 % of the time."""
    bench = Bench()

    def rule(config: EngineConfig) -> Times:
        if config.threads == 3:
            return times(0.7)
        return times(worse if bench.trials.count(DEFAULTS) > 1 else 1)

    bench.rule = rule
    assert bench.search().best.config.threads == threads


def test_settings_that_fail_lose_and_the_search_goes_on():
    def rule(config: EngineConfig) -> Times:
        if config.flash_attention is False:
            raise TrialFailed("SIGILL")
        return times(0.5 if config.threads == 3 else 1)

    search = Bench(rule).search()
    assert search.best.config == replace(DEFAULTS, threads=3)
    assert search.complete
    failed = [row for row in search.rows.values() if row.failure == "SIGILL"]
    assert len(failed) == 2


@pytest.mark.parametrize(("error", "kept"), [(TookTooLong, True), (TrialFailed, False)])
def test_who_crashes_the_second_time_loses_and_who_is_only_late_does_not(error, kept):
    bench = Bench()

    def rule(config: EngineConfig) -> Times:
        if config.batch == 256 and [c.batch for c in bench.trials].count(256) > 1:
            raise error("reason")
        return times(0.5 if config.batch == 256 else 1)

    bench.rule = rule
    assert (bench.search().best.config.batch == 256) is kept


def test_defaults_that_cannot_be_measured_end_the_search_with_the_reason():
    def rule(config: EngineConfig) -> Times:
        raise TookTooLong("it took too long")

    with pytest.raises(CannotTune, match=r"it took too long\. Is --budget too small"):
        Bench(rule).search()


@pytest.mark.parametrize("budget", [10, 45, 75])
def test_the_budget_is_kept_and_the_winner_measured_twice(budget):
    bench = Bench(lambda c: times(0.5 if c.flash_attention is False else 1), each=10)
    search = bench.search(budget)
    assert bench.now <= budget
    assert all(left >= bench.each for left in bench.seconds)
    assert not search.complete
    if budget > 10:
        assert search.best.config.flash_attention is False
        assert bench.trials.count(search.best.config) > 1
        assert bench.trials.count(DEFAULTS) > 1


def test_what_does_not_fit_is_not_tried():
    bench = Bench()
    search = bench.search(suits=lambda config: config.flash_attention is None)
    assert all(config.flash_attention is None for config in bench.trials)
    assert search.rows[replace(DEFAULTS, flash_attention=False)].failure == "does not fit"


def test_a_call_that_nobody_could_interrupt_for_long_is_not_tried():
    bench = Bench(lambda _: replace(EVEN, prompt=6000))
    search = bench.search()
    assert max(config.batch for config in bench.trials) == DEFAULTS.batch
    assert search.rows[replace(DEFAULTS, batch=1024)].failure.startswith("calls of ")


def test_batches_that_prompts_cannot_tell_apart_are_not_tried():
    """Prompts of 512 tokens are one call of 512 or of 1,024, and two of 256."""
    bench = Bench(lambda _: replace(EVEN, prompt=1))
    bench.search(defaults=replace(DEFAULTS, context=8 * 1024))
    assert {config.batch for config in bench.trials} == {512, 128, 256}
    bench = Bench(lambda _: replace(EVEN, prompt=1))
    bench.search(defaults=replace(DEFAULTS, context=8 * 512))
    assert {config.batch for config in bench.trials} == {512, 128}


def test_prompts_are_as_long_as_budget_and_context_allow():
    quick = Bench(lambda _: replace(EVEN, prompt=1))
    assert quick.search().prompt == 2048
    assert quick.search(defaults=replace(DEFAULTS, context=8 * 1024)).prompt == 512
    assert quick.search(defaults=replace(DEFAULTS, context=8 * 256)).prompt == 128
    assert Bench(lambda _: replace(EVEN, prompt=1000)).search(budget=50).prompt == 512


def test_thread_counts_are_never_zero_nor_the_default():
    for cores in (1, 2, 6):
        assert not {0, cores} & set(thread_counts(cores))


# The child process.

DIES = """
import os, signal, sys
for line in sys.stdin:
    if '"unified":false' in line:
        os.kill(os.getpid(), signal.SIGILL)
    print('{"type":"Times","prompt":5,"decode":1,"separate":3,"joint":4}', flush=True)
"""


def test_a_crash_loses_one_trial_only():
    with Testbed(command=[sys.executable, "-c", DIES]) as testbed:
        search = Search(DEFAULTS, testbed.measure, lambda _: True)
        search.run(60, lambda *_: None)
    failures = [row.failure for row in search.rows.values() if not row.config.unified]
    assert failures == ["the process that measured it ended with SIGILL"] * 2
    assert search.complete and not any(
        row.failure for row in search.rows.values() if row.config.unified
    )


def test_a_trial_that_hangs_is_ended():
    silent = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with Testbed(command=silent) as testbed, pytest.raises(TrialFailed, match="too long"):
        testbed.measure(Trial(DEFAULTS, 128), 0.01)


def test_a_model_that_cannot_be_loaded_says_why():
    with Testbed() as testbed, pytest.raises(TrialFailed, match=r"cannot load m\.gguf"):
        testbed.measure(Trial(DEFAULTS, 128), None)
