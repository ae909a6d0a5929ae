"""One client's connection: how long it may keep the server waiting, and how much it may hold.

uvicorn's protocol waits for ever for a header, a body or a reader, and takes any number of
clients. Here each wait has an end: an answer 408 where one is possible, else the connection is
closed. Nothing is done per token, and nothing on a clock but for those who keep us waiting. What
asks for a WebSocket is handed over. Knows no route and no model.
"""

import resource
import sys
from asyncio import BaseTransport, TimerHandle, Transport
from collections import Counter
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from random import random
from typing import Any, Final, Literal

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.errors import BadHttp, HeaderTooLarge, TooManyConnections, TooSlow, error_response
from api.stall import Stall
from api.websocket_connection import WebSocketConnection, handshake
from inference import InferenceError, ShuttingDown

MAX_HEADER: Final = 16 << 10  # bytes, of the request line and all fields
MAX_FIELDS: Final = 100
_MOST_FILES: Final = 16_384  # descriptors that are asked of the system
_MOST_HELD: Final = 256 << 20  # bytes of WebSocket messages that are not whole
_OTHER_FILES: Final = 64  # descriptors that are no connections: workers, the log, a database
_SPREAD: Final = 20  # a time is up to a twentieth longer than its limit

_Owed = Literal["nothing", "request", "header", "body"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection may ask of the server; times in seconds."""

    header: float = 10  # from the connection, or from the first byte after an answer
    idle: int = 15  # between an answer and the next request
    pause: float = 30  # between two pieces of a body
    body: float = 120  # for the whole of it
    stall: float = 30  # while a client takes nothing of its answer
    heartbeat: float = 20  # between two pings of a WebSocket, and until a pong
    connections: int = 8192
    per_address: int = 256  # except this machine's own


def allowed_by_system(limits: Limits) -> int:
    """How many connections there may be: those of `limits`, if the system has the descriptors.

    Raises this process's soft limit of open files as far as that needs.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(_MOST_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    files = _MOST_FILES if soft == resource.RLIM_INFINITY else soft
    return max(1, min(limits.connections, files - _OTHER_FILES))


class Door:
    """Who is inside: one for all connections of a server."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._most = allowed_by_system(limits)
        self._inside: Counter[str] = Counter()
        self._total = 0
        self._held = 0

    def hold(self, size: int) -> bool:
        """Count bytes in, or out if `size` is negative; whether there is room for them."""
        self._held += size
        return size <= 0 or self._held <= _MOST_HELD

    def enter(self, address: str) -> bool:
        """Count a client in, unless there are too many."""
        local = ip_address(address.partition("%")[0].removeprefix("::ffff:")).is_loopback
        if self._total >= self._most:
            return False
        if not local and self._inside[address] >= self.limits.per_address:
            return False
        self._total += 1
        self._inside[address] += 1
        return True

    def leave(self, address: str) -> None:
        self._total -= 1
        self._inside[address] -= 1
        if not self._inside[address]:
            del self._inside[address]


class Connection(H11Protocol):
    """uvicorn's HTTP/1.1 connection, with an end to its patience."""

    def __init__(self, *args: Any, door: Door, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = _Parser(h11.SERVER, MAX_HEADER)
        self._door = door
        self._limits = door.limits
        self._inside = ""  # the address that was counted in
        self._owed: _Owed = "nothing"
        self._owed_since = 0.0
        self._patience: TimerHandle | None = None  # with a client that sends
        self._stall: Stall | None = None  # of one that reads
        self._handed_over = False

    def connection_made(self, transport: BaseTransport) -> None:
        assert isinstance(transport, Transport)
        self._stall = Stall(transport, self.loop, self._limits.stall)
        super().connection_made(transport)
        # What the system does not take at once is waited for: texts gather in the pool meanwhile,
        # and a paused writer and a client that reads too little are the same thing.
        transport.set_write_buffer_limits(high=0)
        address = self.client[0] if self.client else "127.0.0.1"
        if self._door.enter(address):
            self._inside = address
            self._wait_for_client()
        else:
            self._refuse(TooManyConnections("There are too many connections; come again later."))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._inside:
            self._door.leave(self._inside)
        self._forget_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait_for_client()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait_for_client()

    def shutdown(self) -> None:
        """Called when the server ends: what is being written may be completed, no more."""
        if self.conn.their_state is h11.SEND_BODY:
            self._refuse(ShuttingDown("The server is shutting down."))
        elif self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Called by uvicorn: from here on the transport and the place at the door are another's."""
        socket = WebSocketConnection(
            self.config,
            self.server_state,
            self.app_state,
            self.loop,
            stall=self._limits.stall,
            patience=self._limits.body,
            hold=self._door.hold,
            left=partial(self._door.leave, self._inside),
        )
        request = handshake(event)
        if _has_body(event) or not socket.understands(request):
            self._refuse(BadHttp("This is not a valid handshake of a WebSocket."))
            return
        self._handed_over, self._inside = True, ""
        self._forget_timers()
        self.connections.discard(self)
        socket.begin(self.transport, request, self.conn.trailing_data[0])

    def _forget_timers(self) -> None:
        self._unset_keepalive_if_required()
        if self._patience:
            self._patience.cancel()
        if self._stall:
            self._stall.end()

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn while it handles what h11 finds wrong."""
        fault = sys.exception()
        if isinstance(fault, h11.RemoteProtocolError) and fault.error_status_hint == 431:
            limits = f"{MAX_HEADER >> 10} KiB or {MAX_FIELDS} fields"
            self._refuse(HeaderTooLarge(f"The request's header is larger than {limits}."))
        else:
            self._refuse(BadHttp("This is not a valid HTTP/1.1 request."))

    def _wait_for_client(self) -> None:
        """Set the timer for what the client owes: a request, or the rest of its header or body."""
        owed, now = self._owes(), self.loop.time()
        if owed == self._owed and owed != "body":
            return  # a header has one time for all of it, even if it trickles in
        if owed != self._owed:
            self._owed, self._owed_since = owed, now
        if self._patience:
            self._patience.cancel()
            self._patience = None
        if owed == "request":
            self._lose_patience_in(self._limits.idle)
        elif owed == "header":
            self._lose_patience_in(self._limits.header)
        elif owed == "body":
            left = self._owed_since + self._limits.body - now
            self._lose_patience_in(min(self._limits.pause, left))

    def _owes(self) -> _Owed:
        if self._handed_over:
            return "nothing"
        if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            return "body"
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            return "nothing"
        return "header" if self.cycle is None or self.conn.trailing_data[0] else "request"

    def _lose_patience_in(self, seconds: float) -> None:
        # A crowd that came at once shall not go at once: the streams would have to wait for it.
        seconds *= 1 + random() / _SPREAD
        self._patience = self.loop.call_later(seconds, self._lose_patience)

    def _lose_patience(self) -> None:
        if self._owed != "body" and not self.conn.trailing_data[0]:
            self.transport.close()  # it has said nothing, and would not expect an answer
        else:
            self._refuse(TooSlow(f"The request's {self._owed} took too long to arrive."))

    def _refuse(self, error: InferenceError) -> None:
        """Answer with `error`, if no answer has begun, and close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            answer = error_response(error)
            headers = [*self.server_state.default_headers, *answer.raw_headers]
            for event in (
                h11.Response(status_code=answer.status_code, headers=headers),
                h11.Data(data=bytes(answer.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall:
            self._stall.begin()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall:
            self._stall.end()


def _has_body(event: h11.Request) -> bool:
    framing = (b"content-length", b"transfer-encoding")
    return any(name in framing for name, _ in event.headers)


class _Parser(h11.Connection):
    """Bounds what h11 itself bounds only while it is incomplete."""

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            size = len(event.target) + sum(len(k) + len(v) + 4 for k, v in event.headers)
            if size > MAX_HEADER or len(event.headers) > MAX_FIELDS:
                raise h11.RemoteProtocolError("the header is too large", error_status_hint=431)
        return event
