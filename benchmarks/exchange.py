"""One shot at a server: the bytes of a connection, and what came back, taken apart by h11.

Other clients would refuse to send what is sent here. Knows no route and does not judge.
"""

import asyncio
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import h11

_QUIET: Final = 0.2  # seconds of silence after which an unfinished request ends
_CHUNK: Final = 1 << 16
_INTERIM: Final = re.compile(rb"\AHTTP/1\.1 100 .*?\r\n\r\n", re.DOTALL)  # an answer may follow


@dataclass(frozen=True, slots=True)
class Shot:
    """What is sent on one connection. `path` is the route of a `whole` request, which is one
    complete HTTP request: the server owes one answer to it, and nothing to any other bytes."""

    kind: str
    name: str
    pieces: tuple[bytes, ...]
    path: str = ""
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def media(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0]


@dataclass(frozen=True, slots=True)
class Exchange:
    """`trouble` is what HTTP does not allow, empty if there was nothing."""

    replies: tuple[Reply, ...]
    seconds: float
    trouble: str = ""


def post(path: str, host: str, body: bytes, media: str = "application/json") -> bytes:
    """A complete request that asks for the end of its connection."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {media}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


async def exchange(host: str, port: int, shot: Shot, patience: float) -> Exchange:
    """Send `shot` and read until the server closes the connection, or `patience` ends."""
    began = time.perf_counter()
    try:
        async with asyncio.timeout(patience):
            answer = await _exchange(host, port, shot)
    except TimeoutError:
        return Exchange((), time.perf_counter() - began, "hang")
    except OSError as error:
        return Exchange((), time.perf_counter() - began, f"no connection: {error.strerror}")
    try:
        replies = parse(answer, head=b"".join(shot.pieces).startswith(b"HEAD "))
    except h11.RemoteProtocolError as error:
        return Exchange((), time.perf_counter() - began, f"no HTTP: {error}")
    trouble = (
        "" if not shot.whole or len(replies) == 1 else f"{len(replies)} answers to one request"
    )
    return Exchange(tuple(replies), time.perf_counter() - began, trouble)


async def _exchange(host: str, port: int, shot: Shot) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    answer = b""
    try:
        for piece in shot.pieces:
            writer.write(piece)
            await writer.drain()
        while read := await _read(reader, None if shot.whole else _QUIET):
            answer += read
        if not shot.whole:
            writer.write_eof()
            answer += await reader.read()
    except OSError:
        pass  # what the server did not read makes its end of the connection a reset
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    return answer


async def _read(reader: asyncio.StreamReader, quiet: float | None) -> bytes:
    try:
        async with asyncio.timeout(quiet):
            return await reader.read(_CHUNK)
    except TimeoutError:
        return b""


def parse(answer: bytes, *, head: bool = False) -> list[Reply]:
    """The replies in `answer`, the first perhaps to a HEAD. Raises h11.RemoteProtocolError."""
    replies: list[Reply] = []
    while answer := _INTERIM.sub(b"", answer):
        reply, rest = _first(answer, head and not replies)
        if head and rest and not rest.startswith(b"HTTP/"):  # not understood as a HEAD
            reply, rest = _first(answer, False)
        replies.append(reply)
        answer = rest
    return replies


def _first(answer: bytes, head: bool) -> tuple[Reply, bytes]:
    connection = h11.Connection(h11.CLIENT)
    connection.send(
        h11.Request(method="HEAD" if head else "GET", target="/", headers=[("Host", "x")])
    )
    connection.send(h11.EndOfMessage())
    connection.receive_data(answer)
    connection.receive_data(b"")
    reply, body = None, b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        match event:
            case h11.Response():
                reply = event
            case h11.Data():
                body += event.data
            case _:
                raise h11.RemoteProtocolError(f"the answer ends early, in {event}")
    assert reply
    headers = {name.decode(): value.decode("latin-1") for name, value in reply.headers}
    return Reply(reply.status_code, headers, body), connection.trailing_data[0]
