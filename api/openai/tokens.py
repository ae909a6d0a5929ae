"""`POST /tokenize` and `/detokenize`: what a prompt is to the model, in vLLM's shape.

A prompt is a text as it is, or a conversation, which the model's template renders as it would for
`/v1/chat/completions`.
"""

from functools import partial
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import Field

from api.asking import ask
from api.body import MAX_BODY, Text, WireModel, Word, read
from api.document import JSON, Operation, body_schema
from api.openai import chat, common
from api.openai.chat import ChatBody, MessageBody
from api.openai.common import TokenId
from inference import BadRequest, GenerationRequest, Models

router = APIRouter()


@router.post("/tokenize")
async def tokenize(http: Request) -> Response:
    return await ask(http, "tokenize", understand, _tokens)


@router.post("/detokenize")
async def detokenize(http: Request) -> Response:
    return await ask(http, "detokenize", understand_tokens, _text)


class TokenizeBody(ChatBody):
    """Of the fields of a chat those count that make a prompt."""

    messages: list[MessageBody] = Field([], max_length=2048)
    prompt: Text | None = None


class DetokenizeBody(WireModel):
    model: Word | None = None
    tokens: Annotated[list[TokenId], Field(min_length=1, max_length=MAX_BODY)]


class Tokenized(msgspec.Struct):
    """`max_model_len` is null until the model is loaded."""

    count: int
    max_model_len: int | None
    tokens: list[int]


class Detokenized(msgspec.Struct):
    prompt: str


def understand(raw: dict[str, Any]) -> GenerationRequest:
    """Raises `BadRequest` naming the field that is wrong."""
    body = common.read(TokenizeBody, raw, chat.REFUSED)
    if (body.prompt is None) == (not body.messages):
        raise BadRequest("prompt: give either a prompt or messages.", "prompt")
    if body.prompt is None:
        return chat.to_request(body, "")
    return GenerationRequest(id="", model=body.served(), prompt=body.prompt)


def understand_tokens(raw: dict[str, Any]) -> GenerationRequest:
    """Raises `BadRequest` naming the field that is wrong."""
    body = read(DetokenizeBody, raw, {})
    return GenerationRequest(id="", model=body.model or None, prompt=tuple(body.tokens))


async def _tokens(models: Models, request: GenerationRequest) -> Tokenized:
    tokens = await models.tokenize(request)
    info = models.status(request.model).info
    return Tokenized(len(tokens), info.context if info else None, tokens)


async def _text(models: Models, request: GenerationRequest) -> Detokenized:
    return Detokenized(await models.detokenize(request))


_REFUSALS: Final = (400, 404, 408, 413, 429, 500, 503)
OPERATIONS: Final = (
    Operation(
        "/tokenize",
        "The tokens of a prompt or of a conversation",
        {200: {JSON: Tokenized}},
        _REFUSALS,
        partial(common.schema, TokenizeBody, chat.REFUSED),
        methods=("post",),
    ),
    Operation(
        "/detokenize",
        "The text of tokens",
        {200: {JSON: Detokenized}},
        _REFUSALS,
        partial(body_schema, DetokenizeBody, {}),
        methods=("post",),
    ),
)
