"""How many inputs become vectors in a second: one after the other, as single requests of many
clients, and in one request. The ways take turns, and the median of their rounds counts.

    python -m benchmarks.synthetic 0.6b embedding.gguf --embedding
    python -m benchmarks.embeddings embedding.gguf
"""

import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import run
from inference import EmbeddingRequest, Pool, load_config, prepare

Way = Callable[[Pool, list[tuple[int, ...]]], Awaitable[object]]


async def _alone(pool: Pool, inputs: list[tuple[int, ...]]) -> None:
    for each in inputs:
        await pool.embed(EmbeddingRequest(inputs=(each,)))


async def _clients(pool: Pool, inputs: list[tuple[int, ...]]) -> None:
    await asyncio.gather(*(pool.embed(EmbeddingRequest(inputs=(each,))) for each in inputs))


async def _together(pool: Pool, inputs: list[tuple[int, ...]]) -> None:
    await pool.embed(EmbeddingRequest(inputs=tuple(inputs)))


WAYS: dict[str, Way] = {
    "one after the other": _alone,
    "a request each, at once": _clients,
    "in one request": _together,
}


async def measure(path: Path, count: int, tokens: int, rounds: int) -> dict[str, float]:
    """Inputs per second of every way, for inputs of so many tokens."""
    draw = random.Random(0)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    pool = Pool(prepare(load_config(), str(path), tuned=False))
    await pool.start()
    try:
        await pool.until_ready()
        for _ in range(rounds):
            for name, way in WAYS.items():
                inputs = [tuple(draw.choices(range(300, 900), k=tokens)) for _ in range(count)]
                start = time.perf_counter()
                await way(pool, inputs)
                found[name].append(count / (time.perf_counter() - start))
    finally:
        await pool.close()
    return {name: statistics.median(rates) for name, rates in found.items()}


def main(
    model: Annotated[Path, typer.Argument(help="The GGUF of an embedding model.")],
    count: Annotated[int, typer.Option(min=1, max=256, help="Inputs.")] = 64,
    tokens: Annotated[int, typer.Option(min=1, help="Of an input.")] = 32,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """Measure how fast inputs become vectors."""
    for name, rate in asyncio.run(measure(model, count, tokens, rounds)).items():
        typer.echo(f"{name}: {rate:,.1f} inputs/s, {rate * tokens:,.0f} tokens/s")


if __name__ == "__main__":
    run(main)
