"""`POST /v1/chat/completions`: body -> `GenerationRequest`, events -> chunks or one answer.

Both directions are pure. Shapes follow OpenAI's API reference; `reasoning_content` (DeepSeek's
name) and `reasoning` (vLLM's) carry the same text, `timings` is llama.cpp's addition.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec import UNSET, UnsetType
from pydantic import Field

from api.body import Text, WireModel, Word
from api.openai.common import (
    FINGERPRINT,
    SPELLED,
    GenerationBody,
    Head,
    Limit,
    Timings,
    Usage,
    generation,
    read,
    schema,
    unlimited,
)
from api.openai.constraints import Calling, ToolChoice
from api.openai.fields import Arguments, Content, Role, TemplateKwargs
from api.streaming import Call, answer
from inference import (
    Constraint,
    Finished,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    Message,
    ReasoningDelta,
    Started,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
)

REFUSED: Final[Mapping[str, tuple[Any, ...]]] = {
    "logprobs": (False,),
    "functions": ([],),
    "function_call": ("auto", "none"),
    "modalities": (["text"],),
    "audio": (),
    "continue_final_message": (False,),
    "add_generation_prompt": (True,),
}
MAX_CALLS: Final = 128

router = APIRouter()


@router.post("/v1/chat/completions")
async def create(http: Request) -> Response:
    return await answer(http, "chat", understand)


class FunctionCallBody(WireModel):
    name: Word
    arguments: Arguments = "{}"


class ToolCallBody(WireModel):
    id: Word | None = None
    function: FunctionCallBody


class MessageBody(WireModel):
    role: Role
    content: Content = ""
    reasoning_content: Text | None = None
    reasoning: Text | None = None
    tool_calls: list[ToolCallBody] | None = Field(None, max_length=MAX_CALLS)


class FunctionBody(WireModel):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolBody(WireModel):
    type: Literal["function"] = "function"
    function: FunctionBody


class ChatBody(GenerationBody):
    messages: list[MessageBody] = Field(min_length=1, max_length=2048)
    max_completion_tokens: Limit | None = None
    tools: list[ToolBody] = Field([], max_length=128)
    tool_choice: ToolChoice = Calling()
    parallel_tool_calls: bool = True
    enable_thinking: bool | None = None
    reasoning_effort: Word | None = None
    chat_template_kwargs: TemplateKwargs = Field(default_factory=dict)

    def thinking(self) -> bool | None:
        """The first of three spellings that says anything."""
        for said in (self.chat_template_kwargs.get("enable_thinking"), self.enable_thinking):
            if said is not None:
                return bool(SPELLED[said.lower()] if isinstance(said, str) else said)
        return False if self.reasoning_effort in ("none", "minimal") else None

    def constraints(self) -> tuple[Constraint, ...]:
        """A forced call leaves no text of which anything else could be asked."""
        several, choice = self.parallel_tool_calls, self.tool_choice
        if choice.forced:
            return (Constraint("calls", "tool_choice", choice.name, several=several),)
        return tuple(replace(asked, several=several) for asked in super().constraints())


def understand(raw: dict[str, Any], served: str) -> Call:
    """Raises `BadRequest` naming the field that is wrong."""
    body = read(ChatBody, raw, REFUSED)
    head = Head.new("chatcmpl", served)
    encoder = Encoder(head, body.n, bool(body.stream_options.include_usage))
    return Call((to_request(body, head.id),), encoder, body.stream, body.resumable)


def to_request(body: ChatBody, id: str) -> GenerationRequest:
    limit = body.max_completion_tokens or body.max_tokens
    kwargs = {k: v for k, v in body.chat_template_kwargs.items() if k != "enable_thinking"}
    return GenerationRequest(
        id=id,
        messages=tuple(_message(message) for message in body.messages),
        tools=() if body.tool_choice.mode == "none" else tuple(_tool(tool) for tool in body.tools),
        thinking=body.thinking(),
        template_kwargs=kwargs,
        max_tokens=unlimited(limit),
        **body.shared(),
    )


def _message(body: MessageBody) -> Message:
    calls = tuple(
        ToolCall(call.id or "", call.function.name, call.function.arguments)
        for call in body.tool_calls or ()
    )
    reasoning = body.reasoning_content or body.reasoning or ""
    return Message(body.role, body.content, reasoning, calls)


def _tool(body: ToolBody) -> Tool:
    function = body.function
    parameters, strict = function.parameters or {}, bool(function.strict)
    return Tool(function.name, function.description or "", parameters, strict)


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


class ChunkChoice(msgspec.Struct):
    index: int
    delta: Delta
    finish_reason: FinishReason | None = None


class Choice(msgspec.Struct):
    index: int
    message: Delta
    finish_reason: FinishReason


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

    def message(self) -> Delta:
        reasoning = "".join(self.reasoning) or UNSET
        return Delta(
            role="assistant",
            content="".join(self.text) or (None if self.calls else ""),
            reasoning_content=reasoning,
            reasoning=reasoning,
            tool_calls=self.calls or UNSET,
        )


class Encoder:
    """Writes the events of one request with `n` choices."""

    def __init__(self, head: Head, n: int, include_usage: bool) -> None:
        self._head = head
        self._n = n
        self._include_usage = include_usage
        self._ends: list[Finished] = []

    def encode(self, event: GenerationEvent) -> list[bytes]:
        match event:
            case TextDelta(index, text):
                return [self._chunk(index, Delta(content=text))]
            case ReasoningDelta(index, text):
                return [self._chunk(index, Delta(reasoning_content=text, reasoning=text))]
            case ToolCallDelta(index, position, call):
                return [self._chunk(index, Delta(tool_calls=[_call_out(call, position)]))]
            case Started():
                role = Delta(role="assistant", content="")
                return [self._chunk(index, role) for index in range(self._n)]
            case Finished(index, reason):
                self._ends.append(event)
                reply = self._reply([ChunkChoice(index, Delta(), reason)])
                reply.timings = Timings.of(event)
                return [msgspec.json.encode(reply)]

    def close(self) -> list[bytes]:
        """The usage chunk, which has no choices; old clients fail on it, so only if asked for."""
        if not self._include_usage:
            return []
        reply = self._reply([])
        reply.usage = Usage.of(self._ends, self._n)
        return [msgspec.json.encode(reply)]

    def fold(self, events: list[GenerationEvent]) -> bytes:
        answers = [_Answer() for _ in range(self._n)]
        for event in events:
            match event:
                case TextDelta(index, text):
                    answers[index].text.append(text)
                case ReasoningDelta(index, text):
                    answers[index].reasoning.append(text)
                case ToolCallDelta(index, _, call):
                    answers[index].calls.append(_call_out(call))
        ends = sorted((e for e in events if isinstance(e, Finished)), key=lambda end: end.index)
        reply = self._reply(
            [Choice(e.index, a.message(), e.reason) for e, a in zip(ends, answers, strict=True)]
        )
        reply.object = "chat.completion"
        reply.usage = Usage.of(ends, self._n)
        reply.timings = Timings.of(ends[0])
        return msgspec.json.encode(reply)

    def _chunk(self, index: int, delta: Delta) -> bytes:
        return msgspec.json.encode(self._reply([ChunkChoice(index, delta)]))

    def _reply(self, choices: list[AnyChoice]) -> Reply[AnyChoice]:
        head = self._head
        return Reply(head.id, "chat.completion.chunk", head.created, head.model, choices)


def _call_out(call: ToolCall, position: int | UnsetType = UNSET) -> ToolCallOut:
    return ToolCallOut(call.id, FunctionOut(call.name, call.arguments or "{}"), position)


OPERATIONS: Final = (
    generation(
        "/v1/chat/completions",
        "A conversation continued by the model",
        partial(schema, ChatBody, REFUSED),
        Reply[Choice],
        Reply[ChunkChoice],
    ),
)
