"""`POST /v1/messages` and `/v1/messages/count_tokens`: body -> `GenerationRequest`.

Both are pure but for their routes. Shapes follow Anthropic's API reference. Who does not ask for
thinking gets none, as there: many clients take the first block of an answer for its text.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final, Literal

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import Field

from api.anthropic.encoder import Encoder, Event, Head, MessageOut
from api.anthropic.fields import (
    ClientTool,
    System,
    Thinking,
    ToolChoice,
    Turn,
    messages_of,
    tool_of,
)
from api.asking import ask
from api.body import INT32, SchemaText, WireModel, Word, read
from api.dialect import EVENTS
from api.document import JSON, Operation, body_schema
from api.fields import EFFORTS, BasicSampling, Stops
from api.streaming import Call, answer
from inference import Constraint, GenerationRequest, Message, Models

REFUSED: Final[Mapping[str, tuple[Any, ...]]] = {"mcp_servers": ([],)}

router = APIRouter()


@router.post("/v1/messages")
async def create(http: Request) -> Response:
    return await answer(http, "messages", understand)


@router.post("/v1/messages/count_tokens")
async def count_tokens(http: Request) -> Response:
    return await ask(http, "count_tokens", understand_prompt, _count)


class OutputFormat(WireModel):
    type: Literal["json_schema"]
    source: SchemaText = Field(alias="schema")


class OutputConfig(WireModel):
    effort: Word | None = None
    format: OutputFormat | None = None


class PromptBody(WireModel):
    """What a prompt is made of."""

    model: Word | None = None
    messages: list[Turn] = Field(min_length=1, max_length=100_000)
    system: System = ""
    tools: list[ClientTool] = Field([], max_length=512)
    tool_choice: ToolChoice = ToolChoice()
    thinking: Thinking = Thinking(type="disabled", budget_tokens=None)
    output_config: OutputConfig = OutputConfig()

    def shared(self) -> dict[str, Any]:
        """The fields of a `GenerationRequest` that a prompt is made of."""
        said = [message for turn in self.messages for message in messages_of(turn)]
        system = [Message("system", self.system)] if self.system else []
        none = self.tool_choice.type == "none"
        return {
            "model": self.model or None,
            "messages": (*system, *said),
            "parallel_calls": not self.tool_choice.disable_parallel_tool_use,
            "tools": () if none else tuple(map(tool_of, self.tools)),
            "allowed": frozenset() if none else None,
            "thinking": self.thinking.type != "disabled",
            "thinking_budget": self._most_thoughts(),
            "continued": said[-1].role == "assistant" and not said[-1].tool_calls,
        }

    def _most_thoughts(self) -> int | None:
        """Tokens; an effort says how many where nothing else does."""
        said = self.thinking.budget_tokens
        return EFFORTS.get(self.output_config.effort or "") if said is None else said


class MessagesBody(PromptBody, BasicSampling):
    max_tokens: int | None = Field(None, ge=1, le=INT32)
    stream: bool = False
    stop_sequences: Stops = ()
    output_format: OutputFormat | None = None

    def constraints(self) -> tuple[Constraint, ...]:
        """A forced call leaves no text of which anything else could be asked. `output_format` is
        what `output_config.format` was called before: who says both means the latter."""
        if forced := self.tool_choice.constraint():
            return (forced,)
        new = self.output_config.format
        if (form := new or self.output_format) is None:
            return ()
        field = "output_config" if new else "output_format"
        return (Constraint("schema", field, form.source),)


class TokenCount(msgspec.Struct):
    input_tokens: int


def understand(raw: dict[str, Any], served: str) -> Call:
    """Raises `BadRequest` naming the field that is wrong."""
    body = read(MessagesBody, raw, REFUSED)
    head = Head.new(served)
    return Call((to_request(body, head.id),), Encoder(head), body.stream)


def understand_prompt(raw: dict[str, Any]) -> GenerationRequest:
    """Raises `BadRequest` naming the field that is wrong."""
    return GenerationRequest(id="", **read(PromptBody, raw, REFUSED).shared())


async def _count(models: Models, request: GenerationRequest) -> TokenCount:
    return TokenCount(await models.count(request))


def to_request(body: MessagesBody, id: str) -> GenerationRequest:
    return GenerationRequest(
        id=id,
        max_tokens=body.max_tokens,
        stop=body.stop_sequences,
        constraints=body.constraints(),
        sampling=body.sampling(),
        **body.shared(),
    )


OPERATIONS: Final = (
    Operation(
        "/v1/messages",
        "A conversation continued by the model, as Anthropic's API does it",
        {200: {JSON: MessageOut, EVENTS: Event}},
        (400, 404, 408, 410, 413, 429, 500, 503),
        partial(body_schema, MessagesBody, REFUSED),
        methods=("post",),
        headers=("X-Resumable", "Last-Event-ID"),
    ),
    Operation(
        "/v1/messages/count_tokens",
        "How many tokens a conversation is to the model",
        {200: {JSON: TokenCount}},
        (400, 404, 408, 413, 429, 500, 503),
        partial(body_schema, PromptBody, REFUSED),
        methods=("post",),
    ),
)
