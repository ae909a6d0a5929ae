"""A client of `/ws`, for tests: says JSON, hears frames."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

Event = dict[str, Any]


class Talk:
    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def say(self, **said: Any) -> None:
        await self.socket.send(json.dumps(said))

    async def frame(self) -> str:
        frame = await self.socket.recv()
        assert isinstance(frame, str)
        return frame

    async def event(self) -> Event:
        return json.loads(await self.frame())

    async def raw_turn(self) -> list[str]:
        """Frames up to the empty one, without it."""
        frames = []
        while frame := await self.frame():
            frames.append(frame)
        return frames

    async def turn(self) -> list[Event]:
        """Events up to the end, or the error, of a turn."""
        events = [await self.event()]
        while events[-1]["type"] not in ("end", "error", "idle"):
            events.append(await self.event())
        return events


@asynccontextmanager
async def talking(url: str, *, typed: bool = True, **how: Any) -> AsyncIterator[Talk]:
    """A connection to the server at `url`."""
    place = url.replace("http", "ws", 1) + "/ws" + ("?protocol=json" if typed else "")
    async with connect(place, proxy=None, **how) as socket:
        yield Talk(socket)


def said(events: list[Event]) -> str:
    return "".join(event["text"] for event in events if event["type"] == "text")


async def new_session(url: str, **about: Any) -> str:
    async with httpx.AsyncClient(base_url=url) as client:
        answer = await client.post("/api/v1/sessions", json=about)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]


async def session(url: str, id: str) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=url) as client:
        answer = await client.get(f"/api/v1/sessions/{id}")
        assert answer.status_code == 200, answer.text
        return answer.json()
