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

from api.folding import Answer
from api.openai.common import (
    GenerationBody,
    generation,
    read,
    schema,
    unlimited,
)
from api.openai.prompts import Prompt, prompts
from api.openai.prompts import schema as prompts_schema
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
