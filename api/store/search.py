"""A tenant's sessions, newest first, and those in which something stands.

Letters are compared as Unicode folds them, so upper and lower case are one in every language.
"""

import unicodedata
from bisect import bisect_right
from itertools import accumulate
from typing import Final

from msgspec import Struct

from api.store.errors import UnknownSession
from api.store.queries import Connection, found
from api.store.records import Session
from api.store.rows import columns, record_of

BEFORE, AFTER = 40, 100  # characters of a snippet around the beginning of what was found
_PIECE: Final = 2048  # characters that are looked at together; accents in a row cost their square
_ACCENTED: Final = 4  # characters that may be one in a needle
_NEWEST: Final = "FROM sessions WHERE tenant = ? AND touched < ? ORDER BY touched DESC"
_CONTENTS: Final = "SELECT content FROM messages WHERE session = ? ORDER BY number"


class Found(Struct, frozen=True):
    """`snippet` is what stands around the first place in its messages, if it was looked for."""

    session: Session
    snippet: str | None = None


def listed(
    database: Connection, tenant: str, limit: int, before: str | None
) -> tuple[list[Found], bool]:
    """At most `limit` sessions, older than `before`, and whether there are more.

    Raises UnknownSession if there is no `before`.
    """
    asked = (tenant, _touched(database, tenant, before), limit + 1)
    query = f"SELECT {columns(Session)} {_NEWEST} LIMIT ?"
    rows = database.execute(query, asked).fetchall()
    return [Found(record_of(Session, row)) for row in rows[:limit]], len(rows) > limit


def sought(
    database: Connection, tenant: str, query: str, limit: int, before: str | None
) -> tuple[list[Found], bool]:
    """As `listed`, of those in whose title or messages `query` stands."""
    needle = _folded(_composed(query))
    asked = (tenant, _touched(database, tenant, before))
    hits: list[Found] = []
    for id, title in database.execute(f"SELECT id, title {_NEWEST}", asked).fetchall():
        snippet = _snippet(database, id, needle)
        if snippet is None and excerpt(title, needle) is None:
            continue
        if len(hits) == limit:
            return hits, True
        hits.append(Found(found(database, tenant, id), snippet))
    return hits, False


def excerpt(content: str, needle: str) -> str | None:
    """A line of `content` around the first place where the folded `needle` stands, if there is one.

    Looks at one piece after the other. A letter that its end cuts off from its accent has none.
    """
    step = max(len(content), 1) if content.isascii() else _PIECE
    for start in range(0, len(content), step):
        begin = max(start - BEFORE, 0)
        stop = start + step + _ACCENTED * (len(needle) + AFTER)
        piece, goes_on = _composed(content[begin:stop]), stop < len(content)
        at = _place(piece, needle)
        if at is not None and not (goes_on and at > len(piece) - AFTER):  # else the next shows more
            return _line(piece, at, begin > 0, goes_on)
    return None


def _place(text: str, needle: str) -> int | None:
    folded = _folded(text)
    at = folded.find(needle)
    if at < 0 or len(folded) == len(text):
        return at if at >= 0 else None
    ends = accumulate(len(_folded(letter)) for letter in text)  # some become several
    return bisect_right(list(ends), at)


def _line(text: str, at: int, cut_before: bool, cut_after: bool) -> str:
    start, stop = max(at - BEFORE, 0), at + AFTER
    before = "…" if start or cut_before else ""
    after = "…" if stop < len(text) or cut_after else ""
    return before + " ".join(text[start:stop].split()) + after


def _touched(database: Connection, tenant: str, session: str | None) -> int:
    if session is None:
        return 2**63 - 1
    query = "SELECT touched FROM sessions WHERE id = ? AND tenant = ?"
    row = database.execute(query, (session, tenant)).fetchone()
    if row is None:
        raise UnknownSession
    return int(row[0])


def _snippet(database: Connection, session: str, needle: str) -> str | None:
    contents = database.execute(_CONTENTS, (session,))
    lines = (excerpt(content, needle) for (content,) in contents)
    return next((line for line in lines if line is not None), None)


def _composed(text: str) -> str:
    """Accents in one character with their letter, as keyboards write them."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _folded(text: str) -> str:
    return text.lower() if text.isascii() else text.casefold()
