"""How much one key may store: what counts, what is refused, and what makes room."""

import sqlite3
from contextlib import closing

import pytest
from msgspec.structs import replace

from api.store import sessions as sessions_module
from api.store.database import Database
from api.store.errors import StoreFull
from api.store.migrations import MIGRATIONS
from api.store.records import Settings, Summary
from api.store.sessions import Sessions
from tests.conversations import SETTINGS, Clock, asked, database, running, sessions, turn

__all__ = ["database", "sessions"]  # fixtures
THIRD = "ü" * 180_000  # of what one key may have here, in bytes
LONG = Settings(system_prompt=THIRD)
SENTENCE = "The conversations of this key would take more than 1 MiB; delete some first."
SIZES = "SELECT session, tenant, bytes FROM sizes ORDER BY session"
TABLES = ("sessions", "messages", "summaries")


@pytest.fixture(autouse=True)
def a_key_may_have_a_mebibyte(monkeypatch):
    monkeypatch.setattr(sessions_module, "MOST_BYTES", 1 << 20)


async def two_thirds(sessions, tenant="ann"):
    """A session in which that much was said, and its last answer."""
    session = await sessions.create(tenant)
    await turn(sessions, session, THIRD, tenant=tenant)
    return session, await turn(sessions, session, THIRD, tenant=tenant)


async def rows(database, *queries):
    return await database.read(lambda of: [of.execute(query).fetchall() for query in queries])


async def by_import(sessions, session, _):
    return await sessions.restore("ann", await sessions.whole("ann", session.id))


WAYS = {
    "turn": lambda sessions, session, _: turn(sessions, session, THIRD),
    "branch": lambda sessions, session, answer: sessions.branch("ann", session.id, answer.id),
    "import": by_import,
    "session": lambda sessions, *_: sessions.create("ann", settings=LONG),
    "settings": lambda sessions, session, _: sessions.change("ann", session.id, settings=LONG),
}


@pytest.mark.parametrize("more", WAYS.values(), ids=WAYS)
async def test_what_would_be_too_much_leaves_nothing_until_there_is_room(sessions, database, more):
    other = await sessions.create("ann")
    await turn(sessions, other, THIRD[:90_000])
    session, answer = await two_thirds(sessions)
    looks = [f"SELECT * FROM {table}" for table in (*TABLES, "sizes")]
    before = await rows(database, *looks)
    with pytest.raises(StoreFull) as refused:
        await more(sessions, session, answer)
    assert refused.value.message == SENTENCE
    assert await rows(database, *looks) == before
    await turn(sessions, session, "A little fits.")
    await two_thirds(sessions, "bob")
    await sessions.delete("ann", other.id)
    await sessions.delete("ann", session.id)
    session = await sessions.create("ann")
    await more(sessions, session, await turn(sessions, session, THIRD))


async def test_an_answer_that_was_begun_is_stored_whole_and_what_is_said_of_a_session_as_well(
    sessions,
):
    session, last = await two_thirds(sessions)
    said = asked(last.id, "Go on.")
    begun = running(said.id)
    await sessions.begin(session, [said], begun)
    done = replace(begun, content=THIRD, reasoning=THIRD, state="done")
    await sessions.save(done)
    assert (await sessions.whole("ann", session.id)).messages[-1] == done
    summary = Summary(upto=said.id, facts=(), content="s", messages=5, created=0.0)
    await sessions.summarise(session.id, summary)
    assert (await sessions.change("ann", session.id, title="Full", head=said.id)).title == "Full"
    with pytest.raises(StoreFull):
        await turn(sessions, session, "More.")


async def test_one_session_may_not_have_all_of_it(sessions, monkeypatch):
    monkeypatch.setattr(sessions_module, "MOST_SESSION_BYTES", 500_000)
    session = await sessions.create("ann")
    answer = await turn(sessions, session, THIRD)
    with pytest.raises(StoreFull, match="This conversation would take more than 0 MiB; begin a"):
        await turn(sessions, session, THIRD)
    await sessions.branch("ann", session.id, answer.id)


async def test_messages_without_a_word_count_as_well(sessions, monkeypatch):
    session = await sessions.create("ann")
    monkeypatch.setattr(sessions_module, "MOST_BYTES", 10_000)
    with pytest.raises(StoreFull):
        for _ in range(20):
            await turn(sessions, session, "", "")


async def test_one_of_the_first_version_has_the_sizes_that_it_would_have_by_now(tmp_path):
    """Those of a file in which all was written, and changed, that may be."""
    new, old = tmp_path / "new.db", tmp_path / "old.db"
    with closing(Database(new)) as database:
        sessions = Sessions(database, Clock())
        session, gone = await sessions.create("ann", "", "", SETTINGS), await sessions.create("bob")
        answer = await turn(sessions, session, "Say ü.", "ü" * 1000)
        summary = Summary(upto=answer.id, facts=("ü",), content="Said.", messages=2, created=0.0)
        await sessions.summarise(session.id, summary)
        await sessions.branch("ann", session.id, answer.id)
        await sessions.change("ann", session.id, title="Umlaut", settings=LONG)
        await turn(sessions, gone, "Hi", tenant="bob")
        await sessions.delete("bob", gone.id)
        await sessions.create("bob")
        [sizes] = await rows(database, SIZES)
    with closing(sqlite3.connect(old)) as made:
        made.executescript(f"{MIGRATIONS[0]}; PRAGMA user_version = 1")
        made.execute("ATTACH ? AS new", (str(new),))
        for table in TABLES:
            columns = [name for _, name, *_ in made.execute(f"PRAGMA main.table_info({table})")]
            names = ", ".join(columns)
            made.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM new.{table}")
        made.commit()
    with closing(Database(old)) as database:
        assert await rows(database, SIZES) == [sizes]
        assert (await Sessions(database).find("ann", session.id)).title == "Umlaut"
    empty, branch, changed = sorted(size for *_, size in sizes)
    assert empty < 1000 and 2000 < branch < 5000 and 360_000 < changed < 365_000
    assert {tenant for _, tenant, _ in sizes} == {"ann", "bob"}
