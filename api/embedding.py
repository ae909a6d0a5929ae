"""Carries vectors to the client that asked for them: understood, made, written.

Like `api.streaming` it is counted, kept to its tenant, and given up when its client hangs up.
Knows no dialect.
"""

import asyncio
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final, TypeVar
from uuid import uuid4

import msgspec
from fastapi import Request, Response

from api.body import read_object
from api.json_reply import JsonReply
from api.metrics import Meter
from api.streaming import metered, unless_gone
from inference import EmbeddingRequest, Embeddings, Models

MAX_INPUTS: Final = 2048  # as OpenAI's
_NUMBER: Final = 24  # bytes here of a number of a vector: four, and as many as it takes to write it

Meant = tuple[EmbeddingRequest, Callable[[Embeddings], Awaitable[object]]]
Written = TypeVar("Written")


async def embed(
    http: Request, endpoint: str, understand: Callable[[dict[str, Any], str], Meant | Response]
) -> Response:
    """Serve one request; `understand(body, name_of_the_model)` speaks the dialect: what is asked
    for and how vectors become JSON, or the answer itself where there is nothing to make."""
    models: Models = http.app.state.models

    async def reply(meter: Meter) -> Response:
        body = await read_object(http, meter.hold)
        meant = understand(body, models.name_of(body.get("model")))
        if isinstance(meant, Response):
            meter.end(200)
            return meant
        asked, written = meant
        info = (await models.described(asked.model)).info
        length = asked.dimensions or (info.dimensions if info else 0)
        meter.hold(len(asked.inputs) * length * _NUMBER)
        request = replace(asked, id=f"embd-{uuid4().hex}", tenant=http.state.tenant)
        answer = await written(await unless_gone(http, models.embed(request)))
        response = JsonReply(answer)
        meter.end(200)
        return response

    return await metered(http, endpoint, reply)


async def each(vectors: tuple[bytes, ...], written: Callable[[bytes], Written]) -> list[Written]:
    """All vectors as they are written. Millions of numbers take a while: others have their turn
    between two vectors."""
    done = []
    for vector in vectors:
        done.append(written(vector))
        await asyncio.sleep(0)
    return done


def as_json(vector: bytes) -> msgspec.Raw:
    """A vector as a list of numbers, which is JSON already."""
    numbers = struct.unpack(f"<{len(vector) // 4}f", vector)
    return msgspec.Raw(msgspec.json.encode(numbers))
