"""`POST /v1/completions`: prompts as they are, without a chat template.

Body -> one `GenerationRequest` per prompt; events -> chunks or one answer. Both are pure. Choice
j of prompt i has index i * n + j, as in OpenAI's API reference.
"""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BeforeValidator, Field, WithJsonSchema

from api.body import INT32, MAX_BODY, Text
from api.folding import Answer
from api.openai.common import (
    GenerationBody,
    TokenId,
    generation,
    read,
    schema,
    unlimited,
)
from api.openai.replies import Head, Reply, ReplyEncoder
from api.streaming import Call, answer
from inference import (
    Finished,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    TextDelta,
)

REFUSED: Final[Mapping[str, tuple[Any, ...]]] = {
    "echo": (False,),
    "logprobs": (),
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


def understand(raw: dict[str, Any], served: str) -> Call:
    """Raises `BadRequest` naming the field that is wrong."""
    body = read(CompletionBody, raw, REFUSED)
    head = Head.new("cmpl-", served)
    include_usage = bool(body.stream_options.include_usage)
    encoder = Encoder(head, body.n, include_usage)
    return Call(to_requests(body, head.id), encoder, body.stream, body.resumable)


def to_requests(body: CompletionBody, id: str) -> tuple[GenerationRequest, ...]:
    return tuple(
        GenerationRequest(
            id=id,
            prompt=prompt,
            max_tokens=unlimited(body.max_tokens),
            **body.shared(),
        )
        for prompt in body.prompt
    )


class TextChoice(msgspec.Struct):
    index: int
    text: str
    finish_reason: FinishReason | None = None
    logprobs: None = None


class Encoder(ReplyEncoder):
    chunk = whole = "text_completion"

    def encode(self, event: GenerationEvent) -> list[bytes]:
        match event:
            case TextDelta(index, text):
                return self._said(TextChoice(index, text))
            case Finished(index, reason):
                return self._ended(TextChoice(index, "", reason), event)
        return []

    def _choice(self, answer: Answer) -> TextChoice:
        return TextChoice(answer.end.index, answer.text, answer.end.reason)


OPERATIONS: Final = (
    generation(
        "/v1/completions",
        "Prompts continued, without a template",
        partial(schema, CompletionBody, REFUSED),
        Reply[TextChoice],
        Reply[TextChoice],
    ),
)
