"""Load on an OpenAI-compatible server, and what its clients saw of it.

`python -m benchmarks.load URL [URL ...]` runs the same workload against every server in turn,
round by round, so that a drift of the machine hits all of them. Prompts are random token ids, no
two alike, sent to `/v1/completions`; token counts come from the server's own `usage`.
"""

import asyncio
import json
import random
import statistics
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

VOCABULARY = 100_000  # ids below this are ordinary tokens in the synthetic models


@dataclass(frozen=True, slots=True)
class Shape:
    """`streams` clients at once, `requests` in all, prompt and answer lengths in tokens."""

    streams: int
    requests: int
    prompt: int
    answer: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: seconds of the clock, tokens by the server's count, cached prompt tokens."""

    sent: float
    chunks: tuple[float, ...]
    tokens: int
    cached: int

    @property
    def ttft(self) -> float:
        return self.chunks[0] - self.sent

    @property
    def gaps(self) -> list[float]:
        return [b - a for a, b in pairwise(self.chunks)]


async def ask(client: httpx.AsyncClient, url: str, prompt: list[int], answer: int) -> Answer:
    """One streamed completion, greedy, of exactly `answer` tokens."""
    body = {
        "prompt": prompt,
        "max_tokens": answer,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    sent = time.perf_counter()
    chunks: list[float] = []
    usage: dict[str, Any] = {}
    async with client.stream("POST", f"{url}/v1/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk: dict[str, Any] = json.loads(line.removeprefix("data: "))
            if chunk["choices"] and chunk["choices"][0]["text"]:
                chunks.append(time.perf_counter())
            usage = chunk.get("usage") or usage
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    return Answer(sent, tuple(chunks), usage["completion_tokens"], cached)


async def run(url: str, shape: Shape, seed: int) -> tuple[float, list[Answer]]:
    """Run a workload; wall seconds and every answer."""
    rng = random.Random(seed)
    prompts = [
        [rng.randrange(1000, VOCABULARY) for _ in range(shape.prompt)]
        for _ in range(shape.requests)
    ]
    answers: list[Answer] = []
    # A connection for every request: llama-server at times closes one that was kept alive.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=600, limits=limits) as client:

        async def stream() -> None:
            while prompts:
                answers.append(await ask(client, url, prompts.pop(), shape.answer))

        start = time.perf_counter()
        await asyncio.gather(*(stream() for _ in range(shape.streams)))
        return time.perf_counter() - start, answers


def measure(url: str, shape: Shape, seed: int) -> dict[str, float]:
    """Run a workload and sum it up; ends the program with a sentence if the server fails it."""
    try:
        return figures(*asyncio.run(run(url, shape, seed)))
    except httpx.HTTPError as error:
        raise SystemExit(f"{url} failed: {type(error).__name__}: {error}") from None


def figures(seconds: float, answers: list[Answer]) -> dict[str, float]:
    """What a round showed: tokens per second, and milliseconds."""
    gaps = sorted(gap for answer in answers for gap in answer.gaps)
    ttfts = sorted(answer.ttft for answer in answers)
    return {
        "output tok/s": sum(answer.tokens for answer in answers) / seconds,
        "TTFT p50 ms": 1e3 * ttfts[len(ttfts) // 2],
        "TTFT max ms": 1e3 * ttfts[-1],
        "gap p50 ms": 1e3 * gaps[len(gaps) // 2],
        "gap p99 ms": 1e3 * gaps[int(len(gaps) * 0.99)],
        "cached tokens": sum(answer.cached for answer in answers),
    }


def report(rounds: dict[str, list[dict[str, float]]], shape: Shape) -> Table:
    """Medians of every server, and the ratio of the first to each other one."""
    table = Table(title=f"{shape} median of {len(next(iter(rounds.values())))} rounds")
    table.add_column("")
    first, *others = rounds
    for url in rounds:
        table.add_column(url, justify="right")
    for url in others:
        table.add_column(f"first / {url}", justify="right")
    for name in rounds[first][0]:
        medians = {u: statistics.median(r[name] for r in rows) for u, rows in rounds.items()}
        ratios = [f"{medians[first] / medians[u]:.3f}" if medians[u] else "-" for u in others]
        table.add_row(name, *(f"{value:.1f}" for value in medians.values()), *ratios)
    return table


def main(
    urls: Annotated[list[str], typer.Argument(help="Base URLs without /v1")],
    streams: int = 8,
    requests: int = 24,
    prompt: int = 128,
    answer: int = 48,
    rounds: int = 3,
) -> None:
    """Run the same load against every server in turn and print medians and ratios."""
    shape = Shape(streams, requests, prompt, answer)
    results: dict[str, list[dict[str, float]]] = {url: [] for url in urls}
    warm = Shape(streams, streams, prompt, 4)
    for url in urls:
        measure(url, warm, seed=0)
    for number in range(1, rounds + 1):
        for url in urls:
            results[url].append(measure(url, shape, seed=number))
    Console().print(report(results, shape))


if __name__ == "__main__":
    typer.run(main)
