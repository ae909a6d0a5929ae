"""The records of sessions as rows of their tables. Knows no query but what every one needs."""

import sqlite3
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from api.store.errors import UnknownMessage, UnknownSession
from api.store.records import Call, Message, Session, Settings, Summary, Usage

SESSION: Final = "id, title, model, settings, head, created, updated"
MESSAGE: Final = ", ".join(Message.__struct_fields__)
_SUMMARY: Final = ", ".join(Summary.__struct_fields__)
_PATH: Final = f"""
WITH RECURSIVE path (at, up) AS (
    SELECT id, parent FROM messages WHERE id = :message AND session = :session
    UNION ALL
    SELECT id, parent FROM messages JOIN path ON id = up
)
SELECT {MESSAGE} FROM messages JOIN path ON id = at ORDER BY number
"""
_JSON: Final[dict[str, Any]] = {
    "settings": Settings,
    "tool_calls": tuple[Call, ...],
    "usage": Usage | None,
    "facts": tuple[str, ...],
}

Connection = sqlite3.Connection


def session_of(row: tuple[Any, ...]) -> Session:
    return Session(**_fields(Session, row))


def values(record: Message | Summary) -> tuple[Any, ...]:
    """What is in its row, in the order of its fields."""
    said = zip(record.__struct_fields__, msgspec.structs.astuple(record), strict=True)
    return tuple(as_json(value) if name in _JSON else value for name, value in said)


def as_json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def found(database: Connection, tenant: str, id: str) -> Session:
    """Raises UnknownSession, also for those of others."""
    query = f"SELECT {SESSION} FROM sessions WHERE id = ? AND tenant = ?"
    row = database.execute(query, (id, tenant)).fetchone()
    if row is None:
        raise UnknownSession
    return session_of(row)


def messages_of(database: Connection, session: str) -> list[Message]:
    """In the order in which they were written."""
    query = f"SELECT {MESSAGE} FROM messages WHERE session = ? ORDER BY number"
    return [Message(**_fields(Message, row)) for row in database.execute(query, (session,))]


def path_to(database: Connection, session: str, message: str) -> list[Message]:
    """A message and all that it goes on from, the first one first: each was written after those
    before it. Raises UnknownMessage."""
    rows = database.execute(_PATH, {"session": session, "message": message})
    path = [Message(**_fields(Message, row)) for row in rows]
    if not path:
        raise UnknownMessage
    return path


def summaries_of(database: Connection, session: str) -> list[Summary]:
    query = f"SELECT {_SUMMARY} FROM summaries WHERE session = ? ORDER BY number"
    return [Summary(**_fields(Summary, row)) for row in database.execute(query, (session,))]


def add_messages(database: Connection, session: str, messages: Iterable[Message]) -> None:
    marks = _marks(Message)
    query = f"INSERT INTO messages (session, {MESSAGE}) VALUES (?, {marks})"
    database.executemany(query, ((session, *values(message)) for message in messages))


def add_summaries(database: Connection, session: str, summaries: Iterable[Summary]) -> None:
    marks = _marks(Summary)
    query = f"INSERT INTO summaries (session, {_SUMMARY}) VALUES (?, {marks})"
    database.executemany(query, ((session, *values(summary)) for summary in summaries))


def _marks(kind: type[msgspec.Struct]) -> str:
    return ", ".join("?" * len(kind.__struct_fields__))


def _fields(kind: type[msgspec.Struct], row: tuple[Any, ...]) -> dict[str, Any]:
    names = kind.__struct_fields__
    return {name: _read(name, value) for name, value in zip(names, row, strict=True)}


def _read(name: str, value: Any) -> Any:
    if value is None or name not in _JSON:
        return value
    return msgspec.json.decode(value, type=_JSON[name])
