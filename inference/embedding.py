"""Follows one request for vectors, from what is asked to all that is answered.

Knows neither queue nor worker.
"""

import asyncio

from inference.errors import BadRequest
from inference.journal import Answer
from inference.refusals import expect
from inference.types import EmbeddingRequest, Embeddings
from inference.wire import Accepted, Embed, Vector


def check_kind(name: str, *, is_one: bool, wanted: bool) -> None:
    """Raises BadRequest where an embedding model is asked to answer, or another one for vectors."""
    if is_one and not wanted:
        raise BadRequest(
            f"{name} is an embedding model and gives no answers, only embeddings.", "model"
        )
    if wanted and not is_one:
        raise BadRequest(
            f"{name} is no embedding model, and its embeddings would be poor; serve one that is, "
            "such as qwen3-embedding-0.6b.",
            "model",
        )


def command(id: int, request: EmbeddingRequest) -> Embed:
    return Embed(
        id=id,
        inputs=request.inputs,
        dimensions=request.dimensions,
        truncate=request.truncate,
        normalised=request.normalised,
        deadline=request.deadline,
        tenant=request.tenant,
    )


async def collected(answers: asyncio.Queue[Answer], count: int) -> Embeddings:
    """All `count` vectors, in the order of their inputs. Raises what a refusal says."""
    start = asyncio.get_running_loop().time()
    vectors: dict[int, bytes] = {}
    tokens = 0
    while len(vectors) < count:
        match expect(await answers.get()):
            case Accepted(prompt_tokens=tokens):
                pass
            case Vector(index=index, data=data):
                vectors[index] = data
    seconds = asyncio.get_running_loop().time() - start
    return Embeddings(tuple(vectors[index] for index in range(count)), tokens, seconds)
