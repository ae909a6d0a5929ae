"""Answers a request for vectors, whatever its dialect: understood, made, written.

Like `api.streaming` it is counted, kept to its tenant, and given up when its client hangs up.
Knows no dialect.
"""

import asyncio
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final, TypeVar

import msgspec
from fastapi import Request, Response

from api.body import read_object
from api.metrics import Meter
from api.streaming import metered, unless_gone
from inference import EmbeddingRequest, Embeddings, Pool

MAX_INPUTS: Final = 2048  # as OpenAI's

Write = Callable[[Embeddings], Awaitable[object]]
Understand = Callable[[dict[str, Any]], tuple[EmbeddingRequest, Write] | Response]
Written = TypeVar("Written")


async def answer(http: Request, endpoint: str, understand: Understand) -> Response:
    """Serve one request; `understand` speaks the dialect: what to make and how it is written as
    JSON, or the answer itself where there is nothing to make."""
    pool: Pool = http.app.state.pool

    async def reply(meter: Meter) -> Response:
        meant = understand(await read_object(http, meter.hold))
        if isinstance(meant, Response):
            meter.end(200)
            return meant
        request, write = meant
        request = replace(request, tenant=http.state.tenant)
        made = await unless_gone(http, pool.embed(request))
        body = msgspec.json.encode(await write(made))
        meter.end(200)
        return Response(body, media_type="application/json")

    return await metered(http, endpoint, reply)


def numbers(vector: bytes) -> tuple[float, ...]:
    """The 32-bit floats of a vector."""
    return struct.unpack(f"<{len(vector) // 4}f", vector)


async def each(vectors: tuple[bytes, ...], write: Callable[[bytes], Written]) -> list[Written]:
    """Every vector as `write` has it. Millions of numbers take a while to write: others have their
    turn between two vectors."""
    written = []
    for vector in vectors:
        written.append(write(vector))
        await asyncio.sleep(0)
    return written


def as_json(vector: bytes) -> msgspec.Raw:
    """A vector as a list of numbers, written already."""
    return msgspec.Raw(msgspec.json.encode(numbers(vector)))
