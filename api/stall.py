"""A client that is to take what is sent to it: how long nothing of it may be taken.

Nothing is done while it reads; while it does not, the system is asked now and then what of the
bytes it has acknowledged. Knows no protocol.
"""

import fcntl
import logging
import socket
import struct
import termios
from asyncio import AbstractEventLoop, TimerHandle, Transport
from contextlib import suppress
from typing import Final

_LOOKS: Final = 20  # at a reader that does not read, until it has run out of time
_AT_ONCE: Final = struct.pack("ii", 1, 0)  # how long a closed socket lingers
_log = logging.getLogger(__name__)


class Stall:
    """Watches whether the other side of `transport` reads, between `begin` and `end`; it is cut off
    when it has taken nothing for `patience` seconds."""

    def __init__(self, transport: Transport, loop: AbstractEventLoop, patience: float) -> None:
        self._transport = transport
        self._loop = loop
        self._patience = patience
        self._next: TimerHandle | None = None

    def begin(self) -> None:
        self._watch(self._unread(), self._loop.time())

    def end(self) -> None:
        if self._next:
            self._next.cancel()
            self._next = None

    def _watch(self, unread: int, since: float) -> None:
        """Look again soon whether some of the bytes are taken that are `unread` `since` then."""
        self.end()
        self._next = self._loop.call_later(self._patience / _LOOKS, self._look, unread, since)

    def _look(self, before: int, since: float) -> None:
        unread, now = self._unread(), self._loop.time()
        if unread != before:
            self._watch(unread, now)
        elif now - since < self._patience:
            self._watch(unread, since)
        else:
            _log.warning("A client took nothing for %g s; it was cut off.", self._patience)
            # Else the system would go on offering what it holds.
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            self._transport.abort()

    def _unread(self) -> int:
        """Bytes that the client's side has not acknowledged."""
        queued = bytes(4)
        with suppress(OSError):
            sock = self._transport.get_extra_info("socket")
            queued = fcntl.ioctl(sock, termios.TIOCOUTQ, queued)
        inside: int = self._transport.get_write_buffer_size()
        unsent: int = struct.unpack("i", queued)[0]
        return inside + unsent
