"""The database file: whose it is, what it must be, and that transactions are whole or nothing."""

import asyncio
import json
import os
import random
import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api import cli
from api.store import database as database_module
from api.store.database import Database, opened, place, temporary
from api.store.errors import StoreFailed
from api.store.migrations import MIGRATIONS
from api.store.sessions import Sessions
from benchmarks.turn_kills import Tally, Told, examine, kill_often, losses
from benchmarks.turn_writer import TENANT, is_sealed, sealed
from inference import ConfigError
from tests.conversations import database, turn

__all__ = ["database"]  # a fixture


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "private" / "onebox.db"


def filled(path: Path) -> None:
    async def fill() -> None:
        with closing(Database(path)) as made:
            sessions = Sessions(made)
            for number in range(5):
                await turn(sessions, await sessions.create(""), f"Hello {number}" * 2000, tenant="")

    asyncio.run(fill())


def told_and_forgotten(path: Path) -> bool:
    """Whether a text was in the file while it was stored. It has been deleted since."""

    async def tell_and_forget() -> bool:
        with closing(Database(path)) as made:
            sessions = Sessions(made)
            await turn(sessions, await sessions.create(""), "Hello", tenant="")
            session = await sessions.create("")
            await turn(sessions, session, "secret" * 5000, tenant="")
            stored = path.with_name(path.name + "-wal").read_bytes()
            await sessions.delete("", session.id)
        return b"secret" in stored

    return asyncio.run(tell_and_forget())


def titles(database: Database) -> list[str]:
    return [title for (title,) in asyncio.run(database.read(_titles))]


def _titles(of: sqlite3.Connection) -> list[tuple[str]]:
    return of.execute("SELECT title FROM sessions ORDER BY touched").fetchall()


def _create(to: sqlite3.Connection, id: str = "a") -> None:
    to.execute("INSERT INTO sessions VALUES (?, '', 't', '', '{}', NULL, 1, 0, 0)", (id,))


def test_it_is_where_the_user_has_data(monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert place() == Path("/data/onebox/onebox.db")
    monkeypatch.delenv("XDG_DATA_HOME")
    assert place() == Path.home() / ".local/share/onebox/onebox.db"


def test_what_is_deleted_is_nowhere_in_the_file(path):
    assert told_and_forgotten(path)
    assert b"Hello" in path.read_bytes()
    assert b"secret" not in path.read_bytes()


def test_only_its_owner_may_look_at_it(path):
    before = os.umask(0)
    try:
        filled(path)
        with closing(Database(path)) as made:
            asyncio.run(made.write(_create))
            files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    names = {f"onebox.db{ending}" for ending in ("", "-wal", "-shm", ".lock")}
    assert files == dict.fromkeys(names, 0o600)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_it_belongs_to_one_server_until_that_closes_it(path):
    with closing(Database(path)), pytest.raises(ConfigError, match="another server uses it"):
        Database(path)
    Database(path).close()


def test_what_was_stored_is_there_again(path):
    filled(path)
    with closing(Database(path)) as again:
        assert len(titles(again)) == 5


def test_one_of_a_newer_version_is_refused_and_left_alone(path):
    filled(path)
    with closing(sqlite3.connect(path)) as made:
        made.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"a newer Onebox wrote it\. Name another file"):
        Database(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"not a database" * 1000,
        lambda whole: b"\0" * len(whole),
        lambda whole: whole[:4096] if len(whole) > 8192 else b"",
        lambda whole: whole[:18] + b"\xff\xff" + whole[20:],
        lambda whole: whole[:4096] + random.Random(0).randbytes(len(whole) - 4096),
    ],
    ids=["text", "zeros", "cut", "header", "noise"],
)
def test_one_that_is_damaged_is_refused_or_says_so_when_it_is_read(path, damage):
    filled(path)
    path.write_bytes(damage(path.read_bytes()))
    try:
        database = Database(path)
    except ConfigError as error:
        assert str(path) in error.message and "\n" not in error.message
        return
    with closing(database), pytest.raises(StoreFailed):
        asyncio.run(database.read(lambda of: of.execute("SELECT * FROM messages").fetchall()))


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "onebox.db", tmp_path / "folder"):
        with pytest.raises(ConfigError, match=str(path)):
            Database(path)


def test_an_older_one_is_brought_up_to_date_and_keeps_what_is_in_it(path, monkeypatch):
    filled(path)
    step = "ALTER TABLE sessions ADD COLUMN colour TEXT NOT NULL DEFAULT 'blue'"
    monkeypatch.setattr(database_module, "MIGRATIONS", (*MIGRATIONS, step))
    for _ in range(2):
        with closing(Database(path)) as made:
            colours = asyncio.run(made.read(lambda of: of.execute("SELECT colour FROM sessions")))
            assert colours.fetchall() == [("blue",)] * 5
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="newer"):
        Database(path)


def test_a_step_that_fails_leaves_the_old_version(path, monkeypatch):
    filled(path)
    steps = (*MIGRATIONS, "CREATE TABLE new (x); INSERT INTO nowhere VALUES (1)")
    monkeypatch.setattr(database_module, "MIGRATIONS", steps)
    with pytest.raises(ConfigError, match="nowhere"):
        Database(path)
    monkeypatch.undo()
    with closing(Database(path)) as made:
        assert len(titles(made)) == 5
        with pytest.raises(StoreFailed):
            asyncio.run(made.read(lambda of: of.execute("SELECT * FROM new")))


async def test_a_transaction_that_fails_leaves_nothing(database):
    def half(to: sqlite3.Connection) -> None:
        _create(to)
        raise ValueError

    def twice(to: sqlite3.Connection) -> None:
        _create(to)
        _create(to)

    with pytest.raises(ValueError):
        await database.write(half)
    with pytest.raises(StoreFailed) as failed:
        await database.write(twice)
    assert isinstance(failed.value.__cause__, sqlite3.IntegrityError)
    assert await database.read(_titles) == []
    await database.write(_create)
    assert await database.read(_titles) == [("t",)]


async def test_a_transaction_that_nobody_waits_for_any_more_is_whole(database):
    begun, go_on = threading.Event(), threading.Event()

    def slow(to: sqlite3.Connection) -> None:
        _create(to, "a")
        begun.set()
        go_on.wait()
        _create(to, "b")

    writing = asyncio.create_task(database.write(slow))
    await asyncio.to_thread(begun.wait)
    writing.cancel()
    await asyncio.wait([writing])
    assert await database.read(_titles) == []  # readers do not wait for writers
    go_on.set()
    await database.write(lambda to: None)
    assert len(await database.read(_titles)) == 2


def test_a_temporary_one_leaves_nothing():
    with temporary() as made:
        folder = made.path.parent
        assert folder.is_dir()
    assert not folder.exists()


def test_a_second_server_of_a_user_is_warned_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    warnings: list[str] = []
    with opened(None, warnings.append) as first, opened(None, warnings.append) as second:
        assert first.path == tmp_path / "onebox" / "onebox.db" != second.path
    [warning] = warnings
    assert warning.startswith("Warning: conversations go when this server ends. ")
    assert "another server uses it" in warning and "server.database in models.yaml" in warning
    assert "\n" not in warning
    with opened(None, warnings.append) as again:
        assert again.path == first.path
    assert len(warnings) == 1


def test_one_that_is_named_has_to_work(path):
    with closing(Database(path)), pytest.raises(ConfigError), opened(path, pytest.fail):
        pass


CONFIG = "models: {{gone: {{path: nothing.gguf, aliases: [default]}}}}\nserver: {{port: 0, {0}}}\n"


@pytest.mark.parametrize(("database", "status"), [("database: used.db", 78), ("", 66)])
def test_serve_needs_the_database_that_is_named_and_no_other(
    tmp_path, monkeypatch, database, status
):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    config = tmp_path / "models.yaml"
    config.write_text(CONFIG.format(database))
    with closing(Database(tmp_path / "used.db")), closing(Database(place())):
        told = CliRunner().invoke(cli.app, ["serve", "--config", str(config)])
    assert told.exit_code == status
    first, *more = told.stderr.splitlines()
    assert "another server uses it" in first and len(more) == (status == 66)


def test_what_was_told_is_there_whenever_the_server_is_killed(tmp_path):
    tally = kill_often(tmp_path / "turns.db", 25, random.Random(0))
    assert tally.faults == []
    assert tally.turns > 100 and tally.cut > 0


ANSWER = "SELECT id FROM messages WHERE role = 'assistant' LIMIT 1"


@pytest.mark.parametrize(
    ("damage", "seen"),
    [
        (f"DELETE FROM messages WHERE id = ({ANSWER})", "its answer is missing"),
        ("DELETE FROM messages WHERE role = 'user'", "what it answers is missing"),
        (f"UPDATE messages SET content = 'half' WHERE id = ({ANSWER})", "a part of it is missing"),
        ("UPDATE sessions SET head = 'gone'", "its head is missing"),
        ("DELETE FROM sessions", "hangs loose"),
    ],
)
def test_what_a_kill_would_damage_would_be_seen(damage, seen, path):
    async def write() -> None:
        with closing(Database(path)) as made:
            sessions = Sessions(made)
            session = await sessions.create(TENANT)
            for _ in range(3):
                await turn(sessions, session, sealed("Hi"), sealed("Hello"), tenant=TENANT)

    for harm, faults in (("SELECT 1", False), (damage, True)):
        asyncio.run(write())
        with closing(sqlite3.connect(path)) as made:
            made.execute(harm)
            made.commit()
        tally = Tally()
        asyncio.run(examine(path, Told(), tally))
        assert any(seen in fault for fault in tally.faults) == faults


def test_what_was_told_and_is_gone_would_be_seen():
    told = Told()
    for line in (
        {"did": "begun", "session": "a", "messages": ["1", "2"]},
        {"did": "saved", "session": "a", "message": "2", "content": sealed("x")},
        {"did": "begun", "session": "b", "messages": ["3"]},
        {"did": "deleting", "session": "b"},
    ):
        told.hear(json.loads(json.dumps(line)))
    assert len(losses(told, {})) == 3
    told.hear({"did": "deleting", "session": "a"})
    assert losses(told, {}) == []
    assert is_sealed(sealed("x")) and not is_sealed(sealed("x")[1:]) and TENANT
