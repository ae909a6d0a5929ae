"""The uvicorn server around the app: its socket, its limits, its way to stop."""

import asyncio
import logging
import math
import socket
from collections.abc import Callable
from functools import partial
from time import monotonic
from types import FrameType
from typing import Any, Final, cast

import uvicorn
from fastapi import FastAPI

from api.connection import Connection, Door, Limits
from api.guard import HEADERS
from api.websocket_connection import WebSocketConnection
from inference import InferenceError, Models

DRAIN_SECONDS: Final = 25
_LAST_WORDS: Final = 1  # seconds for clients to take the end of their answers
_BACKLOG: Final = 2048  # connections that may wait to be accepted
_ACCEPTED_AT_ONCE: Final = 16  # between two of which streams get on with their tokens
_SEND_BUFFER: Final = 128 << 10  # bytes of a connection in the system, which doubles it
_LIMITS: Final = Limits()
_log = logging.getLogger(__name__)


class AddressTaken(InferenceError):
    code = "address_taken"


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises `AddressTaken` with the reason.

    It listens from now on, so the port is ours before a model is loaded.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0].lower()
        advice = "choose another with --host or --port"
        raise AddressTaken(f"Cannot listen on {host}:{port}: {reason}; {advice}.") from None
    # Connections inherit both. asyncio sets the first only where the socket names its protocol, and
    # without it a token can wait 40 ms for the client's delayed acknowledgement of the one before.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    return listener


class Server(uvicorn.Server):
    """A server that stops in two steps.

    Told to stop, it takes no new work, closes WebSockets on which no answer runs, still says
    whether it is ready (it is not), and ends as soon as no request runs. After `drain` seconds, or
    when it is told again, what still runs ends with an error that says so.
    """

    def __init__(
        self, config: uvicorn.Config, models: Models, drain: float, busy: Callable[[], bool]
    ) -> None:
        super().__init__(config)
        self._models = models
        self._busy = busy
        self._drain = drain
        self._stop_by = math.inf

    @property
    def stopping(self) -> bool:
        return self._stop_by < math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by SIGINT and SIGTERM."""
        self.stop()

    def stop(self) -> None:
        """Stop once what runs has ended; told twice, now."""
        if self.stopping:
            self._stop_by = 0.0
            return
        self._models.drain()
        self._stop_by = monotonic() + self._drain
        if self._answering or self._busy():
            last = "answers that run are finished first; stop again to end them now"
            _log.warning("Stopping within %g s: %s.", self._drain, last)

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second: whether to leave."""
        if self.stopping:
            for socket in self._sockets:  # also those that opened since
                socket.leave()
        at_rest = not (self.server_state.tasks or self._busy())
        if self.stopping and (at_rest or monotonic() >= self._stop_by):
            self.should_exit = True
        return await super().on_tick(counter)

    @property
    def _sockets(self) -> list[WebSocketConnection]:
        return [c for c in self.server_state.connections if isinstance(c, WebSocketConnection)]

    @property
    def _answering(self) -> bool:
        return len(self.server_state.tasks) > sum(socket.idle for socket in self._sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():  # asyncio accepts as many at once as it lets wait
            listener.listen(_BACKLOG)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called when it is time to leave: ends every answer, then every connection."""
        closing = asyncio.create_task(self._models.close(patience=_LAST_WORDS))
        cutting = asyncio.get_running_loop().call_later(_LAST_WORDS, self._cut)
        await super().shutdown(sockets)
        cutting.cancel()
        await closing

    def _cut(self) -> None:
        for connection in self.server_state.connections:
            connection.transport.abort()


def server_for(app: FastAPI, drain: float = DRAIN_SECONDS, limits: Limits = _LIMITS) -> Server:
    """A server for an app that lets answers run `drain` seconds when it stops."""
    protocol: Any = partial(Connection, door=Door(limits))
    config = uvicorn.Config(
        app,
        http=protocol,
        ws=WebSocketConnection,
        ws_ping_interval=limits.heartbeat,
        ws_ping_timeout=limits.heartbeat,
        ws_per_message_deflate=False,
        log_level="error",  # a client's mistakes are answered, not logged
        access_log=False,
        proxy_headers=False,
        server_header=False,
        headers=HEADERS,
        backlog=_ACCEPTED_AT_ONCE,
        timeout_keep_alive=2 * limits.idle,  # the connection itself is sooner
        timeout_graceful_shutdown=2 * _LAST_WORDS,
    )
    logging.getLogger("sse_starlette.sse").setLevel(logging.INFO)  # at DEBUG it logs every chunk

    def busy() -> bool:
        """Whether an answer is written that no client may be waiting for."""
        return bool(getattr(app.state, "turns", ()))

    return Server(config, cast(Models, app.state.models), drain, busy)
