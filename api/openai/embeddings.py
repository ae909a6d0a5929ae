"""`POST /v1/embeddings`: texts or token ids, each of which becomes a vector.

Body -> `EmbeddingRequest`, vectors -> answer. Pure but for its route. A client that does not say
how it wants numbers to be written gets them as a list; OpenAI's own asks for base64.
"""

import base64
from functools import partial
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BeforeValidator, Field, WithJsonSchema

from api import embedding
from api.body import INT32, MAX_BODY, Text, WireModel, Word, read
from api.document import JSON, Operation, body_schema
from api.embedding import MAX_INPUTS, Write
from api.openai.common import TokenId
from inference import EmbeddingRequest, Embeddings

Format = Literal["float", "base64"]
Input = Text | Annotated[tuple[TokenId, ...], Field(max_length=MAX_BODY)]

_TOKEN: Final = {"type": "integer", "minimum": 0, "maximum": INT32}
_ONE: Final = (
    {"type": "string", "minLength": 1, "maxLength": MAX_BODY},
    {"type": "array", "items": _TOKEN, "minItems": 1, "maxItems": MAX_BODY},
)
_SEVERAL: Final = {
    "type": "array",
    "items": {"anyOf": _ONE},
    "minItems": 1,
    "maxItems": MAX_INPUTS,
}

router = APIRouter()


@router.post("/v1/embeddings")
async def create(http: Request) -> Response:
    served = http.app.state.pool.status().name
    return await embedding.answer(http, "embeddings", partial(understand, served=served))
