"""`POST /api/embed`, and `/api/embeddings` as it was before: texts, each of which becomes a vector.

Body -> `EmbeddingRequest`, vectors -> answer. Pure but for its routes. As at Ollama's, vectors of
the first have length 1, those of the second are as the model made them, and without a text the
answer is empty. `options` are ignored.
"""

from functools import partial
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BeforeValidator, Field, WithJsonSchema

from api.body import INT32, Text, WireModel, Word, read
from api.document import JSON, Operation, body_schema
from api.embedding import MAX_INPUTS, Meant, as_json, each, embed
from api.fields import STRING
from api.json_reply import JsonReply
from api.keep_alive import KeepAlive
from inference import EmbeddingRequest, Embeddings

_TEXTS: Final = {"type": "array", "items": STRING, "maxItems": MAX_INPUTS}

router = APIRouter()


@router.post("/api/embed")
async def create(http: Request) -> Response:
    return await embed(http, "ollama_embed", understand)


@router.post("/api/embeddings")
async def create_one(http: Request) -> Response:
    return await embed(http, "ollama_embeddings", understand_one)


def _texts(texts: Any) -> Any:
    if isinstance(texts, str):
        return (texts,) if texts else ()
    return tuple(texts) if isinstance(texts, list) else texts


class EmbedAsked(WireModel):
    model: Word | None = None
    input: Annotated[
        tuple[Text, ...],
        Field(max_length=MAX_INPUTS),
        BeforeValidator(_texts),
        WithJsonSchema({"anyOf": [STRING, _TEXTS]}),
    ] = ()
    truncate: bool = True
    dimensions: Annotated[int, Field(ge=0, le=INT32)] = 0
    keep_alive: KeepAlive | None = None


class EmbeddingsAsked(WireModel):
    model: Word | None = None
    prompt: Text = ""
    keep_alive: KeepAlive | None = None


class EmbedReply(msgspec.Struct):
    """Durations in nanoseconds."""

    model: str
    embeddings: list[list[float]]
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0


class EmbeddingsReply(msgspec.Struct):
    embedding: list[float]


def understand(raw: dict[str, Any], served: str) -> Meant | Response:
    """Raises `BadRequest` naming the field that is wrong."""
    body = read(EmbedAsked, raw, {})
    if not body.input:
        return _empty(EmbedReply(body.model or served, []))
    request = EmbeddingRequest(
        inputs=body.input,
        model=body.model or None,
        dimensions=body.dimensions or None,
        truncate=body.truncate,
        keep_alive=body.keep_alive,
    )
    return request, partial(_all, model=body.model or served)


def understand_one(raw: dict[str, Any], _: str) -> Meant | Response:
    """Raises `BadRequest` naming the field that is wrong."""
    body = read(EmbeddingsAsked, raw, {})
    if not body.prompt:
        return _empty(EmbeddingsReply([]))
    request = EmbeddingRequest(
        inputs=(body.prompt,),
        model=body.model or None,
        normalised=False,
        keep_alive=body.keep_alive,
    )
    return request, _one


async def _all(made: Embeddings, model: str) -> EmbedReply:
    vectors: list[Any] = await each(made.vectors, as_json)
    total, load = (round(seconds * 1e9) for seconds in (made.load + made.seconds, made.load))
    return EmbedReply(model, vectors, total, load, made.prompt_tokens)


async def _one(made: Embeddings) -> EmbeddingsReply:
    vectors: list[Any] = await each(made.vectors, as_json)
    return EmbeddingsReply(vectors[0])


def _empty(answer: EmbedReply | EmbeddingsReply) -> Response:
    return JsonReply(answer)


def _operation(path: str, summary: str, body: type[WireModel], answer: type) -> Operation:
    return Operation(
        path,
        summary,
        {200: {JSON: answer}},
        (400, 404, 408, 413, 429, 500, 503),
        partial(body_schema, body, {}),
        methods=("post",),
    )


OPERATIONS: Final = (
    _operation("/api/embed", "A vector for each text, in Ollama's way", EmbedAsked, EmbedReply),
    _operation(
        "/api/embeddings", "The vector of a text, in its old way", EmbeddingsAsked, EmbeddingsReply
    ),
)
