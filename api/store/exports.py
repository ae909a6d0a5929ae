"""A conversation as a file: all of it as JSON, or what is read of it as Markdown.

What reads the JSON again is a route's. Knows neither HTTP nor the database.
"""

import re
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from api.store.records import Call, Conversation, Message, Summary
from api.store.tree import path_to

Format = Literal["onebox.session.1"]
_FORMAT: Final[Format] = "onebox.session.1"
_SPEAKERS: Final = {"system": "System", "user": "You", "assistant": "Assistant"}
_ENDS: Final = {
    "running": "It is still being written.",
    "stopped": "It was stopped here.",
    "cut": "The server ended before it did.",
    "failed": "It failed.",
}


class About(msgspec.Struct, frozen=True):
    """A session without its ids."""

    title: str
    model: str
    settings: dict[str, Any]
    head: str | None
    created: float


class Export(msgspec.Struct, frozen=True, kw_only=True):
    format: Format = _FORMAT
    session: About
    messages: list[Message]
    summaries: list[Summary]


def as_json(whole: Conversation) -> bytes:
    """An `Export`. What is still being written is cut there."""
    session = whole.session
    settings = msgspec.to_builtins(session.settings)
    about = About(session.title, session.model, settings, session.head, session.created)
    messages = [_ended(message) for message in whole.messages]
    export = Export(session=about, messages=messages, summaries=whole.summaries)
    return msgspec.json.format(msgspec.json.encode(export), indent=1) + b"\n"


def as_markdown(whole: Conversation) -> str:
    """The branch that is read now; thoughts and the system prompt are folded."""
    session = whole.session
    path = path_to(whole.messages, session.head) if session.head else []
    model = f" · {_line(session.model)}" if session.model else ""
    parts = [f"# {_line(session.title) or 'Conversation'}", f"{_day(session.created)}{model}"]
    if session.settings.system_prompt:
        parts.append(_folded("System prompt", session.settings.system_prompt))
    calls = {call.id: call.name for message in path for call in message.tool_calls}
    for message in path:
        parts += _parts(message, calls)
    return "\n\n".join(parts) + "\n"


def _ended(message: Message) -> Message:
    if message.state != "running":
        return message
    return msgspec.structs.replace(message, state="cut")


def _parts(message: Message, calls: dict[str, str]) -> list[str]:
    if message.role == "tool":
        name = _line(calls.get(message.answers, "a tool"))
        return [f"## Result of {name}", _fenced(message.content)]
    model = f" ({_line(message.model)})" if message.model else ""
    parts = [f"## {_SPEAKERS[message.role]}{model}"]
    if message.reasoning:
        took = "" if message.thought_ms is None else f" ({message.thought_ms / 1000:.1f} s)"
        parts.append(_folded(f"Thoughts{took}", message.reasoning))
    if message.content:
        parts.append(message.content)
    parts += [_call(call) for call in message.tool_calls]
    if message.state in _ENDS:
        parts.append(f"*{message.error or _ENDS[message.state]}*")
    return parts


def _call(call: Call) -> str:
    return f"Calls **{_line(call.name)}**:\n\n{_fenced(call.arguments, 'json')}"


def _folded(summary: str, text: str) -> str:
    """What `text` has of HTML cannot end the fold."""
    return f"<details><summary>{summary}</summary>\n\n{_fenced(text, 'text')}\n\n</details>"


def _fenced(text: str, language: str = "") -> str:
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(longest + 1, 3)
    return f"{fence}{language}\n{text}\n{fence}"


def _line(text: str) -> str:
    return " ".join(text.split())


def _day(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d")
