"""What a sequence has said so far, searched for what it may say next (prompt lookup decoding).

Where the last few tokens stood before, what followed then may follow again. Tokens are kept as
bytes, so that a search runs at the speed of C. Knows token ids only.
"""

from dataclasses import dataclass, field

NGRAM = 3  # tokens that must have stood together before
HOPE = 0.7  # the share of guesses thought right before any was tried
LONGEST_PAUSE = 64  # tokens between two attempts after many that failed
_WIDTH = 4  # bytes of a token


@dataclass(slots=True)
class History:
    """`rate` is the share of guesses that were right of late."""

    rate: float = HOPE
    _text: bytearray = field(default_factory=bytearray)
    _pause: int = 0
    _again: int = 0  # length of the sequence from which on it is worth to guess again

    def guess(self, tokens: list[int], most: int) -> tuple[int, ...]:
        """At most `most` tokens that may follow `tokens`; none without a precedent."""
        if len(tokens) < max(self._again, NGRAM + 1) or not most:
            return ()
        for token in tokens[len(self._text) // _WIDTH :]:
            self._text += token.to_bytes(_WIDTH, "little")
        start = self._find(self._text[-NGRAM * _WIDTH :]) + NGRAM
        if start < NGRAM:
            return ()
        guessed = tokens[start : start + most]
        return tuple((guessed * most)[:most])  # what came around once may come around again

    def learn(self, length: int, drafted: int, accepted: int) -> None:
        """Of `drafted` tokens `accepted` were right; the text is now `length` tokens long."""
        self.rate += 0.3 * (accepted / drafted - self.rate)
        self._pause = 0 if accepted else min(LONGEST_PAUSE, 2 * self._pause + 1)
        self._again = length + self._pause

    def _find(self, pattern: bytearray) -> int:
        """The last token at which `pattern` begins, before the one at the end; or -1."""
        end = len(self._text) - 1
        while (found := self._text.rfind(pattern, 0, end)) >= 0:
            if found % _WIDTH == 0:
                return found // _WIDTH
            end = found + len(pattern) - 1
        return -1
