"""Ollama's answers, of `/api/chat` and of `/api/generate`: lines of a stream, or one object.

Durations are nanoseconds as the worker measured them, and before that the load of the model. A
tool call comes whole, with its arguments as an object.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from api.folding import JsonObject, answers, arguments_of, extended
from api.ollama.errors import framed
from inference import (
    ArgumentsDelta,
    Finished,
    GenerationEvent,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
)

DoneReason = Literal["stop", "length", "load", "unload"]


class CalledFunction(msgspec.Struct):
    index: int
    name: str
    arguments: JsonObject


class CallLine(msgspec.Struct):
    id: str
    function: CalledFunction


class Said(msgspec.Struct):
    content: str
    thinking: str | UnsetType = UNSET
    tool_calls: list[CallLine] | UnsetType = UNSET
    role: str = "assistant"


class TopLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int]


class Logprob(TopLogprob):
    top_logprobs: list[TopLogprob] | UnsetType = UNSET

    @classmethod
    def of(cls, one: TokenLogprob) -> "Logprob":
        top = [TopLogprob(_shown(token), logprob, list(token)) for token, logprob in one.top]
        return cls(_shown(one.token), one.logprob or 0.0, list(one.token), top or UNSET)


class Line(msgspec.Struct, kw_only=True):
    """What lines of both endpoints share; all but the first four are those of the last one."""

    model: str
    created_at: str
    done: bool = False
    logprobs: list[Logprob] | UnsetType = UNSET
    done_reason: DoneReason | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET

    def lists(self, logprobs: Iterable[TokenLogprob]) -> None:
        self.logprobs = [Logprob.of(one) for one in logprobs] or UNSET

    def end(self, end: Finished) -> None:
        """Make it the last of an answer."""
        usage, times = end.usage, end.timings
        self.done = True
        self.done_reason = "length" if end.reason == "length" else "stop"
        self.total_duration = _nanoseconds(times.load + times.total)
        self.load_duration = _nanoseconds(times.load)
        self.prompt_eval_count = usage.prompt_tokens
        self.prompt_eval_duration = _nanoseconds(times.first_token - times.queued)
        self.eval_count = usage.completion_tokens
        self.eval_duration = _nanoseconds(times.total - times.first_token)


class ChatLine(Line, kw_only=True):
    message: Said

    @classmethod
    def of(cls, model: str, text: str, thoughts: str, calls: list[CallLine]) -> "ChatLine":
        said = Said(text, thoughts or UNSET, calls or UNSET)
        return cls(model=model, created_at=moment(), message=said)


class GenerateLine(Line, kw_only=True):
    response: str
    thinking: str | UnsetType = UNSET

    @classmethod
    def of(cls, model: str, text: str, thoughts: str, _: list[CallLine]) -> "GenerateLine":
        thinking = thoughts or UNSET
        return cls(model=model, created_at=moment(), response=text, thinking=thinking)


class Encoder:
    """Writes the events of one request with one choice, as lines of this kind."""

    def __init__(self, model: str, kind: type[ChatLine] | type[GenerateLine]) -> None:
        self._model = model
        self._line = kind.of
        self._call: ToolCallDelta | None = None

    def encode(self, event: GenerationEvent) -> list[bytes]:
        """A call that has begun is told before whatever comes after it."""
        if isinstance(event, ArgumentsDelta):
            self._call = self._call and extended(self._call, event.text)
            return []
        return self._last_call() + self._told(event)

    def _last_call(self) -> list[bytes]:
        if self._call is None:
            return []
        call, self._call = _call(self._call.call, self._call.position), None
        return [framed(self._line(self._model, "", "", [call]))]

    def _told(self, event: GenerationEvent) -> list[bytes]:
        match event:
            case TextDelta(_, text, logprobs):
                line = self._line(self._model, text, "", [])
                line.lists(logprobs)
                return [framed(line)]
            case ReasoningDelta(_, text):
                return [framed(self._line(self._model, "", text, []))]
            case ToolCallDelta():
                self._call = event
            case Finished() as end:
                last = self._line(self._model, "", "", [])
                last.end(end)
                return [framed(last)]
        return []

    def close(self) -> list[bytes]:
        return []

    def fold(self, events: list[GenerationEvent]) -> bytes:
        [answer] = answers(events)
        calls = [_call(call, place) for place, call in enumerate(answer.calls)]
        whole = self._line(self._model, answer.text, answer.reasoning, calls)
        whole.lists(answer.logprobs)
        whole.end(answer.end)
        return msgspec.json.encode(whole)


def loaded(
    model: str, kind: type[ChatLine] | type[GenerateLine], reason: DoneReason, seconds: float = 0.0
) -> Line:
    """The answer to who asks for nothing but that the model be there, or not; it took `seconds`."""
    line = kind.of(model, "", "", [])
    line.done, line.done_reason = True, reason
    line.total_duration = line.load_duration = _nanoseconds(seconds)
    return line


def _call(call: ToolCall, place: int) -> CallLine:
    return CallLine(call.id, CalledFunction(place, call.name, arguments_of(call)))


def _shown(token: bytes) -> str:
    return token.decode(errors="replace")


def _nanoseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e9))


def moment(seconds: float = 0.0) -> str:
    """The time so many seconds from now."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
