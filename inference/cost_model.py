"""Predicts how long a call of the model takes, and learns from every call that was measured.

One kind of call costs `a * passes + b * rows + c * reach` seconds: reading the weights, the work on
each token, and its attention, where `reach` sums the cells that the rows look at. Fitted by least
squares over the calls of late, pulled towards what was known before where they say too little.
Knows no clock: seconds are handed in.
"""

from collections import deque
from collections.abc import Iterable, Sequence
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
_LONG = 0.02  # seconds: after so long a call a fit, of 0.1 to 0.3 milliseconds, is no matter
_SPIKE = 4.0  # a call this much slower than predicted tells of the box, not of the model


@dataclass(slots=True)
class CallCost:
    """Seconds of one kind of call."""

    _weights: tuple[float, ...] = _GUESS
    _calls: deque[tuple[int, int, int, float]] = field(
        default_factory=lambda: deque(maxlen=_WINDOW)
    )
    _seen: int = 0
    _fresh: bool = True  # nothing was measured since the last fit that asks for another

    def predict(self, rows: int, reach: int, passes: int = 1) -> float:
        """Seconds of a call with `rows` tokens; 0 without any."""
        self._fit()
        return self._seconds(rows, reach, passes)

    @property
    def fixed(self) -> float:
        """Seconds of a pass over the weights."""
        self._fit()
        return self._weights[0]

    def observe(self, rows: int, reach: int, seconds: float, passes: int = 1) -> None:
        """Learn from a call that took `seconds`."""
        if not rows or seconds <= 0:
            return
        if self._seen >= _EVERY and seconds > _SPIKE * self._seconds(rows, reach, passes):
            seconds = min(seconds, _SPIKE * self.predict(rows, reach, passes))
        self._calls.append((passes, rows, reach, seconds))
        self._seen += 1
        if seconds > _LONG or self._seen <= _EVERY or self._seen % _EVERY == 0:
            self._fresh = False

    def _seconds(self, rows: int, reach: int, passes: int) -> float:
        terms = zip((passes, rows, reach), self._weights, _SCALE, strict=True)
        return sum(weight * term / scale for term, weight, scale in terms) if rows else 0.0

    def _fit(self) -> None:
        """Least squares on relative errors, so that a short call counts as much as a long one.
        Done when it is asked for: while all that run decode, nobody needs to know."""
        if self._fresh:
            return
        self._fresh = True
        calls = np.array(self._calls)
        seconds = calls[:, 3]
        terms = calls[:, :3] / _SCALE / seconds[:, None]
        pull = _PULL / seconds.mean() ** 2
        matrix = terms.T @ terms + pull * np.eye(3)
        weights = np.linalg.solve(matrix, terms.sum(axis=0) + pull * np.array(self._weights))
        self._weights = tuple(np.maximum(weights, 1e-9).tolist())


class CostModel:
    """The calls of a step: decodes (with their drafts), prefill chunks, and where there is a
    draft model, its calls. With the KV layout in `streams` a call may take several passes."""

    def __init__(self, *, streams: bool = False, draft: bool = False) -> None:
        self._streams = streams
        self.decode = CallCost()
        self.prefill = CallCost()
        self.draft = CallCost() if draft else None

    def observe(self, plan: StepPlan, result: StepResult) -> None:
        """Learn from a step that was run."""
        learnt = [
            (self.decode, plan.decodes, result.decode_seconds),
            (self.prefill, plan.prefills, result.prefill_seconds),
        ]
        if self.draft:
            learnt.append((self.draft, _singly(plan.asked), plan.draft_seconds))
        for cost, chunks, seconds in learnt:
            rows, cells, times = self.load(chunks)
            cost.observe(rows, cells, seconds, times)

    def load(self, chunks: Sequence[Chunk]) -> tuple[int, int, int]:
        """`(rows, reach, passes)` of a call."""
        rows, cells = sum(c.rows for c in chunks), sum(reach(c.start, c.rows) for c in chunks)
        return rows, cells, passes(chunks) if self._streams else 1

    def guessing(self, asked: Sequence[Chunk]) -> float:
        """Seconds in which the draft model makes all guesses that are asked for."""
        if not (self.draft and asked):
            return 0.0
        return max(c.asked for c in asked) * self.draft.predict(*self.load(_singly(asked)))

    def left(self, room: float, prefills: Sequence[Chunk]) -> float:
        """Seconds of `room` for one more chunk in the call of `prefills`."""
        left = room - self.prefill.predict(*self.load(prefills))
        return left + self.prefill.fixed if prefills and not self._streams else left

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


def passes(chunks: Iterable[Chunk]) -> int:
    """How often llama.cpp goes through the weights for a call in streams: each time it takes slots
    side by side, and as many tokens of each as the shortest of them has left (`split_equal` in
    llama-batch.cpp)."""
    left = sorted([chunk.seq.slot, chunk.rows] for chunk in chunks)
    count = 0
    while left:
        side_by_side = [part for n, part in enumerate(left) if part[0] == left[0][0] + n]
        taken = min(rows for _, rows in side_by_side)
        for part in side_by_side:
            part[1] -= taken
        left = [part for part in left if part[1]]
        count += 1
    return count


def _singly(asked: Iterable[Chunk]) -> tuple[Chunk, ...]:
    """What a call of the draft model computes: a token for each chunk."""
    return tuple(Chunk(chunk.seq, chunk.start, 1) for chunk in asked)
