"""An engine without a model: the next token is a hash of the tokens so far.

It checks what a real engine relies on: positions continue a slot's cells, no slot is used twice
in a step, and the cells of a slot hold exactly the tokens that the sequence believes are there.
"""

import zlib

from inference.sequence import Sampled, StepPlan

END = 0  # the token that ends a text
VOCABULARY = 97


def next_token(tokens: list[int]) -> int:
    return zlib.crc32(repr(tokens).encode()) % VOCABULARY


class FakeEngine:
    def __init__(self, slots: int) -> None:
        self.cells: list[list[int]] = [[] for _ in range(slots)]
        self.computed = 0

    def step(self, plan: StepPlan) -> list[Sampled]:
        for keep in plan.keeps:
            assert keep.length <= len(self.cells[keep.slot])
            del self.cells[keep.slot][keep.length :]
        slots = [chunk.seq.slot for chunk in plan.chunks]
        assert len(slots) == len(set(slots))
        for chunk in plan.chunks:
            cells = self.cells[chunk.seq.slot]
            assert chunk.count > 0 and chunk.start == len(cells)
            cells += chunk.seq.tokens[chunk.start : chunk.start + chunk.count]
            assert cells == chunk.seq.tokens[: len(cells)]
            self.computed += chunk.count
        return [self._sample(chunk.seq) for chunk in plan.chunks if chunk.sample]

    def _sample(self, seq) -> Sampled:
        token = next_token(seq.tokens)
        return Sampled(seq, token, b"%d " % token, ends=token == END and seq.may_end)
