"""A turn as the text frames of a WebSocket: raw text, or typed events."""

from dataclasses import asdict
from typing import Any, Protocol

import msgspec

from api.dialect import Problem
from api.gateway.draft import usage_of
from api.gateway.events import Compacted, Compacting, Stored, TurnEvent
from api.openai.errors import OPENAI
from inference import (
    ArgumentsDelta,
    Finished,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
)


class Frames(Protocol):
    """How one turn is told: its events, then its `end`, or the problem that ended it. One that
    `ends` nothing is of something else that was said meanwhile."""

    def event(self, event: TurnEvent) -> list[str]: ...
    def end(self, stopped: bool, saved: bool) -> list[str]: ...
    def failed(self, problem: Problem, *, ends: bool = True) -> list[str]: ...


class RawFrames:
    """Text as it comes, or all of it if it is not to be streamed, and an empty frame at its end."""

    def __init__(self, stream: bool) -> None:
        self._stream = stream
        self._text: list[str] = []

    def event(self, event: TurnEvent) -> list[str]:
        if not isinstance(event, TextDelta):
            return []
        if self._stream:
            return [event.text] if event.text else []
        self._text.append(event.text)
        return []

    def end(self, stopped: bool, saved: bool) -> list[str]:
        whole = "".join(self._text)
        return [whole, ""] if whole else [""]

    def failed(self, problem: Problem, *, ends: bool = True) -> list[str]:
        return [encoded(OPENAI.error(problem)), ""][: 1 + ends]


class JsonFrames:
    """Each event as an object that says its `type`."""

    def __init__(self, model: str, resumed: bool = False) -> None:
        self._model = model
        self._resumed = resumed
        self._reason = ""

    def event(self, event: TurnEvent) -> list[str]:
        if isinstance(event, Finished):
            self._reason = event.reason
        return [encoded(self._told(event))]

    def end(self, stopped: bool, saved: bool) -> list[str]:
        reason = "stopped" if stopped else self._reason
        return [encoded({"type": "end", "reason": reason, "saved": saved})]

    def failed(self, problem: Problem, *, ends: bool = True) -> list[str]:
        about = {"code": problem.code, "message": problem.message, "field": problem.field}
        return [encoded({"type": "error" if ends else "refused", **about})]

    def _told(self, event: TurnEvent) -> dict[str, Any]:  # noqa: PLR0911 - one for each kind
        match event:
            case TextDelta(_, text) | ReasoningDelta(_, text):
                kind = "text" if isinstance(event, TextDelta) else "reasoning"
                return {"type": kind, "text": text}
            case ToolCallDelta(_, position, call):
                about = {"id": call.id, "name": call.name, "arguments": call.arguments}
                return {"type": "tool", "position": position, **about}
            case ArgumentsDelta(_, position, text):
                return {"type": "tool", "position": position, "arguments": text}
            case Finished():
                return {"type": "usage", **msgspec.to_builtins(usage_of(event))}
            case Compacting():
                return {"type": "compacting"}
            case Compacted():
                return {"type": "compacted", **asdict(event)}
            case _:
                return self._start(event)

    def _start(self, event: Stored | Started) -> dict[str, Any]:
        if isinstance(event, Started):
            return {"type": "start", "model": self._model}
        return {
            "type": "start",
            "model": event.model,
            "session_id": event.session,
            "message_id": event.answer,
            "user_message_id": event.new[-1] if event.new else None,
            "resumed": self._resumed,
        }


def encoded(told: Any) -> str:
    return msgspec.json.encode(told).decode()
