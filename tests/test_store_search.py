"""Searches: how long they may take, who waits for them, and what is shown of what was found."""

import asyncio
import threading
from contextlib import closing

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.store import database as database_module
from api.store import search
from api.store.database import Database
from api.store.errors import SearchTooLong, StoreFailed
from api.store.search import AFTER, BEFORE, excerpt
from tests.conversations import database, sessions, turn
from tests.fake_pool import FakePool, serving

__all__ = ["database", "sessions"]  # fixtures
ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT sum(i) FROM n"
HERE = "/api/v1/sessions"


class Endless:
    """A search that never ends by itself."""

    def __init__(self):
        self._begun = threading.Event()

    def __call__(self, of, *_):
        self._begun.set()
        return of.execute(ENDLESS).fetchall()

    async def begun(self):
        await asyncio.to_thread(self._begun.wait, 10)
        self._begun.clear()


@pytest.fixture
def no_limit(monkeypatch):
    monkeypatch.setattr(database_module, "LONGEST", 1e9)


@pytest.fixture
def no_time(monkeypatch):
    monkeypatch.setattr(database_module, "LONGEST", -1)


async def in_time(work):
    """What would wait for ever without what is tested."""
    return await asyncio.wait_for(work, 10)


def one(of):
    return of.execute("SELECT 1").fetchone()


async def test_a_search_ends_with_who_waits_for_it_and_disturbs_nobody(database, no_limit):
    endless = Endless()
    for _ in range(2):
        searching = asyncio.create_task(database.search(endless))
        await endless.begun()
        waiting = asyncio.create_task(database.search(one))
        assert await in_time(database.read(one)) == (1,)
        assert await in_time(database.write(one)) == (1,)
        assert not waiting.done()
        searching.cancel()
        assert await in_time(waiting) == (1,)


async def test_a_search_that_takes_too_long_is_refused(database, no_time):
    for _ in range(2):
        with pytest.raises(SearchTooLong, match="delete some conversations"):
            await in_time(database.search(Endless()))
        assert await database.search(one) == (1,)  # done before anybody looks at the time


async def test_a_search_that_fails_has_not_taken_too_long(database):
    with pytest.raises(StoreFailed):
        await database.search(lambda of: of.execute("SELECT * FROM nothing"))
    assert await database.search(one) == (1,)


async def test_a_database_is_closed_though_it_is_searched(tmp_path, no_limit):
    with closing(Database(tmp_path / "onebox.db")) as made:
        endless = Endless()
        searching = asyncio.create_task(made.search(endless))
        await endless.begun()
        await in_time(asyncio.to_thread(made.close))
        with pytest.raises(SearchTooLong):
            await in_time(searching)
    Database(tmp_path / "onebox.db").close()


async def test_a_search_sees_one_moment(database, sessions):
    begun, go_on = threading.Event(), threading.Event()

    def twice(of):
        count = "SELECT count(*) FROM sessions"
        before = of.execute(count).fetchone()
        begun.set()
        go_on.wait(10)
        return before, of.execute(count).fetchone()

    searching = asyncio.create_task(database.search(twice))
    await asyncio.to_thread(begun.wait, 10)
    await sessions.create("ann")
    go_on.set()
    assert await searching == ((0,), (0,))
    assert await database.search(lambda of: of.execute("SELECT count(*) FROM sessions").fetchone())


async def test_whoever_searches_much_lets_others_come_between(sessions, monkeypatch):
    asked, go_on = [], threading.Event()

    def sought(of, tenant, *_):
        go_on.wait(10)
        asked.append(tenant)
        return [], False

    monkeypatch.setattr(search, "sought", sought)
    tenants = ("ann", "ann", "ann", "bob")
    searching = [asyncio.create_task(sessions.listed(tenant, "x")) for tenant in tenants]
    await sessions.listed("ann")  # by then all have begun
    go_on.set()
    await asyncio.gather(*searching)
    assert asked == ["ann", "bob", "ann", "ann"]


async def test_a_client_that_hangs_up_ends_its_search(database, monkeypatch, no_limit):
    endless = Endless()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "sought", endless)
        async with (
            serving(FakePool(), database=database) as url,
            httpx.AsyncClient(base_url=url) as http,
        ):
            asking = asyncio.create_task(http.get(HERE, params={"query": "x"}))
            await endless.begun()
            assert (await http.get(HERE)).json() == {"sessions": [], "more": False}
            asking.cancel()
            assert await in_time(database.search(one)) == (1,)


async def test_a_search_that_takes_too_long_is_a_503_that_says_what_to_do(
    database, sessions, no_time
):
    session = await sessions.create("")
    for _ in range(20):
        await turn(sessions, session, "Hi", tenant="")
    async with (
        serving(FakePool(), database=database) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        answer = await http.get(HERE, params={"query": "nowhere"})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (
            503,
            "search_too_long",
            "query",
        )
        assert "delete some conversations" in error["message"]


@pytest.mark.parametrize("word", ["needle", "Köln", "CAFE\u0301", "straße", "世界", 90 * "e\u0301"])
@given(st.integers(-200, 50), st.sampled_from("aüߧ字"), st.integers(0, 5000))
def test_what_stands_anywhere_in_a_long_text_is_found_and_shown(word, place, letter, after):
    text = letter * (2 * search._PIECE + place) + f" {word} " + letter * after
    shown = search._composed(word)
    line = excerpt(text, search._folded(shown))
    assert line.startswith(f"…{letter}") and f"{letter} {shown}" in line
    assert line.endswith("…") == (len(shown) + 1 + after > AFTER)
    assert len(line) <= BEFORE + AFTER + 2


def test_a_long_text_is_never_looked_at_as_a_whole(monkeypatch):
    """Accents in a row cost the square of their number, and nobody else gets on meanwhile."""
    lengths = []

    def normalize(form, text):
        lengths.append(len(text))
        return text

    monkeypatch.setattr(search.unicodedata, "normalize", normalize)
    assert excerpt("a" + "\u0301\u0323" * 100_000, "needle") is None
    assert len(lengths) > 10 and max(lengths) < 3000
    lengths.clear()
    assert excerpt("needle" + "\u0301\u0323" * 100_000, "needle")
    assert len(lengths) == 1
