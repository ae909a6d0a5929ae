"""The way from a browser to a server, which can be cut: an address that stays while what is behind
it comes and goes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class Cable:
    """Forwards connections to `server`, an URL, until it is cut."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.whole = True
        self._open: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Every connection ends, and none is taken."""
        self.whole = False
        for writer in self._open:
            writer.transport.abort()

    def mend(self, server: str | None = None) -> None:
        """Connections are taken again, to another `server` if it is given."""
        self.server = server or self.server
        self.whole = True

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.whole:
            writer.transport.abort()
            return
        place = urlsplit(self.server)
        try:
            there = await asyncio.open_connection(place.hostname, place.port)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, there[1]}
        if not self.whole:  # it was cut meanwhile
            for end in ends:
                end.transport.abort()
            return
        self._open |= ends
        try:
            await asyncio.wait(
                [
                    asyncio.create_task(_pump(reader, there[1])),
                    asyncio.create_task(_pump(there[0], writer)),
                ],
            )
        finally:
            self._open -= ends
            for end in ends:
                end.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    if not writer.is_closing():
        writer.close()


@asynccontextmanager
async def cable_to(server: str) -> AsyncIterator[tuple[str, Cable]]:
    """An address that leads to `server`, and the cable behind it."""
    cable = Cable(server)
    listener = await asyncio.start_server(cable.connected, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", cable
    finally:
        cable.cut()
        listener.close()
        await listener.wait_closed()
