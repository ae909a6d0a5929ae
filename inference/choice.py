"""Follows one choice of a request: what was text to the worker becomes events.

Knows no request beyond its own, and neither queue nor worker.
"""

import uuid
from collections.abc import Iterator

from inference.parser import Arguments, Call, Piece, Reasoning, StreamParser, Text
from inference.types import (
    ArgumentsDelta,
    Finished,
    GenerationEvent,
    GenerationRequest,
    ReasoningDelta,
    TextDelta,
    Timings,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from inference.wire import Accepted, End


class Choice:
    """Follows one choice of a request: its channels, its tool calls, its end."""

    def __init__(self, index: int, request: GenerationRequest, accepted: Accepted) -> None:
        self._index = index
        self._prompt_tokens = accepted.prompt_tokens
        self._calls = 0
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

    def text(self, text: str) -> Iterator[GenerationEvent]:
        return self._events(self._parser.feed(text) if self._parser else [Text(text)])

    def end(self, end: End) -> Iterator[GenerationEvent]:
        if end.text:
            yield from self.text(end.text)
        if self._parser:
            yield from self._events(self._parser.finish())
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
                case Text(text):
                    yield TextDelta(self._index, text)
                case Reasoning(text):
                    yield ReasoningDelta(self._index, text)
                case Call(name, arguments):
                    call = ToolCall(f"call_{uuid.uuid4().hex[:24]}", name, arguments)
                    yield ToolCallDelta(self._index, self._calls, call)
                    self._calls += 1
                case Arguments(text):
                    yield ArgumentsDelta(self._index, self._calls - 1, text)
