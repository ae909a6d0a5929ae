"""`POST /v1/responses` and `/v1/responses/input_tokens`: body -> `GenerationRequest`.

Pure but for its routes and the store that it is given. Fields follow OpenAI's API reference; those
that `/v1/chat/completions` has as well mean the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, Literal

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field

from api.asking import ask
from api.body import MAX_BODY, Text, Word, validate
from api.document import JSON, Operation
from api.errors import UnknownItem, UnknownPrevious, UnknownResponse
from api.openai.common import GenerationBody, Limit, generation, read, schema, unlimited
from api.openai.constraints import Calling
from api.openai.errors import OPENAI
from api.openai.replies import Head
from api.openai.responses.encoder import Encoder, forget
from api.openai.responses.fields import (
    Choosing,
    Include,
    Metadata,
    ReasoningChoice,
    TextBody,
    ToolChoice,
    Tools,
    functions_of,
    written,
)
from api.openai.responses.items import Input, Items, Reference, Said, flat_name, messages_of
from api.openai.responses.store import Kept, Store
from api.openai.responses.wire import Echo, Event, InputTokens, ResponseOut, response_of
from api.openai.thinking import ThinkingBody
from api.streaming import Call, answer
from inference import BadRequest, Constraint, GenerationRequest, Message, Models, Tool

REFUSED: Final[Mapping[str, tuple[Any, ...]]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "background": (False,),
    "conversation": (),
    "context_management": ([],),
    "moderation": (),
    "prompt": (),
}
_SAID: Final = {"type": "string", "minLength": 1}
NOT_EMPTY: Final[dict[str, Any]] = {
    "if": {"properties": {"input": {"type": "array", "maxItems": 0}}},
    "then": {
        "anyOf": [
            {"properties": {field: _SAID}, "required": [field]}
            for field in ("instructions", "previous_response_id")
        ]
    },
}

router = APIRouter()


@router.post("/v1/responses")
async def create(http: Request) -> Response:
    return await answer(
        http, "responses", partial(understand, http.app.state.responses, http.state.tenant)
    )


@router.post("/v1/responses/input_tokens")
async def input_tokens(http: Request) -> Response:
    reading = partial(understand_prompt, http.app.state.responses, http.state.tenant)
    return await ask(http, "input_tokens", reading, _count)


class ResponsesBody(GenerationBody, ThinkingBody):
    """A prompt that does not fit is refused, whatever `truncation` says: nothing is cut."""

    model_config = ConfigDict(json_schema_extra=NOT_EMPTY)
    input: Input
    instructions: Text | None = None
    previous_response_id: Word | None = None
    max_output_tokens: Limit | None = None
    tools: Tools = Field([])
    tool_choice: ToolChoice = Choosing(Calling(), "auto")
    parallel_tool_calls: bool = True
    text: TextBody = TextBody()
    reasoning: ReasoningChoice = ReasoningChoice()
    include: Include = Field([])
    metadata: Metadata = Field({})
    store: bool = True
    truncation: Literal["auto", "disabled"] = "disabled"

    def offered(self) -> tuple[Tool, ...]:
        """What the model is shown."""
        allowed = self.allowed()
        tools = [tool.tool_in(namespace) for namespace, tool in functions_of(self.tools)]
        return tuple(t for t in tools if allowed is None or t.name in allowed)

    def allowed(self) -> frozenset[str] | None:
        choice = self.tool_choice.calling
        return frozenset() if choice.mode == "none" else choice.allowed

    def namespaces(self) -> dict[str, tuple[str, str]]:
        """What the model calls the tools that are in one, and their own names."""
        return {
            flat_name(namespace, tool.name): (namespace, tool.name)
            for namespace, tool in functions_of(self.tools)
            if namespace
        }

    def constraints(self) -> tuple[Constraint, ...]:
        """A forced call leaves no text of which anything else could be asked."""
        if (calling := self.tool_choice.calling).forced:
            return (Constraint("calls", "tool_choice", calling.name),)
        return (*self.text.constraints(), *super().constraints())

    def echo(self) -> Echo:
        form = self.text.format
        return Echo(
            instructions=self.instructions,
            max_output_tokens=unlimited(self.max_output_tokens),
            metadata=self.metadata,
            parallel_tool_calls=self.parallel_tool_calls,
            previous_response_id=self.previous_response_id,
            reasoning={"effort": self.reasoning.effort, "summary": self.reasoning.summarized},
            store=self.store,
            temperature=self.temperature,
            text={"format": form.written() if form else {"type": "text"}},
            tool_choice=self.tool_choice.said,
            tools=written(self.tools),
            top_p=self.top_p,
        )


def understand(store: Store, tenant: str, raw: dict[str, Any], served: str) -> Call:
    """Raises `BadRequest` naming the field that is wrong, also where it names what is not there."""
    body = read(ResponsesBody, raw, REFUSED)
    head = Head.new("resp_", served)
    before = _before(store, tenant, body.previous_response_id)
    said = _said(store, tenant, body.input)
    request = to_request(body, head.id, [*_read(before.values()), *said])

    def keep(response: ResponseOut) -> None:
        store.keep(tenant, head.id, _kept(response, before, said))

    encoder = Encoder(
        head,
        body.echo(),
        summary=body.reasoning.summarized is not None,
        namespaces=body.namespaces(),
        keep=keep if body.store else forget,
    )
    dialect = replace(OPENAI, broken=encoder.broken, ping=encoder.ping)
    return Call((request,), encoder, body.stream, body.resumable, dialect)


def understand_prompt(store: Store, tenant: str, raw: dict[str, Any]) -> GenerationRequest:
    """Raises as `understand`."""
    body = read(ResponsesBody, raw, REFUSED)
    before = _before(store, tenant, body.previous_response_id)
    return to_request(body, "", [*_read(before.values()), *_said(store, tenant, body.input)])


async def _count(models: Models, request: GenerationRequest) -> InputTokens:
    return InputTokens(await models.count(request))


def to_request(body: ResponsesBody, id: str, items: Sequence[Said]) -> GenerationRequest:
    """`items` are the whole conversation. Raises `BadRequest` where there is none."""
    system = [Message("system", body.instructions)] if body.instructions else []
    messages = (*system, *messages_of(items))
    if not messages:
        raise BadRequest("input: there is nothing to answer.", "input")
    return GenerationRequest(
        id=id,
        messages=messages,
        tools=body.offered(),
        allowed=body.allowed(),
        parallel_calls=body.parallel_tool_calls,
        thinking=body.wants_thoughts(),
        thinking_budget=body.most_thoughts(),
        template_kwargs=body.chat_template_kwargs,
        max_tokens=unlimited(body.max_output_tokens or body.max_tokens),
        **body.shared(),
    )


def _before(store: Store, tenant: str, previous: str | None) -> Mapping[str, bytes]:
    """The items of the conversation that a request goes on with."""
    if not previous:
        return {}
    try:
        return store.find(tenant, previous).items
    except UnknownResponse as unknown:
        message = f"previous_response_id: {unknown.message}"
        raise UnknownPrevious(message, "previous_response_id") from None


def _said(store: Store, tenant: str, items: Iterable[Said | Reference]) -> list[Said]:
    """Items, those that are referred to among them."""
    said: list[Said] = []
    size = 0
    for item in items:
        if isinstance(item, Reference):
            kept = _referred(store, tenant, item)
            size += len(kept)
            if size > MAX_BODY:  # a few bytes each time stand for them
                most = MAX_BODY >> 20
                raise BadRequest(f"input: what it refers to is more than {most} MiB.", "input")
            said += _read([kept])
        else:
            said.append(item)
    return said


def _referred(store: Store, tenant: str, reference: Reference) -> bytes:
    try:
        return store.find(tenant, response_of(reference.id)).items[reference.id]
    except (UnknownResponse, KeyError):
        message = "input: there is no stored item of an id that is referred to."
        raise UnknownItem(message, "input") from None


def _read(kept: Iterable[bytes]) -> list[Said]:
    """Items as they were sent, of those that were kept."""
    items = [msgspec.json.decode(item) for item in kept]
    return validate(Items, {"items": items}).items


def _kept(response: ResponseOut, before: Mapping[str, bytes], said: Sequence[Said]) -> Kept:
    """What is to be kept of a conversation that has gone on."""
    inputs = dict(before)
    for place, item in enumerate(said):
        out = item.written(response.id, f"in{place}")
        inputs[out.id] = msgspec.json.encode(out)
    output = {item.id: msgspec.json.encode(item) for item in response.output}
    return Kept(msgspec.json.encode(response), {**inputs, **output}, len(inputs))


OPERATIONS: Final = (
    generation(
        "/v1/responses",
        "A conversation continued by the model, which remembers it",
        partial(schema, ResponsesBody, REFUSED),
        ResponseOut,
        Event,
    ),
    Operation(
        "/v1/responses/input_tokens",
        "How many tokens a conversation is to the model",
        {200: {JSON: InputTokens}},
        (400, 404, 408, 413, 429, 500, 503),
        partial(schema, ResponsesBody, REFUSED),
        methods=("post",),
    ),
)
