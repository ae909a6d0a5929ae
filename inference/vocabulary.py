"""What grammars have to know of a model: how its tokens are spelled, and which of them are tags.

Knows no grammar, no request and no llama.cpp.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from llguidance import LLTokenizer

OPEN_THINK, END_THINK, OPEN_CALL, END_CALL = TAGS = (
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
)


@dataclass(frozen=True)
class Vocabulary:
    """What is needed of a model: the bytes of each token, which ones end a text, a tokeniser."""

    pieces: Sequence[bytes]
    end_tokens: Sequence[int]
    tokenize: Callable[[str], list[int]]

    @cached_property
    def tags(self) -> dict[str, int]:
        """Tags that are tokens of their own. Such a token never counts as the text of a tag, or an
        argument might end its call."""
        found = {tag: self.tokenize(tag) for tag in TAGS}
        return {tag: ids[0] for tag, ids in found.items() if len(ids) == 1}

    @cached_property
    def tokenizer(self) -> LLTokenizer:
        """Takes 0.4 seconds where there are 151,936 tokens; only who needs it waits for it."""
        return LLTokenizer(_Tokens(self), len(self.pieces), list(self.end_tokens))  # type: ignore[arg-type]


class _Tokens:
    """A vocabulary as llguidance reads it."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokens = [*vocabulary.pieces]
        for token in vocabulary.end_tokens:
            self.tokens[token] = b""  # it ends a text, whatever it looks like
        self.eos_token_id = vocabulary.end_tokens[0]
        self.special_token_ids = [*vocabulary.tags.values()]
        self._tokenize = vocabulary.tokenize

    def __call__(self, text: str) -> list[int]:
        return self._tokenize(text)
