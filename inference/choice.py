"""Follows one choice of a request: what was text to the worker becomes events.

Knows no request beyond its own, and neither queue nor worker.
"""

import math
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from typing import Any

from inference.journal import Answer
from inference.parser import Arguments, Call, Piece, Reasoning, StreamParser, Text
from inference.types import (
    ArgumentsDelta,
    Finished,
    GenerationEvent,
    GenerationRequest,
    ReasoningDelta,
    TextDelta,
    Timings,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from inference.wire import Accepted, Delta, End


class Choice:
    """Follows one choice of a request: its channels, its tool calls, its end.

    Of a chat, tokens are listed that have a part in its text, and not those of thoughts, calls and
    tags; of a prompt that is continued all of them, but for those that a stop string cut off.
    """

    def __init__(self, index: int, request: GenerationRequest, accepted: Accepted) -> None:
        self._index = index
        self._prompt_tokens = accepted.prompt_tokens
        self._calls = 0
        self._length = 0  # of the text so far, in characters
        self._untold: deque[TokenLogprob] = deque()
        self._parser = (
            StreamParser(
                thinking=accepted.thinking,
                tools=bool(request.tools),
                guided=accepted.guided,
                begun=request.messages[-1].content if request.continued else "",
                either=any(asked.kind != "calls" for asked in request.constraints),
            )
            if request.messages
            else None
        )

    def text(self, text: str, logprobs: Iterable[TokenLogprob] = ()) -> Iterator[GenerationEvent]:
        self._untold += logprobs
        return self._events(self._parser.feed(text)) if self._parser else self._as_it_is(text)

    def end(self, end: End) -> Iterator[GenerationEvent]:
        self._untold += end.logprobs
        if self._parser:
            yield from self._events(self._parser.feed(end.text) + self._parser.finish())
        else:
            yield from self._as_it_is(end.text, whole=not end.stop)
        yield Finished(
            self._index,
            "tool_calls" if self._calls and end.reason == "stop" else end.reason,
            Usage(
                self._prompt_tokens,
                end.completion_tokens,
                end.cached_tokens,
                end.reasoning_tokens,
            ),
            Timings(end.queued, end.first_token, end.total),
            end.stop,
        )

    def _events(self, pieces: list[Piece]) -> Iterator[GenerationEvent]:
        for piece in pieces:
            match piece:
                case Text(text, start):
                    yield TextDelta(self._index, text, self._listed(start, start + len(text)))
                case Reasoning(text, start):
                    self._forget(start + len(text))
                    yield ReasoningDelta(self._index, text)
                case Call(name, arguments):
                    call = ToolCall(f"call_{uuid.uuid4().hex[:24]}", name, arguments)
                    yield ToolCallDelta(self._index, self._calls, call)
                    self._calls += 1
                case Arguments(text):
                    yield ArgumentsDelta(self._index, self._calls - 1, text)

    def _as_it_is(self, text: str, *, whole: bool = False) -> Iterator[GenerationEvent]:
        """Of a `whole` text the token that ended it is listed, too."""
        self._length += len(text)
        listed = tuple(self._taken(math.inf if whole else self._length))
        if text or listed:
            yield TextDelta(self._index, text, listed)

    def _forget(self, end: int) -> None:
        """Tokens of nothing but the text up to `end` are listed nowhere."""
        while self._untold and self._untold[0].end <= end:
            self._untold.popleft()

    def _listed(self, start: int, end: int) -> tuple[TokenLogprob, ...]:
        """The tokens with a part in the text from `start` to `end`, but those listed before."""
        return tuple(one for one in self._taken(end) if one.end > max(start, one.start))

    def _taken(self, end: float) -> Iterator[TokenLogprob]:
        while self._untold and self._untold[0].start < end:
            yield self._untold.popleft()


def joined(answers: Sequence[Answer]) -> Iterator[Answer]:
    """Neighbouring texts of a choice as one: a slow reader gets fewer events."""
    for index, run in groupby(answers, lambda one: one.index if isinstance(one, Delta) else None):
        if index is None:
            yield from run
        else:
            yield _one([*run])


def _one(run: Sequence[Any]) -> Delta:
    """Texts of a choice as one of them."""
    first: Delta = run[0]
    text = "".join(one.text for one in run)
    logprobs = [*chain(*(one.logprobs for one in run))]
    return Delta(first.id, first.index, text, logprobs=logprobs)
