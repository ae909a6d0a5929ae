"""OpenAI's chat answers: the chunks of a stream, or one completion.

Shapes follow OpenAI's API reference; `reasoning_content` (DeepSeek's name) and `reasoning`
(vLLM's) carry the same text, `timings` is llama.cpp's addition. Who offers `functions`, as it was
before there were tools, is answered with a `function_call`.
"""

from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from api.openai.common import FINGERPRINT, Head, Timings, Usage
from api.openai.errors import DONE, framed
from api.openai.logprobs import ChatLogprobs
from inference import (
    Finished,
    FinishReason,
    GenerationEvent,
    ReasoningDelta,
    Started,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
)


class FunctionOut(msgspec.Struct):
    name: str
    arguments: str


class ToolCallOut(msgspec.Struct):
    id: str
    function: FunctionOut
    index: int | UnsetType = UNSET
    type: str = "function"


class Delta(msgspec.Struct):
    role: str | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[ToolCallOut] | UnsetType = UNSET
    function_call: FunctionOut | UnsetType = UNSET


Reason = FinishReason | Literal["function_call"]


class ChunkChoice(msgspec.Struct):
    index: int
    delta: Delta
    finish_reason: Reason | None = None
    logprobs: ChatLogprobs | UnsetType = UNSET


class Choice(msgspec.Struct):
    index: int
    message: Delta
    finish_reason: Reason
    logprobs: ChatLogprobs | UnsetType = UNSET


AnyChoice = TypeVar("AnyChoice", ChunkChoice, Choice)


class Reply(msgspec.Struct, Generic[AnyChoice]):
    """A chunk of a stream, or with `Choice`s the whole answer."""

    id: str
    object: str
    created: int
    model: str
    choices: list[AnyChoice]
    system_fingerprint: str = FINGERPRINT
    usage: Usage | UnsetType = UNSET
    timings: Timings | UnsetType = UNSET


@dataclass(slots=True)
class _Answer:
    """One choice while its events are folded."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[ToolCallOut] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)

    def message(self, functions: bool) -> Delta:
        reasoning = "".join(self.reasoning) or UNSET
        return Delta(
            role="assistant",
            content="".join(self.text) or (None if self.calls else ""),
            reasoning_content=reasoning,
            reasoning=reasoning,
            tool_calls=UNSET if functions or not self.calls else self.calls,
            function_call=self.calls[0].function if self.calls and functions else UNSET,
        )


class Encoder:
    """Writes the events of one request with `n` choices; of a client that knows `functions` only
    the first call is one that it can read. Whether it wants `logprobs` matters where there are
    none."""

    def __init__(
        self,
        head: Head,
        n: int,
        include_usage: bool,
        functions: bool = False,
        logprobs: bool = False,
    ) -> None:
        self._head = head
        self._n = n
        self._include_usage = include_usage
        self._functions = functions
        self._logprobs = logprobs
        self._ends: list[Finished] = []

    def encode(self, event: GenerationEvent) -> list[bytes]:
        match event:
            case TextDelta(index, text, ()):
                return [self._chunk(index, Delta(content=text))]
            case TextDelta(index, text, logprobs):
                told = ChatLogprobs.of(logprobs)
                return [framed(self._reply([ChunkChoice(index, Delta(content=text), None, told)]))]
            case ReasoningDelta(index, text):
                return [self._chunk(index, Delta(reasoning_content=text, reasoning=text))]
            case ToolCallDelta(index, position, call) if self._functions:
                function = FunctionOut(call.name, call.arguments)
                return [] if position else [self._chunk(index, Delta(function_call=function))]
            case ToolCallDelta(index, position, call):
                return [self._chunk(index, Delta(tool_calls=[_call_out(call, position)]))]
            case Started():
                role = Delta(role="assistant", content="")
                return [self._chunk(index, role) for index in range(self._n)]
            case Finished(index, reason):
                self._ends.append(event)
                reply = self._reply([ChunkChoice(index, Delta(), self._reason(reason))])
                reply.timings = Timings.of(event)
                return [framed(reply)]

    def close(self) -> list[bytes]:
        """The usage chunk, which has no choices; old clients fail on it, so only if asked for."""
        if not self._include_usage:
            return [DONE]
        reply = self._reply([])
        reply.usage = Usage.of(self._ends, self._n)
        return [framed(reply), DONE]

    def fold(self, events: list[GenerationEvent]) -> bytes:
        answers = [_Answer() for _ in range(self._n)]
        for event in events:
            match event:
                case TextDelta(index, text, logprobs):
                    answers[index].text.append(text)
                    answers[index].logprobs += logprobs
                case ReasoningDelta(index, text):
                    answers[index].reasoning.append(text)
                case ToolCallDelta(index, _, call):
                    answers[index].calls.append(_call_out(call))
        ends = sorted((e for e in events if isinstance(e, Finished)), key=lambda end: end.index)
        choices = [
            Choice(
                end.index,
                answer.message(self._functions),
                self._reason(end.reason),
                ChatLogprobs.of(tuple(answer.logprobs)) if self._logprobs else UNSET,
            )
            for end, answer in zip(ends, answers, strict=True)
        ]
        reply = self._reply(choices)
        reply.object = "chat.completion"
        reply.usage = Usage.of(ends, self._n)
        reply.timings = Timings.of(ends[0])
        return msgspec.json.encode(reply)

    def _reason(self, reason: FinishReason) -> Reason:
        return "function_call" if self._functions and reason == "tool_calls" else reason

    def _chunk(self, index: int, delta: Delta) -> bytes:
        return framed(self._reply([ChunkChoice(index, delta)]))

    def _reply(self, choices: list[AnyChoice]) -> Reply[AnyChoice]:
        head = self._head
        return Reply(head.id, "chat.completion.chunk", head.created, head.model, choices)


def _call_out(call: ToolCall, position: int | UnsetType = UNSET) -> ToolCallOut:
    return ToolCallOut(call.id, FunctionOut(call.name, call.arguments or "{}"), position)
