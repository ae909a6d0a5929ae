"""OpenAI's chat answers: the chunks of a stream, or one completion.

Shapes follow OpenAI's API reference; `reasoning_content` (DeepSeek's name) and `reasoning`
(vLLM's) carry the same text, `timings` is llama.cpp's addition. Who offers `functions`, as it was
before there were tools, is answered with a `function_call`.
"""

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from api.folding import Answer
from api.openai.logprobs import ChatLogprobs
from api.openai.replies import Head, ReplyEncoder
from inference import (
    ArgumentsDelta,
    Finished,
    FinishReason,
    GenerationEvent,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCall,
    ToolCallDelta,
)


class FunctionOut(msgspec.Struct):
    """Without a name it is more of the arguments."""

    arguments: str
    name: str | UnsetType = UNSET


class ToolCallOut(msgspec.Struct):
    """`index` is where it belongs in a stream, in which only the first delta has the others."""

    function: FunctionOut
    index: int | UnsetType = UNSET
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


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


class Encoder(ReplyEncoder):
    """Writes the events of one request with `n` choices; of a client that knows `functions` only
    the first call is one that it can read. Whether it wants `logprobs` matters where there are
    none."""

    chunk, whole = "chat.completion.chunk", "chat.completion"

    def __init__(
        self,
        head: Head,
        n: int,
        include_usage: bool,
        functions: bool = False,
        logprobs: bool = False,
    ) -> None:
        super().__init__(head, n, include_usage)
        self._functions = functions
        self._logprobs = logprobs

    def encode(self, event: GenerationEvent) -> list[bytes]:
        match event:
            case TextDelta(index, text, logprobs) if logprobs:
                told = ChatLogprobs.of(logprobs)
                return self._said(ChunkChoice(index, Delta(content=text), logprobs=told))
            case Started():
                role = Delta(role="assistant", content="")
                return [frame for index in range(self._n) for frame in self._delta(index, role)]
            case Finished(index, reason):
                return self._ended(ChunkChoice(index, Delta(), self._reason(reason)), event)
            case ToolCallDelta() | ArgumentsDelta() if self._functions:
                return [] if event.position else self._delta(event.index, _of_function(event))
            case _:
                return self._delta(event.index, _delta_of(event))

    def _choice(self, answer: Answer) -> Choice:
        calls = [_call_out(call) for call in answer.calls]
        reasoning = answer.reasoning or UNSET
        message = Delta(
            role="assistant",
            content=answer.text or (None if calls else ""),
            reasoning_content=reasoning,
            reasoning=reasoning,
            tool_calls=UNSET if self._functions or not calls else calls,
            function_call=calls[0].function if self._functions and calls else UNSET,
        )
        told = ChatLogprobs.of(answer.logprobs) if self._logprobs else UNSET
        return Choice(answer.end.index, message, self._reason(answer.end.reason), told)

    def _reason(self, reason: FinishReason) -> Reason:
        return "function_call" if self._functions and reason == "tool_calls" else reason

    def _delta(self, index: int, delta: Delta) -> list[bytes]:
        return self._said(ChunkChoice(index, delta))


def _delta_of(event: TextDelta | ReasoningDelta | ToolCallDelta | ArgumentsDelta) -> Delta:
    match event:
        case TextDelta(_, text):
            return Delta(content=text)
        case ReasoningDelta(_, text):
            return Delta(reasoning_content=text, reasoning=text)
        case ToolCallDelta(_, position, call):
            return Delta(tool_calls=[_call_out(call, position)])
        case ArgumentsDelta(_, position, text):
            return Delta(tool_calls=[ToolCallOut(FunctionOut(text), position)])


def _of_function(event: ToolCallDelta | ArgumentsDelta) -> Delta:
    """As it was before there were tools."""
    if isinstance(event, ArgumentsDelta):
        return Delta(function_call=FunctionOut(event.text))
    return Delta(function_call=_function(event.call))


def _call_out(call: ToolCall, position: int | UnsetType = UNSET) -> ToolCallOut:
    return ToolCallOut(_function(call), position, call.id, "function")


def _function(call: ToolCall) -> FunctionOut:
    return FunctionOut(call.arguments or "{}", call.name)
