"""The sessions of all tenants: found, listed, changed, and written turn by turn.

What is asked of a session names its tenant, and those of others are unknown. Who has found one
reads and writes what is in it by its id. Knows neither HTTP nor models.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from time import time
from typing import Any, Final

from api.store import search
from api.store.copies import branch_of, renewed, session_id
from api.store.database import Database, at_one_moment
from api.store.errors import StoreFull, UnknownMessage, UnknownSession
from api.store.queries import (
    Connection,
    add_messages,
    add_summaries,
    found,
    messages_of,
    path_to,
    summaries_of,
)
from api.store.records import UNSAID, Conversation, Message, Session, Settings, Summary
from api.store.rows import as_json, values
from api.store.search import Found

MOST: Final = 10_000  # of a tenant
MOST_BYTES: Final = 2 << 30  # of a tenant
MOST_MESSAGES: Final = 100_000  # of a session
MOST_SESSION_BYTES: Final = 64 << 20  # it is read as a whole by who looks at it
_TITLE: Final = 60  # characters of one that nobody gave
_CREATE: Final = """
INSERT INTO sessions (id, tenant, title, model, settings, head, touched, created, updated)
SELECT :id, :tenant, :title, :model, :settings, :head, coalesce(max(touched), 0) + 1,
:created, :updated FROM sessions WHERE tenant = :tenant
"""
_TOUCH: Final = """
UPDATE sessions SET head = :head, updated = :now, title = iif(title = '', :title, title),
touched = (SELECT max(touched) + 1 FROM sessions AS others WHERE others.tenant = sessions.tenant)
WHERE id = :id
"""
_CHANGE: Final = """
UPDATE sessions SET title = coalesce(:title, title), model = coalesce(:model, model),
settings = coalesce(:settings, settings), head = coalesce(:head, head), updated = :now
WHERE id = :id
"""
_STORED: Final = """
SELECT bytes, (SELECT sum(bytes) FROM sizes AS all_of WHERE all_of.tenant = sizes.tenant)
FROM sizes WHERE session = ?
"""
_SAVED: Final = (
    "content",
    "reasoning",
    "thought_ms",
    "tool_calls",
    "state",
    "reason",
    "error",
    "usage",
)
_SAVE: Final = f"UPDATE messages SET {', '.join(f'{name} = ?' for name in _SAVED)} WHERE id = ?"
_CUT: Final = "UPDATE messages SET state = 'cut' WHERE id = ? AND state = 'running'"


class Sessions:
    """Those in `database`. All that it does raises StoreFailed if the disk does not do it; what has
    returned is stored."""

    def __init__(self, database: Database, clock: Callable[[], float] = time) -> None:
        self._database = database
        self._clock = clock
        self._searching: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def create(
        self, tenant: str, title: str = "", model: str = "", settings: Settings = UNSAID
    ) -> Session:
        """Raises StoreFull."""
        now = self._clock()
        session = Session(
            id=session_id(),
            title=title,
            model=model,
            settings=settings,
            head=None,
            created=now,
            updated=now,
        )
        await self._database.write(lambda to: _create(to, tenant, session))
        return session

    async def find(self, tenant: str, id: str) -> Session:
        """Raises UnknownSession."""
        return await self._database.read(lambda of: found(of, tenant, id))

    async def whole(self, tenant: str, id: str) -> Conversation:
        """A session and all that is in it at one moment. Raises UnknownSession."""
        return await self._database.read(lambda of: _whole(of, tenant, id))

    async def listed(
        self, tenant: str, query: str = "", limit: int = 50, before: str | None = None
    ) -> tuple[list[Found], bool]:
        """The sessions that were talked in last come first; those after the session `before`, and
        where `query` stands in the title or a message. And whether there are more.

        Raises UnknownSession if there is no `before`, and SearchTooLong.
        """
        if not query:
            return await self._database.read(lambda of: search.listed(of, tenant, limit, before))
        async with self._searching[tenant]:  # one at a time, so that others have their turn
            return await self._database.search(
                lambda of: search.sought(of, tenant, query, limit, before)
            )

    async def change(
        self,
        tenant: str,
        id: str,
        *,
        title: str | None = None,
        model: str | None = None,
        settings: Settings | None = None,
        head: str | None = None,
    ) -> Session:
        """What is None stays as it is. Raises UnknownSession, UnknownMessage and StoreFull."""
        new: dict[str, Any] = {"id": id, "now": self._clock()}
        new |= {"title": title, "model": model, "settings": as_json(settings), "head": head}
        return await self._database.write(lambda to: _change(to, tenant, new))

    async def delete(self, tenant: str, id: str) -> None:
        """Raises UnknownSession."""
        await self._database.write(lambda to: _delete(to, tenant, id))

    async def path(self, id: str, message: str) -> list[Message]:
        """The branch of a session that ends with a message, its root first; raises
        UnknownMessage."""
        return await self._database.read(lambda of: path_to(of, id, message))

    async def begin(self, session: Session, new: Sequence[Message], answer: Message) -> None:
        """Store a turn that begins: what is said, and the answer that will be.

        Raises UnknownSession if the session was deleted meanwhile, UnknownMessage if what it goes
        on from is not in it, and StoreFull.
        """
        now = self._clock()
        await self._database.write(lambda to: _begin(to, session.id, [*new, answer], now))

    async def save(self, message: Message) -> None:
        """Store what became of an answer, unless its session was deleted."""
        row = dict(zip(Message.__struct_fields__, values(message), strict=True))
        changed = [row[name] for name in (*_SAVED, "id")]
        await self._database.write(lambda to: to.execute(_SAVE, changed))

    async def summarise(self, session: str, summary: Summary) -> None:
        """Store a summary, if what it stands for is stored (still, or already)."""
        await self._database.write(lambda to: _summarise(to, session, summary))

    async def summaries(self, session: str) -> list[Summary]:
        return await self._database.read(lambda of: summaries_of(of, session))

    async def branch(self, tenant: str, id: str, message: str) -> Session:
        """A new session, with a copy of the messages up to one.

        Raises UnknownSession, UnknownMessage, SessionBusy and StoreFull.
        """
        now = self._clock()
        return await self._database.write(lambda to: _branch(to, tenant, id, message, now))

    async def restore(self, tenant: str, whole: Conversation) -> Session:
        """A new session of what was one, here or elsewhere. Raises StoreFull."""
        now = self._clock()
        return await self._database.write(lambda to: _copy(to, tenant, whole, now))

    async def running(self, id: str) -> list[str]:
        """The answers of a session that are stored as being written."""
        of_this = "SELECT id FROM messages WHERE session = ? AND state = 'running'"
        rows = await self._database.read(lambda of: of.execute(of_this, (id,)).fetchall())
        return [answer for (answer,) in rows]

    async def cut(self, answers: Sequence[str]) -> None:
        """End answers that are stored as being written, and are not: the server has ended since,
        or its disk failed."""
        if answers:
            rows = [(answer,) for answer in answers]
            await self._database.write(lambda to: to.executemany(_CUT, rows))


def title_of(text: str) -> str:
    """The beginning of what was said, as a title: one line, whole words where there are."""
    words = " ".join(text[: 8 * _TITLE].split())
    if len(words) <= _TITLE:
        return words
    return (words[:_TITLE].rpartition(" ")[0] or words[:_TITLE]) + "…"


def _create(to: Connection, tenant: str, session: Session) -> None:
    count = "SELECT count(*) FROM sessions WHERE tenant = ?"
    if to.execute(count, (tenant,)).fetchone()[0] >= MOST:
        raise StoreFull(f"There are {MOST:,} sessions of this key already; delete some first.")
    said = {name: getattr(session, name) for name in Session.__struct_fields__}
    said |= {"tenant": tenant, "settings": as_json(session.settings)}
    to.execute(_CREATE, said)
    _check_size(to, session.id)


def _check_size(of: Connection, session: str) -> None:
    """Raises StoreFull if a session, or its tenant, has more than it may, and so takes back what
    was written."""
    size, of_all = of.execute(_STORED, (session,)).fetchone()
    if size > MOST_SESSION_BYTES:
        most = f"{MOST_SESSION_BYTES >> 20:,} MiB"
        raise StoreFull(f"This conversation would take more than {most}; begin a new one.")
    if of_all > MOST_BYTES:
        most = f"{MOST_BYTES >> 20:,} MiB"
        raise StoreFull(
            f"The conversations of this key would take more than {most}; delete some first."
        )


def _whole(of: Connection, tenant: str, id: str) -> Conversation:
    with at_one_moment(of):
        return Conversation(found(of, tenant, id), messages_of(of, id), summaries_of(of, id))


def _change(to: Connection, tenant: str, new: dict[str, Any]) -> Session:
    found(to, tenant, new["id"])
    if new["head"] is not None:
        _check_here(to, new["id"], new["head"], "head")
    to.execute(_CHANGE, new)
    if new["settings"] is not None:
        _check_size(to, new["id"])
    return found(to, tenant, new["id"])


def _delete(to: Connection, tenant: str, id: str) -> None:
    gone = to.execute("DELETE FROM sessions WHERE id = ? AND tenant = ?", (id, tenant))
    if not gone.rowcount:
        raise UnknownSession


def _begin(to: Connection, session: str, messages: list[Message], now: float) -> None:
    said = next((one.content for one in messages if one.role == "user"), "")
    touched = {"id": session, "head": messages[-1].id, "now": now, "title": title_of(said)}
    if not to.execute(_TOUCH, touched).rowcount:
        raise UnknownSession
    count = "SELECT count(*) FROM messages WHERE session = ?"
    if to.execute(count, (session,)).fetchone()[0] + len(messages) > MOST_MESSAGES:
        raise StoreFull(f"There are {MOST_MESSAGES:,} messages in this session; begin a new one.")
    new: set[str] = set()
    for message in messages:
        if message.parent is not None and message.parent not in new:
            _check_here(to, session, message.parent, "parent")
        new.add(message.id)
    add_messages(to, session, messages)
    _check_size(to, session)


def _check_here(of: Connection, session: str, message: str, field: str) -> None:
    if not _is_here(of, session, message):
        raise UnknownMessage(field)


def _is_here(of: Connection, session: str, message: str) -> bool:
    query = "SELECT 1 FROM messages WHERE id = ? AND session = ?"
    return of.execute(query, (message, session)).fetchone() is not None


def _summarise(to: Connection, session: str, summary: Summary) -> None:
    if _is_here(to, session, summary.upto):
        add_summaries(to, session, [summary])


def _branch(to: Connection, tenant: str, id: str, message: str, now: float) -> Session:
    whole = Conversation(found(to, tenant, id), messages_of(to, id), summaries_of(to, id))
    return _copy(to, tenant, branch_of(whole, message), now)


def _copy(to: Connection, tenant: str, whole: Conversation, now: float) -> Session:
    copy = renewed(whole, now)
    _create(to, tenant, copy.session)
    add_messages(to, copy.session.id, copy.messages)
    add_summaries(to, copy.session.id, copy.summaries)
    _check_size(to, copy.session.id)
    return copy.session
