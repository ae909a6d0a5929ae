"""How many guesses at the next tokens are worth verifying in a step, and whose.

Guesses come from a sequence's own past or from a draft model, and are verified in the same call
as the token before them, so the text is the one that the sampler draws anyway. A guess costs the
work on one more row, and the draft model's a call of it, which the cost model knows. Knows no
model and no clock.
"""

from dataclasses import replace

from inference.cost_model import CostModel
from inference.sequence import Chunk, Sequence

SIZES = (3, 7, 15)  # drafts of a sequence that are considered
GAIN = 1.1  # times as fast as without, or it is not worth the risk


class Speculation:
    """Drafts for the sequences that decode, `most` in a step, where they make it faster."""

    def __init__(self, cost: CostModel, most: int) -> None:
        self._cost = cost
        self._most = most

    def chunks(self, decoding: list[Sequence]) -> tuple[Chunk, ...]:
        """One chunk for each sequence, with drafts or without."""
        plain = tuple(Chunk(seq, seq.computed, 1) for seq in decoding)
        share = min(self._most // max(1, len(decoding)), SIZES[-1])
        if not decoding or share < SIZES[0]:
            return plain
        guesses = [
            seq.history.guess(seq.tokens, min(share, seq.spare)) if seq.spare else ()
            for seq in decoding
        ]
        if not (self._cost.draft or any(guesses)):
            return plain
        drafted = [
            tuple(self._drafted(c, guess, size) for c, guess in zip(plain, guesses, strict=True))
            for size in SIZES
            if size <= share
        ]
        best = max(drafted, key=self._speed, default=plain)
        chosen = best if self._speed(best) > GAIN * self._speed(plain) else plain
        for chunk in chosen:
            if not chunk.asked:
                chunk.seq.trust.fade()
        return chosen

    def _drafted(self, chunk: Chunk, guess: tuple[int, ...], size: int) -> Chunk:
        """With guesses of whoever was right more often."""
        seq = chunk.seq
        if self._cost.draft and not (guess and seq.history.rate.value >= seq.trust.value):
            return replace(chunk, asked=min(size, seq.spare))
        return replace(chunk, drafts=guess[:size])

    def _speed(self, chunks: tuple[Chunk, ...]) -> float:
        """Tokens per second to be expected."""
        seconds = self._cost.decode.predict(*self._cost.load(chunks))
        seconds += self._cost.guessing([chunk for chunk in chunks if chunk.asked])
        return sum(1 + _expected(chunk) for chunk in chunks) / seconds


def _expected(chunk: Chunk) -> float:
    """How many of its drafts are right before the first that is wrong."""
    rate = (chunk.seq.trust if chunk.asked else chunk.seq.history.rate).value
    return sum(rate**n for n in range(1, chunk.rows))
