"""First tokens on the way that the page goes, a WebSocket and a stored session, one by one;
in turn with the plain way, a stream of `/v1/chat/completions` that has the same history.

    python -m benchmarks.page --count 100

A server with the bundled model is started for it, unless there is one at --url. Exit status 1 says
that an answer did not come, or not in time.
"""

import asyncio
import json
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final

import httpx
import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import ClientConnection, connect

from benchmarks import run
from benchmarks.machine import describe
from benchmarks.processes import onebox

_TURNS: Final = 10  # of a session
_LONGEST: Final = 60.0  # seconds for one answer
_TOKENS: Final = 24
_MESSAGES: Final = (
    "What is the capital of France?",
    "Count from one to ten.",
    "My name is Ada.",
    "What is 7 + 5?",
    "Tell me a story.",
)


@dataclass(slots=True)
class Way:
    """One way to ask, and what came of it: milliseconds to the acknowledgement, to the first token
    and to the end, and answers that took too long or failed."""

    name: str
    stored: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    late: int = 0
    failed: int = 0


def main(
    count: Annotated[int, typer.Option(min=1, help="Requests on each way.")] = 100,
    url: Annotated[str | None, typer.Option(help="A running server, without keys.")] = None,
) -> None:
    """Measure the way of the page, and the plain one beside it."""
    if url:
        ways = asyncio.run(_measure(url, count))
    else:
        with TemporaryDirectory() as folder, onebox(Path(folder)) as (_, started):
            ways = asyncio.run(_measure(started, count))
    _print(ways)
    raise typer.Exit(any(way.late or way.failed for way in ways))


async def _measure(url: str, count: int) -> tuple[Way, Way]:
    page, plain = Way("page"), Way("plain")
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=_LONGEST))
        place = url.replace("http", "ws", 1) + "/ws?protocol=json"
        socket = await stack.enter_async_context(connect(place, proxy=None))
        for number in range(count):
            if number % _TURNS == 0:
                history: list[dict[str, str]] = []
                session = (await client.post("/api/v1/sessions", json={})).json()["id"]
            message = _MESSAGES[number % len(_MESSAGES)]
            history.append({"role": "user", "content": message})
            text = await _in_time(page, _ask_page(page, socket, session, message))
            await _in_time(plain, _ask_plain(plain, client, history))
            history.append({"role": "assistant", "content": text})
    return page, plain


async def _in_time(way: Way, answer: Any) -> str:
    try:
        async with asyncio.timeout(_LONGEST):
            return str(await answer)
    except TimeoutError:
        way.late += 1
    except (httpx.HTTPError, ValueError):
        way.failed += 1
    return ""


async def _ask_page(way: Way, socket: ClientConnection, session: str, message: str) -> str:
    """One turn; raises ValueError if it fails."""
    text, asked = "", time.perf_counter()
    said = {"session_id": session, "message": message, "max_tokens": _TOKENS}
    await socket.send(json.dumps(said))
    async for frame in socket:
        event = json.loads(frame)
        match event["type"]:
            case "start":
                way.stored.append(_since(asked))
            case "text":
                if not text:
                    way.first.append(_since(asked))
                text += event["text"]
            case "error":
                raise ValueError(event["message"])
            case "end":
                way.whole.append(_since(asked))
                break
    return text


async def _ask_plain(way: Way, client: httpx.AsyncClient, history: list[dict[str, str]]) -> str:
    """One answer; raises ValueError or HTTPError if it fails."""
    text, asked = "", time.perf_counter()
    body = {"messages": history, "max_tokens": _TOKENS, "stream": True}
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                raise ValueError(event["error"]["message"])
            if said := event["choices"][0]["delta"].get("content"):
                if not text:
                    way.first.append(_since(asked))
                text += said
    way.whole.append(_since(asked))
    return text


def _since(moment: float) -> float:
    return (time.perf_counter() - moment) * 1e3


def _print(ways: tuple[Way, ...]) -> None:
    table = Table("milliseconds to", "P50", "P90", "P99", "most", "answers", "late", "failed")
    for way in ways:
        for what, times in (
            ("acknowledgement", way.stored),
            ("first token", way.first),
            ("end", way.whole),
        ):
            if times:
                shares = [f"{np.percentile(times, share):.1f}" for share in (50, 90, 99, 100)]
                ends = (len(times), way.late, way.failed)
                table.add_row(f"{way.name}: {what}", *shares, *map(str, ends))
    console = Console()
    console.print(table)
    for name, value in describe().items():
        console.print(f"{name}: {value}")


if __name__ == "__main__":
    run(main)
