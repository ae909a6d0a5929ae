"""`POST /v1/chat/completions`: body -> `GenerationRequest`.

Pure but for its route. Fields follow OpenAI's API reference, and what others have added to it.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final, Literal, Self

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field, model_validator

from api.body import Text, WireModel, Word
from api.fields import Alternatives, Content
from api.openai.common import (
    GenerationBody,
    Limit,
    generation,
    read,
    schema,
    unlimited,
)
from api.openai.constraints import MAX_TOOLS, Calling, ToolChoice
from api.openai.encoder import Choice, ChunkChoice, Encoder
from api.openai.fields import Arguments, Role
from api.openai.functions import FunctionBody, ToolBody
from api.openai.replies import Head, Reply
from api.openai.thinking import ThinkingBody
from api.streaming import Call, answer
from inference import (
    BadRequest,
    Constraint,
    GenerationRequest,
    Message,
    Tool,
    ToolCall,
)

REFUSED: Final[Mapping[str, tuple[Any, ...]]] = {
    "modalities": (["text"],),
    "audio": (),
}
MAX_CALLS: Final = 128
_TRUE: Final = {"enum": [True, "true", 1]}
ONE_BEGINNING: Final[dict[str, Any]] = {
    "if": {
        "properties": {"continue_final_message": _TRUE},
        "required": ["continue_final_message"],
    },
    "then": {"properties": {"add_generation_prompt": {"enum": [False, "false", 0, None]}}},
    "else": {"properties": {"add_generation_prompt": {"enum": [True, "true", 1, None]}}},
}
NO_TOP_ALONE: Final[dict[str, Any]] = {
    "if": {"not": {"properties": {"logprobs": _TRUE}, "required": ["logprobs"]}},
    "then": {"properties": {"top_logprobs": {"enum": [0, None]}}},
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


class ChatBody(GenerationBody, ThinkingBody):
    messages: list[MessageBody] = Field(min_length=1, max_length=2048)
    max_completion_tokens: Limit | None = None
    tools: list[ToolBody] = Field([], max_length=MAX_TOOLS)
    tool_choice: ToolChoice = Calling()
    parallel_tool_calls: bool = True
    functions: list[FunctionBody] = Field([], max_length=MAX_TOOLS)
    function_call: Literal["auto", "none"] = "auto"
    continue_final_message: bool = False
    add_generation_prompt: bool | None = None
    logprobs: bool = False
    top_logprobs: Alternatives = 0

    model_config = ConfigDict(json_schema_extra={"allOf": [ONE_BEGINNING, NO_TOP_ALONE]})

    def told(self) -> tuple[Message, ...]:
        return tuple(map(message_of, self.messages))

    def offered(self) -> tuple[Tool, ...]:
        functions = [tool.function for tool in self.tools] or self.functions
        allowed = self.allowed()
        return tuple(f.tool() for f in functions if allowed is None or f.name in allowed)

    def allowed(self) -> frozenset[str] | None:
        if "none" in (self.tool_choice.mode, self.function_call):
            return frozenset()
        return self.tool_choice.allowed

    @model_validator(mode="after")
    def _one_beginning(self) -> Self:
        if self.add_generation_prompt is self.continue_final_message:
            raise BadRequest(
                "add_generation_prompt has to be the opposite of continue_final_message.",
                "add_generation_prompt",
            )
        return self

    @model_validator(mode="after")
    def _no_top_alone(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise BadRequest("top_logprobs needs logprobs to be true.", "top_logprobs")
        return self

    def constraints(self) -> tuple[Constraint, ...]:
        """A forced call leaves no text of which anything else could be asked."""
        if self.tool_choice.forced:
            return (Constraint("calls", "tool_choice", self.tool_choice.name),)
        return super().constraints()


def understand(raw: dict[str, Any], served: str) -> Call:
    """Raises `BadRequest` naming the field that is wrong."""
    return call_of(read(ChatBody, raw, REFUSED), Head.new("chatcmpl-", served))


def call_of(body: ChatBody, head: Head) -> Call:
    usage = bool(body.stream_options.include_usage)
    functions = bool(body.functions and not body.tools)
    encoder = Encoder(head, body.n, usage, functions=functions, logprobs=body.logprobs)
    return Call((to_request(body, head.id),), encoder, body.stream, body.resumable)


def to_request(body: ChatBody, id: str) -> GenerationRequest:
    limit = body.max_completion_tokens or body.max_tokens
    return GenerationRequest(
        id=id,
        messages=body.told(),
        tools=body.offered(),
        allowed=body.allowed(),
        parallel_calls=body.parallel_tool_calls,
        continued=body.continue_final_message,
        thinking=body.wants_thoughts(),
        thinking_budget=body.most_thoughts(),
        template_kwargs=body.chat_template_kwargs,
        max_tokens=unlimited(limit),
        logprobs=body.top_logprobs if body.logprobs else None,
        **body.shared(),
    )


def message_of(body: MessageBody) -> Message:
    written = [(call.id or "", call.function) for call in body.tool_calls or ()]
    if body.function_call:
        written.append(("", body.function_call))
    calls = tuple(ToolCall(id, function.name, function.arguments) for id, function in written)
    reasoning = body.reasoning_content or body.reasoning or ""
    return Message(
        body.role, body.content, reasoning, calls, body.tool_call_id or "", body.name or ""
    )


OPERATIONS: Final = (
    generation(
        "/v1/chat/completions",
        "A conversation continued by the model",
        partial(schema, ChatBody, REFUSED),
        Reply[Choice],
        Reply[ChunkChoice],
    ),
)
