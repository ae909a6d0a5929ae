"""The crowd around a healthy stream, in a process of its own: `python -m benchmarks.crowd_client`.

Reads one `Crowd` as JSON from stdin, says "here" when it has settled in, stays until stdin closes,
and then says what became of it. Whom the server turns out comes back at once. Knows nothing of
what is measured beside it.
"""

import asyncio
import json
import socket
import sys
import time
from collections import Counter
from contextlib import suppress
from itertools import cycle, islice
from typing import Final

import msgspec

from benchmarks.client import Client, Server, completion_of

_HEAD: Final = b"POST /v1/completions HTTP/1.1\r\nHost: crowd\r\n"
_BODY: Final = b'{"prompt": "'
OPENINGS: Final = {
    "silent": b"",
    "half a header": _HEAD,
    "half a body": _HEAD + b"Content-Length: 1000\r\n\r\n" + _BODY,
    "kept alive": b"GET /health HTTP/1.1\r\nHost: crowd\r\n\r\n",
}
_SMALL: Final = 4096  # bytes that a slow reader's socket takes in
_SETTLED: Final = 11.0  # seconds until the first are turned out, and come back
_AT_ONCE: Final = 100  # connections opened in one go


class Crowd(msgspec.Struct, frozen=True, kw_only=True):
    """`readers` streams of `tokens` tokens, read at once or a byte a second, and `idle`
    connections of every kind in `OPENINGS`."""

    port: int
    readers: int = 0
    slow: bool = False
    tokens: int = 1
    idle: int = 0


class Fate(msgspec.Struct):
    """What became of the idle ones: how many of a kind were turned out, and after how long."""

    turned_out: dict[str, int]
    longest: dict[str, float]  # seconds
    refused: int = 0


class _Idle(asyncio.Protocol):
    """A connection that says its opening and waits for its end."""

    def __init__(self, kind: str, crowd: "_Idlers") -> None:
        self._kind = kind
        self._crowd = crowd
        self._began = time.monotonic()
        self._heard = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._crowd.here.add(transport)
        self._transport = transport
        transport.write(OPENINGS[self._kind])

    def data_received(self, data: bytes) -> None:
        self._heard = data[:16]

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.here.discard(self._transport)
        self._crowd.lost(self._kind, time.monotonic() - self._began, self._heard)


class _Idlers:
    """Keeps so many idle connections open, until it goes."""

    def __init__(self, crowd: Crowd) -> None:
        self._port = crowd.port
        self._kinds = list(islice(cycle(OPENINGS), crowd.idle))
        self._again: asyncio.Queue[str] = asyncio.Queue()
        self._going = False
        self.here: set[asyncio.Transport] = set()
        self.turned_out: Counter[str] = Counter()
        self.longest: dict[str, float] = {}
        self.refused = 0

    async def come(self) -> None:
        for start in range(0, len(self._kinds), _AT_ONCE):
            await asyncio.gather(*map(self._open, self._kinds[start : start + _AT_ONCE]))
        self._refill = asyncio.create_task(self._come_back())

    def go(self) -> Fate:
        self._going = True
        self._refill.cancel()
        for transport in self.here:
            transport.abort()
        return Fate(dict(self.turned_out), self.longest, self.refused)

    def lost(self, kind: str, seconds: float, heard: bytes) -> None:
        if self._going:
            return
        if b" 503" in heard:
            self.refused += 1
        else:
            self.turned_out[kind] += 1
            self.longest[kind] = max(seconds, self.longest.get(kind, 0.0))
        self._again.put_nowait(kind)

    async def _come_back(self) -> None:
        while True:
            await self._open(await self._again.get())

    async def _open(self, kind: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: _Idle(kind, self), "127.0.0.1", self._port)
        except OSError:
            self.refused += 1
            loop.call_later(1, self._again.put_nowait, kind)


async def _read(crowd: Crowd) -> None:
    """Read one stream after the other, as they come."""
    while True:
        await Client(_server(crowd)).ask("a", crowd.tokens)


async def _read_slowly(crowd: Crowd) -> None:
    """Ask for a stream and take a byte of it each second, for ever."""
    body = json.dumps(completion_of(_server(crowd), "a", crowd.tokens)).encode()
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", crowd.port))
        await loop.sock_sendall(sock, _HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        with suppress(OSError):  # it was cut
            while await loop.sock_recv(sock, 1):
                await asyncio.sleep(1)
        await asyncio.Event().wait()


def _server(crowd: Crowd) -> Server:
    return Server("", f"http://127.0.0.1:{crowd.port}", "default", None)


async def _stay(crowd: Crowd) -> Fate:
    idlers = _Idlers(crowd)
    await idlers.come()
    if crowd.idle:
        await asyncio.sleep(_SETTLED)
    read = _read_slowly if crowd.slow else _read
    tasks = [asyncio.create_task(read(crowd)) for _ in range(crowd.readers)]
    await asyncio.sleep(1)
    print("here", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return idlers.go()


def main() -> None:
    crowd = msgspec.json.decode(sys.stdin.readline(), type=Crowd)
    print(msgspec.json.encode(asyncio.run(_stay(crowd))).decode(), flush=True)


if __name__ == "__main__":
    main()
