"""Follows the tokens of an answer and rules out those that may not come next.

A `Guide` keeps the whole of an answer to a grammar, a `CallGuide` the calls in it, if it makes any.
Either follows as far as the tokens go: after a preemption, a wrong guess or a worker's death it
just catches up. Knows how a grammar is used, not how it comes to be.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher

from inference.errors import BadRequest, InferenceError
from inference.gguf_format import printable
from inference.vocabulary import END_THINK, OPEN_CALL, OPEN_THINK, Vocabulary

# Whether an answer begins inside a think block, may open one, or does neither.
Opening = Literal["inside", "perhaps", "no"]
MOST_CALLS: Final = 32  # of one answer
Row = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Outline:
    """What is known of an answer beforehand: how it begins, after `start` tokens, and how many
    `calls` it may make."""

    opening: Opening
    start: int
    calls: int = MOST_CALLS


class Guide:
    """Follows one answer, which begins after `start` tokens; takes about `size` bytes."""

    def __init__(
        self,
        matcher: LLMatcher,
        size: int,
        vocabulary: Vocabulary,
        field: str,
        start: int,
    ) -> None:
        self.size = size
        self._matcher = matcher
        self._end_tokens = list(vocabulary.end_tokens)
        self._field = field
        self._seen = start
        self._bits = np.empty((len(vocabulary.pieces) + 31) // 32, np.int32)

    def follow(self, tokens: list[int]) -> None:
        """Catch up with `tokens`, prompt and answer."""
        if new := tokens[self._seen :]:
            self._seen = len(tokens)
            self._matcher.consume_tokens(new)

    def mask(self, row: Row, tokens: list[int], may_end: bool) -> InferenceError | None:
        """Make impossible, in a row of logits, what may not follow `tokens`; or why there is
        nothing that may. Who must not end yet does so where nothing else is left."""
        self.follow(tokens)
        if problem := self.problem():
            return problem
        allowed = np.unpackbits(self._bits.view(np.uint8), count=len(row), bitorder="little")
        if not may_end:
            ends, allowed[self._end_tokens] = allowed[self._end_tokens], 0
            if not allowed.any():
                allowed[self._end_tokens] = ends
        np.putmask(row, allowed == 0, -np.inf)
        return None

    def problem(self) -> BadRequest | None:
        """Find out what may come next; why nothing may, if so."""
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        if self._matcher.is_error():
            return refusal(self._field, reason_of(self._matcher.get_error()))
        return None

    def take(self, token: int) -> bool:
        """Go on with `token`; whether the answer is whole with it."""
        self._seen += 1
        return self._matcher.consume_token(token) and self._matcher.is_stopped()


class CallGuide:
    """Keeps the calls that an answer makes to the tools, and leaves the rest of it alone.

    `call` follows a call from its opening tag on; each call gets a copy of it. Where a call cannot
    be kept to them any more it is left alone, too.
    """

    def __init__(
        self, call: LLMatcher, size: int, vocabulary: Vocabulary, outline: Outline
    ) -> None:
        self.size = size
        self._left = outline.calls
        self._fresh = call
        self._vocabulary = vocabulary
        self._end_tokens = list(vocabulary.end_tokens)
        self._call: Guide | None = None
        self._thinking = outline.opening == "inside"
        self._may_think = outline.opening == "perhaps"
        self._seen = outline.start

    def follow(self, tokens: list[int]) -> None:
        """Catch up with `tokens`, prompt and answer."""
        for token in tokens[self._seen :]:
            self.take(token)

    def mask(self, row: Row, tokens: list[int], may_end: bool) -> InferenceError | None:
        """Make impossible, in a row of logits, what may not follow `tokens`; None."""
        self.follow(tokens)
        if self._call and self._call.mask(row, tokens, may_end):
            self._call = None
        if not (self._call or may_end):
            row[self._end_tokens] = -np.inf
        if not (self._call or self._left):
            row[self._vocabulary.tags[OPEN_CALL]] = -np.inf
        return None

    def take(self, token: int) -> bool:
        """Go on with `token`; whether the answer is whole with it, which it never is."""
        self._seen += 1
        if self._call:
            if self._call.take(token):
                self._call = None
        elif self._thinking:
            self._thinking = token != self._vocabulary.tags[END_THINK]
        elif token == self._vocabulary.tags[OPEN_CALL]:
            self._left -= 1
            self._call = Guide(self._fresh.deep_copy(), 0, self._vocabulary, "tools", self._seen)
        elif self._may_think:
            self._thinking = token == self._vocabulary.tags[OPEN_THINK]
            self._may_think = self._vocabulary.pieces[token].isspace()
        return False


def refusal(field: str, reason: str) -> BadRequest:
    return BadRequest(f"{field} cannot be used: {reason.rstrip('.')}.", field)


def reason_of(error: str) -> str:
    """The sentence in an error of llguidance, which goes on with the whole of its input."""
    lines = error.split("\n")
    if "NoExtensionBias" in error:
        return "nothing fits it"
    said = next((line[7:] for line in lines if line.startswith("error: ")), lines[0])
    if "regex parse error" in error:
        said = f"pattern: {said}"
    elif said.startswith("Pointer"):
        said = f"$ref: {said}"
    return printable(said, most=200)
