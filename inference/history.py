"""What a sequence has said so far, searched for what it may say next (prompt lookup decoding).

Where the last few tokens stood before, what followed then may follow again. Tokens are kept as
bytes, so that a search runs at the speed of C. Knows token ids only.
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

NGRAM = 3  # tokens that must have stood together before
HOPE = 0.5  # the share of guesses thought right before any was checked
STEP = 0.2  # how far a guess that was right or wrong moves that share
FADE = 0.01  # how far it comes back to HOPE in a step without any
_WIDTH = array("i").itemsize  # bytes of a token


@dataclass(slots=True)
class Rate:
    """The share of guesses that were right of late."""

    value: float = HOPE

    def checked(self, guessed: Iterable[int], said: Iterable[int]) -> None:
        """Learn from guesses up to the first that was wrong."""
        for guess, token in zip(guessed, said, strict=False):
            self.value += STEP * ((guess == token) - self.value)
            if guess != token:
                return

    def fade(self) -> None:
        """Nothing was guessed: what is not tried for a while deserves another try."""
        self.value += FADE * (HOPE - self.value)


@dataclass(slots=True)
class History:
    """Every guess is checked against what was said then, also those that nobody asked the model
    to verify."""

    rate: Rate = field(default_factory=Rate)
    _text: bytearray = field(default_factory=bytearray)
    _guess: tuple[int, ...] = ()

    def guess(self, tokens: list[int], most: int) -> tuple[int, ...]:
        """At most `most` tokens that may follow `tokens`, which grow from call to call; none
        without a precedent."""
        new = tokens[len(self._text) // _WIDTH :]
        self.rate.checked(self._guess, new)
        self._text += array("i", new).tobytes()
        start = self._find(self._text[-NGRAM * _WIDTH :]) + NGRAM
        found = tokens[start : start + most] if start >= NGRAM else []
        self._guess = tuple((found * most)[:most])  # what came around once may do so again
        return self._guess

    def _find(self, pattern: bytearray) -> int:
        """The last token at which `pattern` begins, before the one at the end; or -1."""
        end = len(self._text) - 1
        while (found := self._text.rfind(pattern, 0, end)) >= 0:
            if found % _WIDTH == 0:
                return found // _WIDTH
            end = found + len(pattern) - 1
        return -1
