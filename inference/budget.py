"""How long an answer may think, and the words that end its thoughts when that is spent.

A state that follows the tokens of an answer and nothing else: it is the same after a crash, after a
preemption and with speculation. Knows no text: which tokens open and close a think block, and which
ones make a model close it, it is told.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

_LONGEST_CHARACTER = 8  # tokens; a byte each makes four


@dataclass(frozen=True, slots=True)
class Tags:
    """The tokens of `<think>` and `</think>`; `blank` are those of white space, which may come
    before a think block; `last_words`, each with its bytes, close it."""

    open: int
    close: int
    blank: frozenset[int]
    last_words: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Block:
    """Where an answer thinks, if it does: between `tags`, from its start if it is `inside`."""

    tags: Tags
    inside: bool

    def length(self, answer: Iterable[int]) -> int:
        """How many tokens of an answer are its thoughts, the tags included."""
        count, inside = 0, self.inside
        for count, token in enumerate(answer, 1):
            if inside and token == self.tags.close:
                return count
            inside = inside or token == self.tags.open
            if not inside and token not in self.tags.blank:
                return 0
        return count if inside else 0


@dataclass(frozen=True, slots=True)
class Budget:
    """`left` more tokens of thoughts, in a think block that is open if `inside`."""

    tags: Tags
    left: int
    inside: bool

    def after(self, token: int) -> "Budget | None":
        """The state after one more token; None once there is nothing to bound any more."""
        if self.inside:
            return None if token == self.tags.close else replace(self, left=self.left - 1)
        if token == self.tags.open:
            return replace(self, inside=True)
        return self if token in self.tags.blank else None

    @property
    def overdrawn(self) -> bool:
        """Whether no character takes that long."""
        return self.left <= -_LONGEST_CHARACTER

    @property
    def room(self) -> int:
        """How many tokens may be guessed after the next one: the last words follow no guess."""
        return self.left - self.inside

    @property
    def forced(self) -> tuple[tuple[int, bytes], ...]:
        """What comes next, whatever the model would say."""
        return self.tags.last_words if self.inside and self.left <= 0 else ()
