"""`/ws`: turn after turn of a conversation over one connection, each of which can be stopped.

What a client says wrong is told to it, and the connection stays. Frames are made in
`api.gateway.frames`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final
from uuid import uuid4

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from starlette.websockets import WebSocketDisconnected

from api.body import flag, parse_object
from api.errors import UNFORESEEN, TurnStopped, problem_of, status_of
from api.gateway import wish
from api.gateway.events import Compacted, Compacting
from api.gateway.frames import Frames, JsonFrames, RawFrames, encoded
from api.gateway.place import Place
from api.gateway.turn import Turn
from api.gateway.turns import Turns
from api.metrics import Meter, Metrics
from api.openai import chat
from api.streaming import name_of
from inference import BadRequest, InferenceError, Started

_BUSY: Final = "An answer is still being written on this connection; stop it first."
_log = logging.getLogger(__name__)

Open = Callable[[], Awaitable[Turn]]
router = APIRouter()


@router.websocket("/ws")
async def talk(socket: WebSocket) -> None:
    await socket.accept()
    line = Line(socket)
    try:
        await line.listen()
    finally:
        await line.hang_up()


class Line:
    """One connection, on which one answer is written at a time."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._typed = socket.query_params.get("protocol") == "json"
        self._tenant: str = socket.state.tenant
        self._turns: Turns = socket.app.state.turns
        self._metrics: Metrics = socket.app.state.metrics
        self._work: asyncio.Task[None] | None = None
        self._place = Place(self._tenant)
        self._session = ""  # of the answer that was asked for last

    async def listen(self) -> None:
        """Do what the client says, until it is gone."""
        while (message := await self._socket.receive())["type"] == "websocket.receive":
            text = message["text"].encode()  # a connection takes no other frames
            try:
                await self._do(parse_object(text), len(text))
            except InferenceError as error:
                await self._send(self._frames({}).failed(problem_of(error), ends=not self._busy))

    @property
    def _busy(self) -> bool:
        return self._work is not None and not self._work.done()

    async def hang_up(self) -> None:
        """End what nobody will see; what is stored goes on."""
        if self._work:
            self._work.cancel()
            await asyncio.wait({self._work})

    async def _do(self, said: dict[str, Any], size: int) -> None:
        if (protocol := said.get("protocol")) is not None:
            self._typed = protocol == "json"
        session = str(said.get("session_id") or "")
        if said.get("stop") is True:
            await self._stop(session)
        elif said.get("ping") is True:
            await self._send([encoded({"type": "pong"})])
        elif self._busy:
            raise BadRequest(_BUSY)
        elif said.get("resume") is not True:
            told, self._session = self._frames(said), session
            self._begin(partial(self._opened, said, told), told, size)
        elif turn := self._turns.running(session, self._tenant):
            self._begin(partial(_itself, turn), self._frames(said, resumed=True))
        else:
            await self._send([encoded({"type": "idle", "session_id": session})])

    async def _stop(self, session: str) -> None:
        """End the answer of a session, or that of this connection, even if it only waits, or was
        asked for just now."""
        if session and await self._turns.stop(session, self._tenant):
            return
        if session in ("", self._session):
            await self._place.stop()

    def _frames(self, said: dict[str, Any], *, resumed: bool = False) -> Frames:
        if self._typed:
            return JsonFrames(name_of(self._socket, said.get("model")), resumed)
        return RawFrames(stream=flag(said.get("stream")) is not False)

    async def _opened(self, said: dict[str, Any], told: Frames) -> Turn:
        async def tell(event: Compacting | Compacted) -> None:
            await self._send(told.event(event))

        body, id = wish.read(said, stream=True), f"chat-{uuid4().hex}"
        if stored := wish.wish_of(body, id, self._socket.state.concurrent):
            return await self._turns.begin(stored, self._tenant, tell)
        return await self._turns.once(chat.to_request(body, id), self._tenant, body.stream)

    def _begin(self, open: Open, told: Frames, size: int = 0) -> None:
        self._place = Place(self._tenant)
        self._work = asyncio.create_task(self._tell(open, told, size))

    async def _tell(self, open: Open, told: Frames, size: int) -> None:
        """One turn, told to whoever is still there."""
        meter, outcome = Meter(self._metrics, "websocket"), 499
        try:
            outcome = await self._counted(open, told, size, meter)
        except WebSocketDisconnect:
            pass
        finally:
            meter.end(outcome)

    async def _counted(self, open: Open, told: Frames, size: int, meter: Meter) -> int:
        """The outcome of a turn, which counts as an answer until its end is told, as a status."""
        try:
            with self._socket.state.answering():
                meter.hold(size)
                return await self._told(open, told, meter)
        except InferenceError as error:
            await self._send(told.failed(problem_of(error)))
            return status_of(error)

    async def _told(self, open: Open, told: Frames, meter: Meter) -> int:
        """The same, with whatever goes wrong."""
        try:
            with self._place.opening():
                turn = self._place.turn = await open()
            await self._follow(turn, told, meter)
        except TurnStopped:
            await self._send(told.end(stopped=True, saved=False))
            return 499
        except InferenceError as error:
            await self._send(told.failed(problem_of(error)))
            return status_of(error)
        except WebSocketDisconnect:
            raise
        except Exception:
            _log.exception("A turn failed.")
            await self._send(told.failed(problem_of(UNFORESEEN)))
            return 500
        return 200

    async def _follow(self, turn: Turn, told: Frames, meter: Meter) -> None:
        try:
            if turn.stored:
                await self._send(told.event(turn.stored))
            async for event in turn.follow():
                meter.saw(event)
                if not (turn.stored and isinstance(event, Started)):
                    await self._send(told.event(event))
            await self._send(told.end(turn.stopped, turn.saved))
        finally:
            if not turn.stored:
                await turn.stop()

    async def _send(self, texts: list[str]) -> None:
        """Raises WebSocketDisconnect, however often it is tried."""
        for text in texts:
            try:
                await self._socket.send_text(text)
            except WebSocketDisconnected:
                raise WebSocketDisconnect from None


async def _itself(turn: Turn) -> Turn:
    return turn
