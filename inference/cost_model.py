"""Predicts how long a call of the model takes, and learns from every call that was measured.

One kind of call costs `a + b * rows + c * reach` seconds: reading the weights, the work on each
token, and its attention, where `reach` sums the cells that the rows look at. Fitted by least
squares over the calls of late, pulled towards what was known before where they say too little.
Knows no clock: seconds are handed in.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from inference.sequence import Chunk, StepPlan, StepResult

_WINDOW = 48  # calls that count
_SCALE = (1.0, 64.0, 64.0 * 1024.0)  # a typical call: the three terms are then alike in size
TILE = 64  # tokens that flash attention takes at once on a CPU: for fewer it is twice as slow
_GUESS = (0.02, 0.02, 0.005)  # seconds of the three, before anything was measured
_PULL = 0.05  # weight of what was known before, against one call measured
_EVERY = 8  # calls between two fits, if they are short
_LONG = 0.02  # seconds: after so long a call a fit is no matter, it takes 50 microseconds
_SPIKE = 4.0  # a call this much slower than predicted tells of the box, not of the model


@dataclass(slots=True)
class CallCost:
    """Seconds of one kind of call."""

    _weights: tuple[float, ...] = _GUESS
    _calls: deque[tuple[float, float, float]] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    _seen: int = 0

    def predict(self, rows: int, reach: int) -> float:
        """Seconds of a call with `rows` tokens; 0 without any."""
        fixed, each, attention = self._weights
        return (fixed + each * rows / _SCALE[1] + attention * reach / _SCALE[2]) if rows else 0.0

    @property
    def fixed(self) -> float:
        """Seconds of a call that are there without any row."""
        return self._weights[0]

    def observe(self, rows: int, reach: int, seconds: float) -> None:
        """Learn from a call that took `seconds`."""
        if not rows or seconds <= 0:
            return
        if self._seen >= _EVERY:
            seconds = min(seconds, _SPIKE * self.predict(rows, reach))
        self._calls.append((rows / _SCALE[1], reach / _SCALE[2], seconds))
        self._seen += 1
        if seconds > _LONG or self._seen <= _EVERY or self._seen % _EVERY == 0:
            self._fit()

    def _fit(self) -> None:
        """Least squares on relative errors, so that a short call counts as much as a long one."""
        rows, reach, seconds = np.array(self._calls).T
        terms = np.stack([np.ones_like(rows), rows, reach], axis=1) / seconds[:, None]
        pull = _PULL / seconds.mean() ** 2
        matrix = terms.T @ terms + pull * np.eye(3)
        weights = np.linalg.solve(matrix, terms.sum(axis=0) + pull * np.array(self._weights))
        self._weights = tuple(np.maximum(weights, 1e-9).tolist())


class CostModel:
    """The calls of a step: decodes (with their drafts), prefill chunks, and where there is a
    draft model, its calls."""

    def __init__(self, *, draft: bool = False) -> None:
        self.decode = CallCost()
        self.prefill = CallCost()
        self.draft = CallCost() if draft else None

    def observe(self, plan: StepPlan, result: StepResult) -> None:
        """Learn from a step that was run."""
        self.decode.observe(*load(plan.decodes), result.decode_seconds)
        self.prefill.observe(*load(plan.prefills), result.prefill_seconds)
        if self.draft:
            self.draft.observe(*draft_load(plan.asked), plan.draft_seconds)

    def chunk(self, start: int, pending: int, most: int, room: float) -> int:
        """How many of `pending` prompt tokens from position `start` on, at most `most`, take at
        most `room` seconds: all, or tiles that leave another one; 0 if nothing fits."""
        tiles = range(min(most, pending - TILE) // TILE * TILE, 0, -TILE)
        sizes = chain([pending] if pending <= most else [], tiles)
        fitting = (n for n in sizes if self.prefill.predict(n, reach(start, n)) <= room)
        return next(fitting, 0)

    def least(self, start: int, pending: int, most: int, longest: float) -> int:
        """The fewest tokens that are worth a call of at most `longest` seconds: all of less than
        two tiles, or one tile; a quarter of one if even that takes longer."""
        sizes = (pending, TILE) if pending < 2 * TILE else (TILE,)
        fitting = (n for n in sizes if self.prefill.predict(n, reach(start, n)) <= longest)
        return min(most, pending, next(fitting, TILE // 4))

    def fair(self, decode: float, most: int, share: float) -> float:
        """The least seconds of prefill beside `decode` seconds in every step of which the work on
        the prompt's own tokens, at most `most` of them, is `share` of the step."""
        fixed = self.prefill.fixed
        calls = (self.prefill.predict(n, reach(0, n)) for n in range(TILE, most, TILE))
        whole = self.prefill.predict(most, reach(0, most))
        return next((t for t in calls if t - fixed >= share * (decode + t)), whole)


def reach(start: int, count: int) -> int:
    """Cells that `count` tokens from position `start` on look at, together."""
    return count * start + count * (count + 1) // 2


def load(chunks: Iterable[Chunk]) -> tuple[int, int]:
    """`(rows, reach)` of a call."""
    chunks = tuple(chunks)
    return sum(c.rows for c in chunks), sum(reach(c.start, c.rows) for c in chunks)


def draft_load(asked: Iterable[Chunk]) -> tuple[int, int]:
    """`(rows, reach)` of a call of the draft model: a guess for each chunk."""
    return load(Chunk(chunk.seq, chunk.start, 1) for chunk in asked)
