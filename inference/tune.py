"""Finds the fastest settings for a model on this machine by measuring them, within a time budget.

One setting after the other is varied around the best so far, those that matter most first. What
would need more memory than is free, or a `llama_decode` call that takes too long, is not tried.
The type of the KV cache touches the answers: the other type is measured for the record and never
chosen. Knows neither llama.cpp nor how a trial is run.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import ClassVar

from msgspec.structs import astuple, replace

from inference.deployment import Deployment, fits
from inference.errors import InferenceError
from inference.gguf_header import KV_TYPES
from inference.testbed import Testbed, TookTooLong, TrialFailed
from inference.trial import CHUNK, DECODES, MIXED, Times, Trial
from inference.tuned import Choice, Result, Subject, describe, remember
from inference.wire import EngineConfig

Measure = Callable[[Trial, float | None], Times]
"""Runs a trial within so many seconds. Raises TrialFailed."""
Watch = Callable[[str, float], None]
"""Called before each trial: what is measured, and how many seconds are left."""

_BATCHES = (128, 256, 512, 1024, 2048)
_LONGEST_CALL = 1.5  # seconds: everybody waits for the end of a call, also whoever hangs up
_GAIN = 1.1  # times as fast must be what is chosen: less may be noise
_DEAR = 1.1  # times more, what has a price that the load does not show
_CLOSE = 1.25  # times the best: noise alone can be that much
_ROUNDS = 2  # in which what is close is measured again
_BUSY = 0.1  # of the machine's CPU time: then it says so
_RESERVE = 2  # trials that time is kept for
_PROBE = 128  # tokens of a first prompt, which tells how long the others can be
_PROMPTS = (2048, 1024, 512, 256)
_PROMPT_SHARE = 12  # a prompt may take this part of the budget


class CannotTune(InferenceError):
    code = "cannot_tune"


@dataclass(slots=True)
class TuningRow:
    """Settings, and their times or why there are none."""

    config: EngineConfig
    times: Times | None = None
    failure: str = ""
    seconds: float = 0.0  # that it took to measure them
    noise: float = 1.0  # the largest ratio between two measurements

    def add(self, times: Times) -> None:
        """Another measurement."""
        if self.times:
            before, now = (t.load(self.config.slots, joint=False) for t in (self.times, times))
            self.noise = max(self.noise, before / now, now / before)
        self.times = self.times.least(times) if self.times else times

    @property
    def joint(self) -> bool:
        """Whether decodes and prompt chunks had better share a call."""
        return self._load(joint=True) * max(_GAIN, self.noise) < self.separate

    @property
    def separate(self) -> float:
        """Milliseconds of the load with separate calls."""
        return self._load(joint=False)

    @property
    def load(self) -> float:
        """Milliseconds of the load with the better kind of calls."""
        return self._load(joint=self.joint)

    def _load(self, *, joint: bool) -> float:
        return self.times.load(self.config.slots, joint=joint) if self.times else float("inf")


class Search:
    """Which settings are measured, in which order, and which are the best.

    `defaults` are measured first; `suits` says whether settings suit the memory plan; `threads`
    are the numbers of threads to try, and `layouts` whether to try a unified KV cache.
    """

    def __init__(
        self,
        defaults: EngineConfig,
        measure: Measure,
        suits: Callable[[EngineConfig], bool],
        threads: tuple[int, ...] = (),
        layouts: tuple[bool, ...] = (False, True),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._defaults = defaults
        self._measure = measure
        self._suits = suits
        self._threads = threads
        self._layouts = sorted(layouts, key=lambda unified: unified != defaults.unified)
        self._clock = clock
        self._end = 0.0
        self.rows: dict[EngineConfig, TuningRow] = {}
        self.prompt = _PROBE
        self.complete = False

    @property
    def base(self) -> TuningRow:
        return self.rows[self._defaults]

    @property
    def best(self) -> TuningRow:
        """The fastest that changes no answers, if it is worth a change."""
        fastest = min(self._eligible(), key=self._cost)
        gain = max(_GAIN, fastest.noise, self.base.noise)
        return fastest if self._cost(fastest) * gain < self.base.load else self.base

    def _cost(self, row: TuningRow) -> float:
        """Its load. The other KV layout changes what a request can use, and another number of
        threads may suit but the neighbours of the moment."""
        config, kept = row.config, self._defaults
        dear = (config.unified, config.threads) != (kept.unified, kept.threads)
        return row.load * (_DEAR if dear else 1)

    def _eligible(self) -> list[TuningRow]:
        kept = self._defaults.kv_type
        return [row for row in self.rows.values() if row.config.kv_type == kept]

    def run(self, budget: float, watch: Watch) -> None:
        """Measure for `budget` seconds at most, once the model is loaded.

        A busy neighbour can make anything look slow. So time is kept for a second look at the
        winner and the defaults, and what is left goes to all that may still be the best. Raises
        CannotTune if not even the defaults can be measured.
        """
        self._size_prompts(budget)
        self._end = self._clock() + budget
        new = (config for config in self._variations() if config not in self.rows)
        self.complete = all(self._visit(TuningRow(config), watch) for config in new)
        again = (row for _ in range(_ROUNDS) for row in self._contenders())
        for row in again:
            if not self._visit(row, watch):
                return

    def _size_prompts(self, budget: float) -> None:
        """Long prompts show more of what attention costs; how long, a first short one tells."""
        slots, context = self._defaults.slots, self._defaults.context
        try:
            took = self._measure(self._trial(self._defaults), None).prompt
        except TrialFailed as error:
            raise _no_defaults(error) from error
        for length in _PROMPTS:
            seconds = took / 1000 * length / _PROBE
            if 2 * length <= context // slots and seconds * _PROMPT_SHARE <= budget:
                self.prompt = length
                return

    def _variations(self) -> Iterator[EngineConfig]:
        yield self._defaults
        for unified, flash in product(self._layouts, (None, False)):
            yield replace(self._defaults, unified=unified, flash_attention=flash)
        for threads in self._threads:
            yield replace(self.best.config, threads=threads)
        for batch in _BATCHES:
            yield replace(self.best.config, batch=batch)
        for kv_type in KV_TYPES:
            if kv_type != self._defaults.kv_type:
                yield replace(self.best.config, kv_type=kv_type, flash_attention=None)

    def _contenders(self) -> list[TuningRow]:
        """What may be the best, and the defaults; nothing if those are alone."""
        best, most = self.best, _CLOSE * self._cost(self.best)
        close = [row for row in self._eligible() if self._cost(row) < most or row is self.base]
        close.sort(key=lambda row: (row is not best, row is not self.base, self._cost(row)))
        return close if len(close) > 1 else []

    def _visit(self, row: TuningRow, watch: Watch) -> bool:
        """Measure these settings unless something speaks against them; False if it is too late."""
        row.failure = self._objection(row.config)
        if not row.failure:
            left = self._end - self._clock()
            if self.rows and left < (row.seconds or (1 + _RESERVE) * self.base.seconds):
                return False
            threads, layout, flash, batch = describe(row.config)
            watch(f"threads {threads}, {layout}, flash {flash}, batch {batch}", left)
            self._try(row, left)
        self.rows[row.config] = row
        return True

    def _objection(self, config: EngineConfig) -> str:
        """Why these settings are not tried, if they are not."""
        if config == self._defaults:
            return ""
        if config.flash_attention is False and config.kv_type != "f16":
            return f"{config.kv_type} needs flash"
        if not self._suits(config):
            return "does not fit"
        if config.batch < config.slots:
            return "fewer than slots"
        if config.batch != self._defaults.batch:
            return self._objection_to_batch(config.batch)
        return ""

    def _objection_to_batch(self, batch: int) -> str:
        assert self.best.times
        default = self._defaults.batch
        seconds = self.best.times.prompt / 1000 * batch / self.prompt
        if batch > default and seconds > _LONGEST_CALL:
            return f"calls of {seconds:.1f} s"
        told = batch < self.prompt or default < batch == self.prompt
        return "" if told else "prompts too short"

    def _try(self, row: TuningRow, left: float) -> None:
        begun = self._clock()
        try:
            times = self._measure(self._trial(row.config), left)
        except TrialFailed as error:
            if not self.rows:
                raise _no_defaults(error) from error
            crashed = not isinstance(error, TookTooLong)
            if row.times is None or (crashed and row is not self.base):
                row.times, row.failure = None, str(error)
        else:
            row.add(times)
        row.seconds = self._clock() - begun

    def _trial(self, config: EngineConfig) -> Trial:
        """Of a smaller context, which is opened faster and attended to no differently."""
        room = min(config.context, config.slots * 2 * self.prompt)
        return Trial(replace(config, context=room), self.prompt)


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was measured, and what is to be made of it."""

    columns: ClassVar = (
        *("threads", "KV cache", "flash", "batch"),
        *("prompt", "decode", "mixed", "joint", "load", ""),
    )

    subject: Subject
    rows: tuple[TuningRow, ...]
    base: TuningRow
    best: TuningRow
    prompt: int
    complete: bool
    neighbours: float  # the share of the machine's CPU time that went to other programs

    @property
    def legend(self) -> str:
        """What the figures under `columns` are."""
        slots = self.subject.slots
        return (
            f"Milliseconds: a prompt of {self.prompt} tokens; a step that decodes in {slots} slots;"
            f" one with {CHUNK} tokens of a prompt in a call of their own (mixed) or in the same"
            f" (joint). Load, in seconds: {slots} prompts, {DECODES} steps that decode and {MIXED}"
            " with a chunk."
        )

    def cells(self, row: TuningRow) -> tuple[str, ...]:
        """A row under `columns`."""
        threads, layout, flash, batch = describe(row.config)
        settings = (threads, f"{layout} {row.config.kv_type}", flash, batch)
        if row.times is None:
            return (*settings, *[""] * 5, row.failure)
        figures = (*(f"{ms:,.1f}" for ms in astuple(row.times)), f"{row.load / 1000:,.2f}")
        return (*settings, *figures, self._mark(row))

    def _mark(self, row: TuningRow) -> str:
        if row.config.kv_type != self.subject.kv_type:
            return "changes answers"
        marks = {"best": row is self.best, "default": row is self.base}
        return ", ".join(mark for mark, holds in marks.items() if holds)

    @property
    def result(self) -> Result:
        config, joint = self.best.config, self.best.joint
        choice = Choice(
            threads=config.threads,
            batch=config.batch,
            flash_attention=config.flash_attention,
            unified=config.unified,
            joint=joint,
        )
        gain = self.base.separate / self.best.load  # separate calls are the default
        return Result(subject=self.subject, choice=choice, gain=gain)

    @property
    def verdict(self) -> str:
        verdict = f"Best: {self.result}."
        if not self.complete:
            verdict += " Time ran out before all was measured; see --budget."
        if self.neighbours > _BUSY:
            verdict += (
                f" Other programs took {self.neighbours:.0%} of the CPU meanwhile; "
                "measure again when they rest."
            )
        return verdict

    def remember(self) -> Path:
        """Keep the result for `prepare`; the file. Raises NotStored."""
        return remember(self.result)


def tune(deployment: Deployment, budget: float, watch: Watch) -> Tuning:
    """Measure for about `budget` seconds how the model is served fastest.

    Raises CannotTune where the model cannot be loaded or the budget is too small.
    """
    engine = deployment.engine
    if engine.pooling:
        raise CannotTune(f"{engine.name} is an embedding model: there is nothing to tune.")
    subject = deployment.subject
    with Testbed(engine.gpu) as testbed:
        search = Search(
            engine,
            testbed.measure,
            partial(fits, deployment),
            threads=() if subject.threads else thread_counts(engine.threads),
            layouts=(engine.unified,) if subject.layout else (False, True),
        )
        search.run(budget, watch)
    return Tuning(
        subject,
        tuple(search.rows.values()),
        search.base,
        search.best,
        search.prompt,
        search.complete,
        testbed.neighbours,
    )


def _no_defaults(reason: TrialFailed) -> CannotTune:
    return CannotTune(f"The default settings cannot be measured: {reason}. Is --budget too small?")


def thread_counts(cores: int) -> tuple[int, ...]:
    """Half of the physical cores, all but the one that the server itself needs, and all logical
    ones."""
    counts = {cores // 2, cores - 1, len(os.sched_getaffinity(0))} - {0, cores}
    return tuple(sorted(counts, reverse=True))
