"""`POST /v1/completions`: prompts as they are, without a chat template.

Body -> one `GenerationRequest` per prompt; events -> chunks or one answer. Both are pure. Choice
j of prompt i has index i * n + j, as in OpenAI's API reference.
"""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Final, Self

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec import UNSET, UnsetType
from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from api.body import INT32, MAX_BODY, Text
from api.openai.common import (
    FINGERPRINT,
    GenerationBody,
    Head,
    Timings,
    TokenId,
    Usage,
    generation,
    read,
    schema,
    unlimited,
)
from api.openai.errors import DONE, framed
from api.openai.logprobs import Alternatives, TextLogprobs
from api.streaming import Call, answer
from inference import (
    BadRequest,
    Finished,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    TextDelta,
)

REFUSED: Final[Mapping[str, tuple[Any, ...]]] = {
    "suffix": ("",),
}
MAX_PROMPTS: Final = 32
Prompt = Text | Annotated[tuple[TokenId, ...], Field(max_length=MAX_BODY)]

_TOKEN: Final = {"type": "integer", "minimum": 0, "maximum": INT32}
_ONE_PROMPT: Final = (
    {"type": "string", "minLength": 1, "maxLength": MAX_BODY},
    {"type": "array", "items": _TOKEN, "minItems": 1, "maxItems": MAX_BODY},
)
_SEVERAL_PROMPTS: Final = {
    "type": "array",
    "items": {"anyOf": _ONE_PROMPT},
    "minItems": 1,
    "maxItems": MAX_PROMPTS,
}
NOTHING_OF_A_PROMPT: Final[dict[str, Any]] = {
    "anyOf": [
        {"properties": {"echo": {"enum": [True, "true"]}}, "required": ["echo"]},
        {"properties": {"max_tokens": {"not": {"const": 0}}}},
    ]
}

router = APIRouter()


@router.post("/v1/completions")
async def create(http: Request) -> Response:
    return await answer(http, "completions", understand)


def _prompts(value: Any) -> tuple[Prompt, ...]:
    """The four ways to write prompts: a text, a list of texts, token ids, a list of those."""
    single = isinstance(value, str) or (isinstance(value, list) and _is_tokens(value))
    several = [value] if single else value
    if not isinstance(several, list) or not 1 <= len(several) <= MAX_PROMPTS:
        raise ValueError(f"Input should be a text, token ids or a list of 1 to {MAX_PROMPTS} such")
    if not all(prompt and (isinstance(prompt, str) or _is_tokens(prompt)) for prompt in several):
        raise ValueError("Every prompt should be a text or a list of token ids, and not empty")
    return tuple(p if isinstance(p, str) else tuple(p) for p in several)


def _is_tokens(value: Any) -> bool:
    tokens = isinstance(value, list) and value
    return bool(tokens) and all(type(t) is int and 0 <= t <= INT32 for t in value)


class CompletionBody(GenerationBody):
    prompt: Annotated[
        tuple[Prompt, ...],
        Field(max_length=MAX_PROMPTS),
        BeforeValidator(_prompts),
        WithJsonSchema({"anyOf": [*_ONE_PROMPT, _SEVERAL_PROMPTS]}),
    ]
    max_tokens: Annotated[int, Field(ge=-1, le=INT32)] | None = None
    echo: bool = False
    logprobs: Alternatives | None = None

    model_config = ConfigDict(json_schema_extra=NOTHING_OF_A_PROMPT)

    @model_validator(mode="after")
    def _some_tokens(self) -> Self:
        if self.max_tokens == 0 and not self.echo:
            raise BadRequest(
                "max_tokens has to be at least 1, or -1 for no limit, unless there is an echo.",
                "max_tokens",
            )
        return self


def understand(raw: dict[str, Any], served: str) -> Call:
    """Raises `BadRequest` naming the field that is wrong."""
    body = read(CompletionBody, raw, REFUSED)
    head = Head.new("cmpl", served)
    include_usage = bool(body.stream_options.include_usage)
    encoder = Encoder(head, body.n, include_usage)
    return Call(to_requests(body, head.id), encoder, body.stream, body.resumable)


def to_requests(body: CompletionBody, id: str) -> tuple[GenerationRequest, ...]:
    return tuple(
        GenerationRequest(
            id=id,
            prompt=prompt,
            max_tokens=unlimited(body.max_tokens),
            echo=body.echo,
            logprobs=body.logprobs,
            **body.shared(),
        )
        for prompt in body.prompt
    )


class TextChoice(msgspec.Struct):
    index: int
    text: str
    finish_reason: FinishReason | None = None
    logprobs: TextLogprobs | None = None


class TextReply(msgspec.Struct):
    id: str
    created: int
    model: str
    choices: list[TextChoice]
    object: str = "text_completion"
    system_fingerprint: str = FINGERPRINT
    usage: Usage | UnsetType = UNSET
    timings: Timings | UnsetType = UNSET


class Encoder:
    """Writes the events of one body's prompts with `n` choices each."""

    def __init__(self, head: Head, n: int, include_usage: bool) -> None:
        self._head = head
        self._n = n
        self._include_usage = include_usage
        self._ends: list[Finished] = []

    def encode(self, event: GenerationEvent) -> list[bytes]:
        match event:
            case TextDelta(index, text, logprobs):
                told = TextLogprobs.of(logprobs) if logprobs else None
                return [framed(self._reply([TextChoice(index, text, logprobs=told)]))]
            case Finished(index, reason):
                self._ends.append(event)
                reply = self._reply([TextChoice(index, "", reason)])
                reply.timings = Timings.of(event)
                return [framed(reply)]
        return []

    def close(self) -> list[bytes]:
        if not self._include_usage:
            return [DONE]
        reply = self._reply([])
        reply.usage = Usage.of(self._ends, self._n)
        return [framed(reply), DONE]

    def fold(self, events: list[GenerationEvent]) -> bytes:
        ends = sorted((e for e in events if isinstance(e, Finished)), key=lambda end: end.index)
        deltas: list[list[TextDelta]] = [[] for _ in ends]
        for event in events:
            if isinstance(event, TextDelta):
                deltas[event.index].append(event)
        reply = self._reply([_whole(*both) for both in zip(ends, deltas, strict=True)])
        reply.usage = Usage.of(ends, self._n)
        reply.timings = Timings.of(ends[0])
        return msgspec.json.encode(reply)

    def _reply(self, choices: list[TextChoice]) -> TextReply:
        return TextReply(self._head.id, self._head.created, self._head.model, choices)


def _whole(end: Finished, deltas: list[TextDelta]) -> TextChoice:
    text = "".join(delta.text for delta in deltas)
    logprobs = tuple(one for delta in deltas for one in delta.logprobs)
    return TextChoice(end.index, text, end.reason, TextLogprobs.of(logprobs) if logprobs else None)


OPERATIONS: Final = (
    generation(
        "/v1/completions",
        "Prompts continued, without a template",
        partial(schema, CompletionBody, REFUSED),
        TextReply,
        TextReply,
    ),
)
