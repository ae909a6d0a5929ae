"""A conversation in the terminal, with a running server or with a pool in this process.

The prompt waits on the main thread, so Ctrl-C is heard there; answers run on an event loop
beside it and can be stopped alone. Knows how to ask and to print, not how to set a model up.
"""

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import wait
from contextlib import aclosing, asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
from anyio import CancelScope
from anyio.from_thread import BlockingPortal
from rich.console import Console

from inference import (
    GenerationRequest,
    InferenceError,
    Message,
    Pool,
    ReasoningDelta,
    TextDelta,
)

Piece = TextDelta | ReasoningDelta
Ask = Callable[[tuple[Message, ...], bool | None], AsyncGenerator[Piece, None]]
# A model's text is not trusted to steer the terminal.
_NO_CONTROLS = dict.fromkeys({*range(32), *range(127, 160)} - {ord("\t"), ord("\n")})
_TURN = 0.1  # seconds
_COMMANDS = "/exit ends, /clear forgets, /think on|off switches thinking, Ctrl-C stops an answer"


class ServerError(InferenceError):
    """The server that was asked is not there or refused; the message says which."""

    code = "server_error"


def converse(ask: Ask, portal: BlockingPortal, console: Console) -> None:
    """Read lines and print answers until /exit or the end of input."""
    console.print(_COMMANDS, style="dim")
    conversation = Conversation(ask, console)
    while True:
        try:
            line = console.input("[bold]> [/]").strip()
        except KeyboardInterrupt:
            console.print("\n/exit ends the chat.", style="dim")
            continue
        except EOFError:
            return
        if line == "/exit":
            return
        if line.startswith("/"):
            conversation.command(line)
        elif line:
            _answer(conversation, line, portal, console)


def _answer(
    conversation: "Conversation", line: str, portal: BlockingPortal, console: Console
) -> None:
    scope = portal.call(CancelScope)
    answer = portal.start_task_soon(conversation.say, line, scope)
    try:
        try:
            while not wait([answer], _TURN).done:
                pass  # a Ctrl-C right before a wait without end would go unnoticed
            answer.result()
        except KeyboardInterrupt:
            portal.call(scope.cancel)
            answer.result()
            console.print("\n(stopped)", style="dim")
    except InferenceError as error:
        console.print(error.message, style="red")


class Conversation:
    """What was said so far; `ask` continues it."""

    def __init__(self, ask: Ask, console: Console) -> None:
        self._ask = ask
        self._console = console
        self._messages: tuple[Message, ...] = ()
        self._thinking: bool | None = None

    def command(self, line: str) -> None:
        match line.split():
            case ["/clear"]:
                self._messages = ()
            case ["/think", "on" | "off" as switch]:
                self._thinking = switch == "on"
            case _:
                self._console.print(_COMMANDS, style="dim")

    async def say(self, line: str, scope: CancelScope) -> None:
        """Print the answer while it comes; what came before `scope` was cancelled is kept."""
        asked = (*self._messages, Message("user", line))
        said: list[str] = []
        with scope:
            async with aclosing(self._ask(asked, self._thinking)) as pieces:
                await self._print(pieces, said)
        if said:
            self._messages = (*asked, Message("assistant", "".join(said)))

    async def _print(self, pieces: AsyncIterator[Piece], said: list[str]) -> None:
        thought = False
        async for piece in pieces:
            thinks = isinstance(piece, ReasoningDelta)
            if thought and not thinks:
                self._console.print("\n")
            thought = thinks
            if not thinks:
                said.append(piece.text)
            text = piece.text.translate(_NO_CONTROLS)
            self._console.out(text, end="", style="dim" if thinks else None)
        self._console.print()


@asynccontextmanager
async def running(pool: Pool) -> AsyncIterator[None]:
    """`pool`, started and ready. Raises `NotReady` with the reason if it does not load."""
    await pool.start()
    try:
        await pool.until_ready()
        yield
    finally:
        await pool.close()


async def ask_pool(
    pool: Pool, messages: tuple[Message, ...], thinking: bool | None
) -> AsyncGenerator[Piece, None]:
    request = GenerationRequest(id=uuid4().hex, messages=messages, thinking=thinking)
    async with aclosing(pool.generate(request)) as events:
        async for event in events:
            if isinstance(event, Piece):
                yield event


async def ask_server(
    url: str, messages: tuple[Message, ...], thinking: bool | None
) -> AsyncGenerator[Piece, None]:
    """Ask the server at `url` (without /v1), showing the key in ONEBOX_API_KEY.

    Raises `ServerError`.
    """
    body: dict[str, Any] = {
        "messages": [{"role": message.role, "content": message.content} for message in messages],
        "stream": True,
        "enable_thinking": thinking,
    }
    key = os.environ.get("ONEBOX_API_KEY")  # an argument would show in the list of processes
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    timeout = httpx.Timeout(None, connect=10)
    client = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout)
    try:
        async with client, client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.is_error:
                await response.aread()
                raise ServerError(_refusal(response))
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    for piece in _pieces(json.loads(line.removeprefix("data: "))):
                        yield piece
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise ServerError(f"{url} does not answer like a server of ours: {error}") from None


def _refusal(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return f"{response.url} answered {response.status_code} {response.reason_phrase}."


def _pieces(chunk: dict[str, Any]) -> list[Piece]:
    if "error" in chunk:
        raise ServerError(chunk["error"]["message"])
    pieces: list[Piece] = []
    for choice in chunk["choices"]:
        delta = choice["delta"]
        if reasoning := delta.get("reasoning_content"):
            pieces.append(ReasoningDelta(0, reasoning))
        if content := delta.get("content"):
            pieces.append(TextDelta(0, content))
    return pieces
