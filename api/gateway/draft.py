"""An answer while it is made: what its events have told so far, as the message that is stored."""

from dataclasses import dataclass, field
from time import monotonic
from typing import Final

import msgspec

from api.store.records import Call, Message, State, Usage
from inference import (
    ArgumentsDelta,
    Finished,
    GenerationEvent,
    InferenceError,
    NotReady,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    WorkerLost,
)

_OURS: Final = (NotReady, WorkerLost)  # faults of the server's, which cut an answer


@dataclass(slots=True)
class Draft:
    """An answer that was `asked` for just now."""

    asked: Message
    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    pieces: int = 0
    thinking_since: float | None = None
    thought: float | None = None
    end: Finished | None = None

    def add(self, event: GenerationEvent) -> None:
        match event:
            case ReasoningDelta(_, text):
                self.reasoning.append(text)
                self._think()
            case TextDelta(_, text):
                self.content.append(text)
                self._stop_thinking()
            case ToolCallDelta(_, _, call):
                self.calls.append(call)
                self._stop_thinking()
            case ArgumentsDelta(_, position, text):
                call = self.calls[position]
                self.calls[position] = ToolCall(call.id, call.name, call.arguments + text)
            case Finished():
                self.end = event
                self._stop_thinking()
                return
        self.pieces += 1

    def message(self, state: State, error: InferenceError | None = None) -> Message:
        """The answer as it is now."""
        return msgspec.structs.replace(
            self.asked,
            content="".join(self.content),
            reasoning="".join(self.reasoning),
            thought_ms=None if self.thought is None else round(self.thought * 1e3),
            tool_calls=tuple(Call(call.id, call.name, call.arguments) for call in self.calls),
            state=state,
            reason=self.end.reason if self.end and state == "done" else "",
            error=error.message if error else "",
            usage=usage_of(self.end) if self.end else None,
        )

    def failed(self, error: InferenceError) -> Message:
        return self.message("cut" if isinstance(error, _OURS) else "failed", error)

    def _think(self) -> None:
        if self.thinking_since is None:
            self.thinking_since = monotonic()

    def _stop_thinking(self) -> None:
        if self.thinking_since is not None and self.thought is None:
            self.thought = monotonic() - self.thinking_since


def usage_of(end: Finished) -> Usage:
    """What is told of an answer; the time for its model to be loaded is a wait as any other."""
    usage, times = end.usage, end.timings
    return Usage(
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        ttft_ms=round((times.load + times.first_token) * 1e3, 3),
        total_ms=round((times.load + times.total) * 1e3, 3),
        tokens_per_second=round(end.tokens_per_second, 2),
    )
