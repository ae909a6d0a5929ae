"""One client's WebSocket, once its handshake was read: what it may send, and how it ends.

uvicorn's protocol takes any number of frames, answers every ping of who reads no answer, keeps half
a message for ever, and logs what clients do wrong. Here each of those has a bound, and every end
has its close code. Knows no route, no model and nothing of who it is; what runs on it says so
itself (`Busy`).
"""

import logging
from asyncio import BaseTransport, TimerHandle, Transport
from collections.abc import Callable, Generator
from typing import Any, Final

import h11
from starlette.websockets import WebSocketDisconnect
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers
from websockets.exceptions import ProtocolError
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import OPEN, Protocol
from websockets.server import ServerProtocol

from api.errors import NoWebSocket, error_response
from api.stall import Stall

MAX_MESSAGE: Final = 1 << 20  # bytes
MAX_FRAMES: Final = 4096  # between two heartbeats
_GOODBYE: Final = 3.0  # seconds for the other side to close as well
_log = logging.getLogger(__name__)


class Busy:
    """A `with` block of it says that an answer runs on a socket; they may be several. `done` is
    called when none runs any more."""

    def __init__(self, done: Callable[[], None]) -> None:
        self._done = done
        self._running = 0

    def __bool__(self) -> bool:
        return self._running > 0

    def __enter__(self) -> None:
        self._running += 1

    def __exit__(self, *_: object) -> None:
        self._running -= 1
        if not self:
            self._done()


class WebSocketConnection(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, with bounds. Leaves `busy` in the state of its scope.

    `hold` counts bytes of messages that are not whole, and says whether there is room for them;
    `left` is called when the connection is gone. Times are seconds.
    """

    conn: "_Frames"

    def __init__(
        self,
        *args: Any,
        stall: float,
        patience: float,
        hold: Callable[[int], bool],
        left: Callable[[], None],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.conn = _Frames(max_size=MAX_MESSAGE, logger=self.logger)
        self.app = self._answered
        self.close_timeout = _GOODBYE
        self._patience = patience
        self._hold = hold
        self._left = left
        self._held = 0
        self._half: TimerHandle | None = None  # while a message is not whole
        self._early = b""
        self._pong = b""
        self._leaving = False
        self._busy = Busy(self._at_rest)
        self._stall_after = stall
        self._stall: Stall | None = None

    def understands(self, request: Request) -> bool:
        """Whether this is a handshake."""
        return self.conn.accept(request).status_code == 101

    def begin(self, transport: Transport, request: Request, early: bytes) -> None:
        """Take a connection over on which `request` was read, and `early` after it.

        Nothing more is read until it is accepted.
        """
        transport.set_protocol(self)
        transport.pause_reading()
        self.connection_made(transport)
        if transport.get_write_buffer_size():
            self.pause_writing()
        self._early = early
        self.handle_connect(request)
        self.scope["state"]["busy"] = self._busy

    @property
    def idle(self) -> bool:
        return self.handshake_complete and not self._busy

    def leave(self) -> None:
        """Close as soon as no answer runs, as the server is about to end."""
        self._leaving = True
        if self.idle:
            self.close(1012, "The server is shutting down.")

    def close(self, code: int, reason: str = "") -> None:
        """Close, unless that was done; what was sent before is still delivered."""
        if self.conn.state is not OPEN or self.close_sent or self.transport.is_closing():
            return
        self.conn.send_close(code, reason)
        self._say_goodbye(code, reason)
        if self.read_paused:  # else the other side's goodbye would not be heard
            self.read_paused = False
            self.transport.resume_reading()

    def connection_made(self, transport: BaseTransport) -> None:
        assert isinstance(transport, Transport)
        self._stall = Stall(transport, self.loop, self._stall_after)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stall:
            self._stall.end()
        self._count(0)
        super().connection_lost(exc)
        self._left()

    def shutdown(self) -> None:
        """Called when the server ends."""
        self.leave()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait_for_rest()

    def handle_bytes(self, event: Frame) -> None:
        self._fail(1003, "Messages are text here.")

    def send_receive_event_to_app(self) -> None:
        """Called by uvicorn for a message that is whole."""
        self._expect_no_rest()
        try:
            b"".join(self.frames).decode()
        except UnicodeDecodeError:
            self._fail(1007, "Text is UTF-8.")
        else:
            super().send_receive_event_to_app()

    def handle_ping(self) -> None:
        pongs = self.conn.data_to_send()
        if self.close_sent:
            return
        if self.writable.is_set():
            self.transport.write(b"".join(pongs))
        elif pongs:
            self._pong = pongs[-1]  # one answer is enough for who does not read them

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall:
            self._stall.begin()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall:
            self._stall.end()
        if self._pong and not self.close_sent:
            pong, self._pong = self._pong, b""
            self.transport.write(pong)

    def send_keepalive_ping(self) -> None:
        self.conn.allowed = MAX_FRAMES
        super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        if self.read_paused:  # its answer may be here, behind what nobody took yet
            self.pending_ping_payload = self.pong_timer = None
            self.schedule_ping()
        else:
            super().keepalive_timeout()

    def handle_parser_exception(self) -> None:
        """Called by uvicorn for what is no frame, or one too many or too large."""
        assert self.conn.close_sent is not None
        if not self.close_sent:
            self._say_goodbye(self.conn.close_sent.code, self.conn.close_sent.reason)
            # A client that still writes when the connection closes may never see why.
            if self.transport.can_write_eof():
                self.transport.write_eof()

    async def send(self, message: Any) -> None:
        kind = message["type"]
        if kind == "websocket.close":
            await self._end(message)
            return
        await self.writable.wait()
        if self.transport.is_closing() or (kind == "websocket.send" and self.close_sent):
            raise ClientDisconnected
        if kind == "websocket.http.response.start":
            message = {**message, "headers": [*self.default_headers, *message["headers"]]}
        await super().send(message)
        if kind == "websocket.accept":
            self._open()
        elif self.initial_response:
            self.handshake_complete = True  # it was refused, and that is no mistake of the server's

    async def _end(self, message: Any) -> None:
        if self.handshake_complete:
            self.close(message.get("code", 1000), message.get("reason") or "")
        elif self.initial_response is None:  # nobody takes WebSockets there
            refusal = error_response(NoWebSocket(), self.scope["path"])
            await refusal(self.scope, self.receive, self.send)  # type: ignore[arg-type]

    def _open(self) -> None:
        if self.transport.is_closing():
            return
        self.transport.resume_reading()
        if self._early:
            self.data_received(self._early)
        if self._leaving:
            self.leave()

    def _at_rest(self) -> None:
        if self._leaving:
            self.leave()

    def _fail(self, code: int, reason: str) -> None:
        if self.conn.state is OPEN and not self.close_sent:
            self.conn.fail(code, reason)
            self.handle_parser_exception()

    def _say_goodbye(self, code: int, reason: str) -> None:
        """Send the close frame that was made, and do not wait for ever for the answer."""
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.writable.set()  # who waits to send more need not wait for who does not read
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)

    def _wait_for_rest(self) -> None:
        """Count what is here of a message, and set the timer for the rest."""
        size = 0 if self.close_sent or self.transport.is_closing() else self.conn.unfinished
        if not self._count(size):
            self._fail(1013, "The messages in progress are too large; try again later.")
            self._count(0)
        elif size and not self._half:
            self._half = self.loop.call_later(self._patience, self._lose_patience)

    def _count(self, size: int) -> bool:
        """Whether there is room for `size` bytes of a message."""
        room = self._hold(size - self._held)
        self._held = size
        if not size:
            self._expect_no_rest()
        return room

    def _expect_no_rest(self) -> None:
        if self._half:
            self._half.cancel()
            self._half = None

    def _lose_patience(self) -> None:
        self._fail(1008, "A message took too long to arrive.")
        self._count(0)

    async def _answered(self, scope: Any, receive: Any, send: Any) -> None:
        """The application, of which no end leaves a client without a word."""
        try:
            await self.config.loaded_app(scope, receive, send)
        except (ClientDisconnected, WebSocketDisconnect):
            if not self.handshake_complete:
                raise ClientDisconnected from None
        except Exception:
            if not self.handshake_complete:
                raise
            _log.exception("A WebSocket broke.")
            self.close(1011, "Something broke inside the server; its log says what.")
        else:
            self.close(1000)


class _Frames(ServerProtocol):
    """What comes after a handshake that was read elsewhere: `allowed` frames."""

    allowed = MAX_FRAMES

    @property
    def unfinished(self) -> int:
        """Bytes of a message that is not whole, at least 1 if there is one."""
        waiting = len(self.reader.buffer)
        return waiting if self.current_size is None else waiting + self.current_size + 1

    def parse(self) -> Generator[None]:
        yield from Protocol.parse(self)

    def recv_frame(self, frame: Frame) -> None:
        self.allowed -= 1
        if self.allowed < 0:
            raise ProtocolError("too many frames at once")
        super().recv_frame(frame)


def handshake(event: h11.Request) -> Request:
    """A request that h11 has read, as one that asks for a WebSocket."""
    names = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers]
    return Request(
        event.target.decode("ascii"),
        Headers(names),
        event.method.decode("ascii"),
        f"HTTP/{event.http_version.decode('ascii')}",
    )
