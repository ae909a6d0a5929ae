"""Anthropic's answers: events of a stream, block by block, or one message.

A stream is `message_start`, then the blocks one after the other, each with its start, its deltas
and its stop, then `message_delta` with the reason and the counts, then `message_stop`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal
from uuid import uuid4

import msgspec

from api.dialect import named_event
from api.folding import JsonObject, arguments_of, with_whole_calls
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
    Usage,
)

# Clients send it back with the thoughts, and some drop thoughts without one.
SIGNATURE: Final = "b25lYm94"
StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]
_REASONS: Final[Mapping[FinishReason, StopReason]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
}


@dataclass(frozen=True, slots=True)
class Head:
    """What an answer is called, and the model that gives it."""

    id: str
    model: str

    @classmethod
    def new(cls, model: str) -> "Head":
        return cls(f"msg_{uuid4().hex}", model)


class TextOut(msgspec.Struct, tag_field="type", tag="text"):
    text: str


class ThinkingOut(msgspec.Struct, tag_field="type", tag="thinking"):
    thinking: str
    signature: str


class ToolUseOut(msgspec.Struct, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: JsonObject


BlockOut = TextOut | ThinkingOut | ToolUseOut


class TokensUsed(msgspec.Struct):
    """`input_tokens` are those of the prompt that had to be computed."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int

    @classmethod
    def of(cls, usage: Usage) -> "TokensUsed":
        computed = usage.prompt_tokens - usage.cached_tokens
        return cls(computed, 0, usage.cached_tokens, usage.completion_tokens)


class MessageOut(msgspec.Struct, tag_field="type", tag="message"):
    id: str
    role: Literal["assistant"]
    model: str
    content: list[BlockOut]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: TokensUsed


class TextPart(msgspec.Struct, tag_field="type", tag="text_delta"):
    text: str


class ThinkingPart(msgspec.Struct, tag_field="type", tag="thinking_delta"):
    thinking: str


class SignaturePart(msgspec.Struct, tag_field="type", tag="signature_delta"):
    signature: str


class InputPart(msgspec.Struct, tag_field="type", tag="input_json_delta"):
    partial_json: str


class Outcome(msgspec.Struct):
    stop_reason: StopReason
    stop_sequence: str | None

    @classmethod
    def of(cls, end: Finished) -> "Outcome":
        if end.reason == "stop" and end.stop:
            return cls("stop_sequence", end.stop)
        return cls(_REASONS[end.reason], None)


class MessageStart(msgspec.Struct, tag_field="type", tag="message_start"):
    message: MessageOut


class BlockStart(msgspec.Struct, tag_field="type", tag="content_block_start"):
    index: int
    content_block: BlockOut


class BlockDelta(msgspec.Struct, tag_field="type", tag="content_block_delta"):
    index: int
    delta: TextPart | ThinkingPart | SignaturePart | InputPart


class BlockStop(msgspec.Struct, tag_field="type", tag="content_block_stop"):
    index: int


class MessageDelta(msgspec.Struct, tag_field="type", tag="message_delta"):
    delta: Outcome
    usage: TokensUsed


class MessageStop(msgspec.Struct, tag_field="type", tag="message_stop"):
    pass


class Ping(msgspec.Struct, tag_field="type", tag="ping"):
    pass


Event = MessageStart | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop | Ping


class Encoder:
    """Writes the events of one request with one choice."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._blocks = 0
        self._open: type[BlockOut] | None = None

    def encode(self, event: GenerationEvent) -> list[bytes]:
        match event:
            case TextDelta(_, text):
                return [*self._turn_to(TextOut), self._delta(TextPart(text))]
            case ReasoningDelta(_, text):
                return [*self._turn_to(ThinkingOut), self._delta(ThinkingPart(text))]
            case ToolCallDelta(_, _, call):
                return [*self._turn_to(None), *self._call(call)]
            case ArgumentsDelta(_, _, text):
                return [self._delta(InputPart(text))]
            case Started(prompt_tokens):
                message = self._message([], None, TokensUsed(prompt_tokens, 0, 0, 0))
                return [_framed(MessageStart(message))]
            case Finished() as end:
                last = MessageDelta(Outcome.of(end), TokensUsed.of(end.usage))
                return [*self._turn_to(None), _framed(last)]

    def close(self) -> list[bytes]:
        return [_framed(MessageStop())]

    def fold(self, events: list[GenerationEvent]) -> bytes:
        blocks: list[BlockOut] = []
        for event in with_whole_calls(events):
            match event, blocks[-1:]:
                case TextDelta(_, text), [TextOut() as block]:
                    block.text += text
                case TextDelta(_, text), _:
                    blocks.append(TextOut(text))
                case ReasoningDelta(_, text), [ThinkingOut() as block]:
                    block.thinking += text
                case ReasoningDelta(_, text), _:
                    blocks.append(ThinkingOut(text, SIGNATURE))
                case ToolCallDelta(_, _, call), _:
                    blocks.append(ToolUseOut(_id(call), call.name, arguments_of(call)))
        [end] = [event for event in events if isinstance(event, Finished)]
        return msgspec.json.encode(self._message(blocks, Outcome.of(end), TokensUsed.of(end.usage)))

    def _turn_to(self, kind: type[TextOut | ThinkingOut] | None) -> list[bytes]:
        """Have a block of this kind open, or none; what there is to say for it."""
        if kind is self._open:
            return []
        frames = []
        if self._open is ThinkingOut:
            frames.append(self._delta(SignaturePart(SIGNATURE)))
        if self._open:
            frames.append(self._stop())
        if kind:
            block = TextOut("") if kind is TextOut else ThinkingOut("", "")
            frames.append(_framed(BlockStart(self._blocks, block)))
        self._open = kind
        return frames

    def _call(self, call: ToolCall) -> list[bytes]:
        self._open = ToolUseOut
        block = ToolUseOut(_id(call), call.name, msgspec.Raw(b"{}"))
        start = _framed(BlockStart(self._blocks, block))
        return [start, self._delta(InputPart(call.arguments or "{}"))]

    def _delta(self, part: TextPart | ThinkingPart | SignaturePart | InputPart) -> bytes:
        return _framed(BlockDelta(self._blocks, part))

    def _stop(self) -> bytes:
        self._blocks += 1
        return _framed(BlockStop(self._blocks - 1))

    def _message(
        self, blocks: list[BlockOut], outcome: Outcome | None, usage: TokensUsed
    ) -> MessageOut:
        return MessageOut(
            id=self._head.id,
            role="assistant",
            model=self._head.model,
            content=blocks,
            stop_reason=outcome.stop_reason if outcome else None,
            stop_sequence=outcome.stop_sequence if outcome else None,
            usage=usage,
        )


def _framed(event: Event) -> bytes:
    return named_event(str(event.__struct_config__.tag), event)


def _id(call: ToolCall) -> str:
    return f"toolu_{call.id.removeprefix('call_')}"
