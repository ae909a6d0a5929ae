"""`POST /v1/embeddings`: texts or token ids, each of which becomes a vector.

Body -> `EmbeddingRequest`, vectors -> answer. Pure but for its route. Numbers are a list, or for
who asks for base64, as OpenAI's own client does, the bytes of 32-bit floats.
"""

from base64 import b64encode
from functools import partial
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BeforeValidator, Field, WithJsonSchema

from api.body import INT32, WireModel, Word, read
from api.document import JSON, Operation, body_schema
from api.embedding import MAX_INPUTS, Meant, as_json, each, embed
from api.keep_alive import KeepAlive
from api.openai.prompts import Prompt, prompts, schema
from inference import EmbeddingRequest, Embeddings

Format = Literal["float", "base64"]

router = APIRouter()


@router.post("/v1/embeddings")
async def create(http: Request) -> Response:
    return await embed(http, "embeddings", understand)


class EmbeddingBody(WireModel):
    input: Annotated[
        tuple[Prompt, ...],
        Field(max_length=MAX_INPUTS),
        BeforeValidator(partial(prompts, most=MAX_INPUTS)),
        WithJsonSchema(schema(MAX_INPUTS)),
    ]
    model: Word | None = None
    encoding_format: Format = "float"
    dimensions: Annotated[int, Field(ge=1, le=INT32)] | None = None
    timeout: Annotated[float, Field(gt=0, le=86_400)] | None = None
    keep_alive: KeepAlive | None = None


class Embedding(msgspec.Struct):
    index: int
    embedding: list[float] | str
    object: str = "embedding"


class EmbeddingUsage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct):
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
    object: str = "list"


def understand(raw: dict[str, Any], served: str) -> Meant:
    """Raises `BadRequest` naming the field that is wrong."""
    body = read(EmbeddingBody, raw, {})
    request = EmbeddingRequest(
        inputs=body.input,
        model=body.model or None,
        dimensions=body.dimensions,
        deadline=body.timeout,
        keep_alive=body.keep_alive,
    )
    return request, partial(written, model=served, form=body.encoding_format)


async def written(made: Embeddings, model: str, form: Format) -> EmbeddingList:
    vectors: list[Any] = await each(made.vectors, _text if form == "base64" else as_json)
    usage = EmbeddingUsage(made.prompt_tokens, made.prompt_tokens)
    return EmbeddingList([Embedding(*numbered) for numbered in enumerate(vectors)], model, usage)


def _text(vector: bytes) -> str:
    return b64encode(vector).decode()


OPERATIONS: Final = (
    Operation(
        "/v1/embeddings",
        "A vector for each text",
        {200: {JSON: EmbeddingList}},
        (400, 404, 408, 413, 429, 500, 503),
        partial(body_schema, EmbeddingBody, {}),
        methods=("post",),
    ),
)
