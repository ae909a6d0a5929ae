"""`POST /v1/chat/completions`: body -> `GenerationRequest`, events -> chunks or one answer.

Both directions are pure. Shapes follow OpenAI's API reference; `reasoning_content` (DeepSeek's
name) and `reasoning` (vLLM's) carry the same text, `timings` is llama.cpp's addition. Who offers
`functions`, as it was before there were tools, is answered with a `function_call`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any, Final, Generic, Literal, Self, TypeVar

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec import UNSET, UnsetType
from pydantic import ConfigDict, Field, ModelWrapValidatorHandler, PrivateAttr, model_validator

from api.body import Text, WireModel, Word
from api.openai.common import (
    FINGERPRINT,
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
from api.openai.errors import DONE, framed
from api.openai.fields import Arguments, Content, Role
from api.openai.thinking import ThinkingBody
from api.streaming import Call, answer
from inference import (
    BadRequest,
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
    "modalities": (["text"],),
    "audio": (),
}
MAX_CALLS: Final = 128
ONE_BEGINNING: Final[dict[str, Any]] = {
    "if": {
        "properties": {"continue_final_message": {"enum": [True, "true"]}},
        "required": ["continue_final_message"],
    },
    "then": {"properties": {"add_generation_prompt": {"enum": [False, "false", None]}}},
    "else": {"properties": {"add_generation_prompt": {"enum": [True, "true", None]}}},
}

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
    function_call: FunctionCallBody | None = None
    tool_call_id: Word | None = None
    name: Word | None = None


class FunctionBody(WireModel):
    """`_written` is the object that it was read from: prompts show it in its own order."""

    _written: dict[str, Any] = PrivateAttr(default_factory=dict)
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @model_validator(mode="wrap")
    @classmethod
    def _keep(cls, written: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        body = read(written)
        body._written = written
        return body

    def tool(self) -> Tool:
        return Tool(
            self.name,
            self.description or "",
            self.parameters or {},
            strict=bool(self.strict),
            written=self._written,
        )


class ToolBody(WireModel):
    type: Literal["function"] = "function"
    function: FunctionBody


class ChatBody(GenerationBody, ThinkingBody):
    messages: list[MessageBody] = Field(min_length=1, max_length=2048)
    max_completion_tokens: Limit | None = None
    tools: list[ToolBody] = Field([], max_length=128)
    tool_choice: ToolChoice = Calling()
    parallel_tool_calls: bool = True
    functions: list[FunctionBody] = Field([], max_length=128)
    function_call: Literal["auto", "none"] = "auto"
    continue_final_message: bool = False
    add_generation_prompt: bool | None = None

    model_config = ConfigDict(json_schema_extra=ONE_BEGINNING)

    def offered(self) -> tuple[Tool, ...]:
        if "none" in (self.tool_choice.mode, self.function_call):
            return ()
        functions = [tool.function for tool in self.tools] or self.functions
        return tuple(function.tool() for function in functions)

    @model_validator(mode="after")
    def _one_beginning(self) -> Self:
        if self.add_generation_prompt is self.continue_final_message:
            raise BadRequest(
                "add_generation_prompt has to be the opposite of continue_final_message.",
                "add_generation_prompt",
            )
        return self

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
    usage = bool(body.stream_options.include_usage)
    encoder = Encoder(head, body.n, usage, functions=bool(body.functions and not body.tools))
    return Call((to_request(body, head.id),), encoder, body.stream, body.resumable)


def to_request(body: ChatBody, id: str) -> GenerationRequest:
    limit = body.max_completion_tokens or body.max_tokens
    kwargs = {k: v for k, v in body.chat_template_kwargs.items() if k != "enable_thinking"}
    return GenerationRequest(
        id=id,
        messages=tuple(_message(message) for message in body.messages),
        tools=body.offered(),
        continued=body.continue_final_message,
        thinking=body.wants_thoughts(),
        thinking_budget=body.most_thoughts(),
        template_kwargs=kwargs,
        max_tokens=unlimited(limit),
        **body.shared(),
    )


def _message(body: MessageBody) -> Message:
    written = [(call.id or "", call.function) for call in body.tool_calls or ()]
    if body.function_call:
        written.append(("", body.function_call))
    calls = tuple(ToolCall(id, function.name, function.arguments) for id, function in written)
    reasoning = body.reasoning_content or body.reasoning or ""
    return Message(
        body.role, body.content, reasoning, calls, body.tool_call_id or "", body.name or ""
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


class Choice(msgspec.Struct):
    index: int
    message: Delta
    finish_reason: Reason


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
    the first call is one that it can read."""

    def __init__(self, head: Head, n: int, include_usage: bool, functions: bool = False) -> None:
        self._head = head
        self._n = n
        self._include_usage = include_usage
        self._functions = functions
        self._ends: list[Finished] = []

    def encode(self, event: GenerationEvent) -> list[bytes]:
        match event:
            case TextDelta(index, text):
                return [self._chunk(index, Delta(content=text))]
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
                case TextDelta(index, text):
                    answers[index].text.append(text)
                case ReasoningDelta(index, text):
                    answers[index].reasoning.append(text)
                case ToolCallDelta(index, _, call):
                    answers[index].calls.append(_call_out(call))
        ends = sorted((e for e in events if isinstance(e, Finished)), key=lambda end: end.index)
        choices = [
            Choice(end.index, answer.message(self._functions), self._reason(end.reason))
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


OPERATIONS: Final = (
    generation(
        "/v1/chat/completions",
        "A conversation continued by the model",
        partial(schema, ChatBody, REFUSED),
        Reply[Choice],
        Reply[ChunkChoice],
    ),
)
