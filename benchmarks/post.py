"""POSTs a body over a connection of its own and hands out the answer as it arrives.

httpx needs more than a millisecond of CPU for this: with 64 requests in one instant, a benchmark
would measure its own client. This is h11, which httpx builds on, on asyncio's streams. Raises
OSError and h11.ProtocolError.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import h11


class Reply:
    """Status and headers, and the body as lines that are read once."""

    def __init__(self, connection: h11.Connection, reader: asyncio.StreamReader) -> None:
        self._connection = connection
        self._reader = reader
        self.status = 0
        self.headers: dict[str, str] = {}

    async def begin(self) -> None:
        response = await self._next()
        if not isinstance(response, h11.Response):
            raise h11.RemoteProtocolError("the server closed the connection without an answer")
        self.status = response.status_code
        self.headers = {name.decode(): value.decode() for name, value in response.headers}

    async def lines(self) -> AsyncIterator[str]:
        rest = b""
        while isinstance(event := await self._next(), h11.Data):
            *lines, rest = (rest + event.data).split(b"\n")
            for line in lines:
                yield line.decode()
        yield rest.decode()

    async def _next(self) -> h11.Event:
        while (event := self._connection.next_event()) is h11.NEED_DATA:
            self._connection.receive_data(await self._reader.read(1 << 16))
        assert isinstance(event, h11.Event)
        return event


@asynccontextmanager
async def post(url: str, body: bytes) -> AsyncIterator[Reply]:
    """The reply to `body`, sent as JSON; leaving the context closes the connection."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=secure or None)
    try:
        connection = h11.Connection(h11.CLIENT)
        headers = {
            "Host": parts.netloc,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        request = h11.Request(method="POST", target=parts.path, headers=list(headers.items()))
        events = (request, h11.Data(data=body), h11.EndOfMessage())
        writer.write(b"".join(connection.send(event) or b"" for event in events))
        reply = Reply(connection, reader)
        await reply.begin()
        yield reply
    finally:
        writer.close()
