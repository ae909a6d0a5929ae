"""What is asked of the tables of sessions, and put into them, in more than one place."""

import sqlite3
from collections.abc import Iterable
from typing import Final

from api.store.errors import UnknownMessage, UnknownSession
from api.store.records import Message, Session, Summary
from api.store.rows import columns, marks, record_of, values

Connection = sqlite3.Connection
_PATH: Final = f"""
WITH RECURSIVE path (at, up) AS (
    SELECT id, parent FROM messages WHERE id = :message AND session = :session
    UNION ALL
    SELECT id, parent FROM messages JOIN path ON id = up
)
SELECT {columns(Message)} FROM messages JOIN path ON id = at ORDER BY number
"""


def found(database: Connection, tenant: str, id: str) -> Session:
    """Raises UnknownSession, also for those of others."""
    query = f"SELECT {columns(Session)} FROM sessions WHERE id = ? AND tenant = ?"
    row = database.execute(query, (id, tenant)).fetchone()
    if row is None:
        raise UnknownSession
    return record_of(Session, row)


def messages_of(database: Connection, session: str) -> list[Message]:
    """In the order in which they were written."""
    query = f"SELECT {columns(Message)} FROM messages WHERE session = ? ORDER BY number"
    return [record_of(Message, row) for row in database.execute(query, (session,))]


def path_to(database: Connection, session: str, message: str) -> list[Message]:
    """A message and all that it goes on from, the first one first: each was written after those
    before it. Raises UnknownMessage."""
    rows = database.execute(_PATH, {"session": session, "message": message})
    path = [record_of(Message, row) for row in rows]
    if not path:
        raise UnknownMessage
    return path


def summaries_of(database: Connection, session: str) -> list[Summary]:
    query = f"SELECT {columns(Summary)} FROM summaries WHERE session = ? ORDER BY number"
    return [record_of(Summary, row) for row in database.execute(query, (session,))]


def add_messages(database: Connection, session: str, messages: Iterable[Message]) -> None:
    query = f"INSERT INTO messages (session, {columns(Message)}) VALUES (?, {marks(Message)})"
    database.executemany(query, ((session, *values(message)) for message in messages))


def add_summaries(database: Connection, session: str, summaries: Iterable[Summary]) -> None:
    query = f"INSERT INTO summaries (session, {columns(Summary)}) VALUES (?, {marks(Summary)})"
    database.executemany(query, ((session, *values(summary)) for summary in summaries))
