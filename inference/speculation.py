"""How many guesses at the next tokens are worth verifying in a step.

Guesses come from a sequence's own past and are verified in the same call as the token before
them, so the text is the one that the sampler draws anyway. A guess costs the work on one more
row, which the cost model knows. Knows no model and no clock.
"""

from inference.cost_model import CallCost, load
from inference.sequence import Chunk, Sequence

SIZES = (3, 7, 15)  # drafts of a sequence that are considered
GAIN = 1.1  # times as fast as without, or it is not worth the risk


class Speculation:
    """Drafts for the sequences that decode, `most` in a step, where they make it faster."""

    def __init__(self, cost: CallCost, most: int) -> None:
        self._cost = cost
        self._most = most

    def chunks(self, decoding: list[Sequence]) -> tuple[Chunk, ...]:
        """One chunk for each sequence, with drafts or without."""
        plain = tuple(Chunk(seq, seq.computed, 1) for seq in decoding)
        if self._most < SIZES[0]:
            return plain
        share = min(self._most // max(1, len(decoding)), SIZES[-1])
        guesses = [
            seq.history.guess(seq.tokens, min(share, seq.spare)) if seq.spare else ()
            for seq in decoding
        ]
        if not any(guesses):
            return plain
        drafted = [
            tuple(
                Chunk(c.seq, c.start, 1, guess[:size])
                for c, guess in zip(plain, guesses, strict=True)
            )
            for size in SIZES
            if size <= share
        ]
        best = max(drafted, key=self._speed, default=plain)
        return best if self._speed(best) > GAIN * self._speed(plain) else plain

    def _speed(self, chunks: tuple[Chunk, ...]) -> float:
        """Tokens per second to be expected."""
        tokens = sum(1 + _expected(chunk.seq.history.rate, len(chunk.drafts)) for chunk in chunks)
        return tokens / self._cost.predict(*load(chunks))


def _expected(rate: float, drafts: int) -> float:
    """How many of so many drafts are right before the first that is wrong."""
    return sum(rate**n for n in range(1, drafts + 1))
