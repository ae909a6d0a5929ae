"""Log probabilities on their way out of a worker: which token stands where in the text.

A ledger follows the tokens of a prompt or of an answer in order, and keeps what was not passed on
yet. Knows no logits and no model.
"""

import codecs
from dataclasses import replace
from typing import Final

from inference.types import TokenLogprob

ROWS: Final = 16  # tokens of prompts in a step that get theirs: so many rows has speculation, too
MOST: Final = 1 << 17  # numbers asked for of one prompt; they go out in one frame

_CONTINUES: Final = frozenset(bytes([byte]) for byte in range(0x80, 0xC0)) | {b""}  # of UTF-8


class Ledger:
    """Of a text that begins at character `start`; each token comes with the `top` likeliest ones at
    its place. `count` tokens were added."""

    def __init__(self, top: int, start: int = 0) -> None:
        self.top = top
        self.count = 0
        self._length = start
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._untold: list[TokenLogprob] = []

    def add(self, piece: bytes, logprob: TokenLogprob | None) -> None:
        """The next token adds `piece` to the text; nobody is told of one without a `logprob`."""
        begun = bool(self._decoder.getstate()[0])  # a character, in the tokens before
        start = self._length + (begun and piece[:1] not in _CONTINUES)
        self._length += len(self._decoder.decode(piece))
        self.count += 1
        if logprob:
            end = self._length + bool(self._decoder.getstate()[0])
            self._untold.append(replace(logprob, start=max(0, start), end=max(0, end)))

    def take(self) -> list[TokenLogprob]:
        """What was added since the last time."""
        untold, self._untold = self._untold, []
        return untold
