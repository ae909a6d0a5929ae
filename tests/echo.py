"""A WebSocket that says what it hears, for tests of what is around one, and hands that speak raw
frames to it."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, WebSocket
from websockets.asyncio.client import connect
from websockets.utils import apply_mask

from inference import InferenceError
from tests.fake_pool import FakePool, served

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

room = APIRouter()


@room.websocket("/ws/echo")
async def echo(socket: WebSocket) -> None:
    """Says what it hears; some words are orders."""
    await socket.accept()
    async for text in socket.iter_text():
        if text == "break":
            raise ZeroDivisionError
        if text == "leave":
            return
        if text == "sleep":  # and be deaf
            await asyncio.sleep(0.5)
        if text == "flood":
            while True:
                await socket.send_text("x" * (16 << 10))
        await socket.send_text(text)


@room.websocket("/ws/answer")
async def answer(socket: WebSocket) -> None:
    """Each message is a turn, which lasts until the next."""
    await socket.accept()
    async for text in socket.iter_text():
        try:
            with socket.state.answering():
                await socket.send_text("begun")
                await socket.receive_text()
                await socket.send_text(f"done {text}")
        except InferenceError as error:
            await socket.send_text(error.code)


@room.websocket("/ws/last")
async def last(socket: WebSocket) -> None:
    """A turn until the models end, which still says so."""
    await socket.accept()
    with socket.state.answering():
        await socket.send_text("begun")
        while socket.app.state.models.status().state != "stopped":
            await asyncio.sleep(0.01)
        await socket.send_text("it has ended")
    await socket.receive()


@room.websocket("/api/v1/me/socket")
async def whose(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_json([socket.state.tenant, socket.state.admin, str(socket.query_params)])


@asynccontextmanager
async def hearing(pool: Any = None, **how: Any) -> AsyncIterator[tuple[str, Any]]:
    """The address of a server with these, beginning with ws://, and the server."""
    async with served(pool or FakePool(), rooms=(room,), **how) as (url, server):
        yield url.replace("http", "ws", 1), server


def talk(url: str, path: str = "/ws/echo", **how: Any) -> Any:
    return connect(url + path, proxy=None, **how)


def frame(
    opcode: int, payload: bytes = b"", *, whole: bool = True, size: int | None = None
) -> bytes:
    """One frame as clients send it, masked; `size` is what it says of itself."""
    length = len(payload) if size is None else size
    if length < 126:
        head = struct.pack("!BB", opcode | whole << 7, 128 | length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", opcode | whole << 7, 128 | 126, length)
    else:
        head = struct.pack("!BBQ", opcode | whole << 7, 128 | 127, length)
    key = b"\x01\x02\x03\x04"
    return head + key + apply_mask(payload, key)


def upgrade(path: str = "/ws/echo", *headers: str) -> bytes:
    """A handshake; a header that is among `headers` is not there twice."""
    names = {header.partition(":")[0].lower() for header in headers}
    usual = (
        "Host: localhost",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
    )
    kept = [header for header in usual if header.partition(":")[0].lower() not in names]
    return "\r\n".join((f"GET {path} HTTP/1.1", *kept, *headers, "", "")).encode("latin-1")


class Raw:
    """A connection on which no library speaks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *pieces: bytes) -> None:
        self.writer.write(b"".join(pieces))

    async def head(self) -> str:
        return (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()

    async def frame(self) -> tuple[int, bytes]:
        first, second = await self.reader.readexactly(2)
        length = second
        if second == 126:
            [length] = struct.unpack("!H", await self.reader.readexactly(2))
        elif second == 127:
            [length] = struct.unpack("!Q", await self.reader.readexactly(8))
        return first & 15, await self.reader.readexactly(length)

    async def code(self) -> int:
        """Of the close frame that is next but for pings, after which nothing comes."""
        opcode, payload = await self.frame()
        while opcode in (PING, PONG):
            opcode, payload = await self.frame()
        assert opcode == CLOSE, (opcode, payload)
        self.send(frame(CLOSE, payload[:2]))
        assert await self.reader.read() == b""
        return int.from_bytes(payload[:2])


@asynccontextmanager
async def raw(url: str, *opening: bytes) -> AsyncIterator[Raw]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    one = Raw(reader, writer)
    one.send(*opening)
    try:
        async with asyncio.timeout(20):
            yield one
    finally:
        writer.close()


@asynccontextmanager
async def opened(url: str, path: str = "/ws/echo", *headers: str) -> AsyncIterator[Raw]:
    """A raw connection on which the handshake was made."""
    async with raw(url, upgrade(path, *headers)) as one:
        assert " 101 " in await one.head()
        yield one


async def answer_to(url: str, request: bytes) -> str:
    """All that is said to a request until the server closes, in lower case."""
    async with raw(url, request) as one:
        return (await one.reader.read()).decode().lower()
