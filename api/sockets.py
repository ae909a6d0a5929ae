"""The WebSockets that are open, and whose they are: ends those of keys and cookies that are gone.

A request ends by itself; a connection on which nothing runs would stay. Knows no keys.
"""

import asyncio
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Final

from msgspec import Struct
from starlette.types import Send

_GONE: Final = {"type": "websocket.close", "code": 1008, "reason": "The key is gone."}


class _Socket(Struct, frozen=True, eq=False):
    tenant: str
    cookie: bytes | None
    send: Send


class Sockets:
    def __init__(self) -> None:
        self._open: set[_Socket] = set()
        self._closing: set[asyncio.Task[None]] = set()

    @contextmanager
    def opened(self, tenant: str, cookie: bytes | None, send: Send) -> Iterator[None]:
        """One that was let in with a `cookie`, or without."""
        socket = _Socket(tenant, cookie, send)
        self._open.add(socket)
        try:
            yield
        finally:
            self._open.discard(socket)

    def expel(self, tenants: Container[str]) -> None:
        """Close those of tenants that are none of these."""
        self._close(lambda socket: socket.tenant not in tenants)

    def logged_out(self, cookie: bytes) -> None:
        """Close those that were let in with this cookie."""
        self._close(lambda socket: socket.cookie == cookie)

    def _close(self, concerns: Callable[[_Socket], bool]) -> None:
        for socket in [*filter(concerns, self._open)]:
            self._open.discard(socket)
            task = asyncio.create_task(_close(socket))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


async def _close(socket: _Socket) -> None:
    await socket.send(_GONE)
