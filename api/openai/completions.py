"""`POST /v1/completions`: prompts as they are, without a chat template.

Body -> one `GenerationRequest` per prompt; events -> chunks or one answer. Both are pure. Choice
j of prompt i has index i * n + j, as in OpenAI's API reference.
"""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Final, Self

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from api.body import INT32
from api.fields import Alternatives
from api.folding import Answer
from api.openai.common import (
    GenerationBody,
    generation,
    read,
    schema,
    unlimited,
)
from api.openai.logprobs import TextLogprobs
from api.openai.prompts import Prompt, prompts
from api.openai.prompts import schema as prompts_schema
from api.openai.replies import Head, Reply, ReplyEncoder
from api.streaming import Call, answer
from inference import (
    BadRequest,
    Finished,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    TextDelta,
    TokenLogprob,
)

REFUSED: Final[Mapping[str, tuple[Any, ...]]] = {
    "suffix": ("",),
}
MAX_PROMPTS: Final = 32
NOTHING_OF_A_PROMPT: Final[dict[str, Any]] = {
    "if": {"properties": {"max_tokens": {"const": 0}}, "required": ["max_tokens"]},
    "then": {"properties": {"echo": {"enum": [True, "true", 1]}}, "required": ["echo"]},
}

router = APIRouter()


@router.post("/v1/completions")
async def create(http: Request) -> Response:
    return await answer(http, "completions", understand)


class CompletionBody(GenerationBody):
    prompt: Annotated[
        tuple[Prompt, ...],
        Field(max_length=MAX_PROMPTS),
        BeforeValidator(partial(prompts, most=MAX_PROMPTS)),
        WithJsonSchema(prompts_schema(MAX_PROMPTS)),
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


class Encoder(ReplyEncoder):
    chunk = whole = "text_completion"

    def encode(self, event: GenerationEvent) -> list[bytes]:
        match event:
            case TextDelta(index, text, logprobs):
                return self._said(TextChoice(index, text, logprobs=_columns(logprobs)))
            case Finished(index, reason):
                return self._ended(TextChoice(index, "", reason), event)
        return []

    def _choice(self, answer: Answer) -> TextChoice:
        columns = _columns(answer.logprobs)
        return TextChoice(answer.end.index, answer.text, answer.end.reason, columns)


def _columns(logprobs: tuple[TokenLogprob, ...]) -> TextLogprobs | None:
    return TextLogprobs.of(logprobs) if logprobs else None


OPERATIONS: Final = (
    generation(
        "/v1/completions",
        "Prompts continued, without a template",
        partial(schema, CompletionBody, REFUSED),
        Reply[TextChoice],
        Reply[TextChoice],
    ),
)
