"""A tenant's sessions, newest first, and those in which something stands.

Letters are compared as Unicode folds them, so upper and lower case are one in every language.
"""

import unicodedata
from bisect import bisect_right
from itertools import accumulate
from typing import Final

from msgspec import Struct

from api.store.errors import UnknownSession
from api.store.queries import Connection
from api.store.records import Session
from api.store.rows import columns, record_of

BEFORE, AFTER = 40, 100  # characters of a snippet around the beginning of what was found
_LISTED: Final = (
    f"SELECT {columns(Session)} FROM sessions WHERE tenant = :tenant AND touched < :touched "
)
_MATCHING: Final = (
    "AND (matches(title) OR EXISTS "
    "(SELECT 1 FROM messages WHERE session = sessions.id AND matches(content))) "
)
_NEWEST: Final = "ORDER BY touched DESC LIMIT :limit"
_CONTENT: Final = (
    "SELECT content FROM messages WHERE session = ? AND matches(content) ORDER BY number LIMIT 1"
)


class Found(Struct, frozen=True):
    """`snippet` is what stands around the first place in its messages, if it was looked for."""

    session: Session
    snippet: str | None = None


def listed(
    database: Connection, tenant: str, query: str, limit: int, before: str | None
) -> tuple[list[Found], bool]:
    """At most `limit` sessions, older than `before`, and whether there are more.

    Raises UnknownSession if there is no `before`.
    """
    needle = _folded(_composed(query))
    database.create_function("matches", 1, lambda text: needle in _folded(_composed(text)))
    asked = {"tenant": tenant, "touched": _touched(database, tenant, before), "limit": limit + 1}
    found = database.execute(_LISTED + (_MATCHING if needle else "") + _NEWEST, asked).fetchall()
    sessions = [record_of(Session, row) for row in found[:limit]]
    more = len(found) > limit
    if not needle:
        return [Found(session) for session in sessions], more
    return [Found(session, _snippet(database, session.id, needle)) for session in sessions], more


def excerpt(content: str, needle: str) -> str:
    """A line of `content` around the first place where the folded `needle` stands."""
    content = _composed(content)
    folded = _folded(content)
    at = folded.find(needle)
    if len(folded) != len(content):  # some letters are folded into several
        at = bisect_right(list(accumulate(len(_folded(letter)) for letter in content)), at)
    start, stop = max(at - BEFORE, 0), at + AFTER
    before, after = "…" if start else "", "…" if stop < len(content) else ""
    return before + " ".join(content[start:stop].split()) + after


def _touched(database: Connection, tenant: str, session: str | None) -> int:
    if session is None:
        return 2**63 - 1
    query = "SELECT touched FROM sessions WHERE id = ? AND tenant = ?"
    row = database.execute(query, (session, tenant)).fetchone()
    if row is None:
        raise UnknownSession
    return int(row[0])


def _snippet(database: Connection, session: str, needle: str) -> str | None:
    row = database.execute(_CONTENT, (session,)).fetchone()
    return excerpt(row[0], needle) if row else None


def _composed(text: str) -> str:
    """Accents in one character with their letter, as keyboards write them."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _folded(text: str) -> str:
    return text.lower() if text.isascii() else text.casefold()
