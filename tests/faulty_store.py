"""Turns that are stored on a disk where one call after the other goes wrong.

    LD_PRELOAD=... python -m tests.faulty_store Existing 1

The disk is faulty_disk.c, and the number says that 1 of so many calls goes wrong. Prints how
many did; what is not as promised then ends it.
"""

import asyncio
import ctypes
import logging
import os
import shutil
import sqlite3
import sys
from collections.abc import Awaitable
from contextlib import closing
from errno import EIO, ENOSPC
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec.structs import replace

from api.store.database import Database
from api.store.errors import StoreFailed
from api.store.records import Message
from api.store.sessions import Sessions
from inference import ConfigError
from tests.faulty_disk import FROM_THEN_ON, HALF, LOST, ONCE, Fault, tried

FAULTS = ((ONCE, EIO), (FROM_THEN_ON, ENOSPC), (HALF, 0), (LOST, EIO))
MEMORY = next((place for place in ("/dev/shm",) if os.path.isdir(place)), None)  # no real disk
TEXT = "There is more than a page of it. " * 200
Seen = dict[str, tuple[str, dict[str, str]]]
"""By session its title, and of its messages what they say."""


class Ledger:
    """Writes, and notes what is stored as soon as it was told so."""

    def __init__(self) -> None:
        self.stored: Seen = {}
        self.refused = 0
        self.doubtful: set[str] = set()  # what could not be deleted, and may be gone after a crash

    async def run(self, sessions: Sessions, database: Database) -> None:
        talk = await self._created(sessions, "talk")
        for number in range(2):
            await self._turn(sessions, talk, f"{talk}-{number}")
        await self._done(database.read(_checkpoint))
        if talk in self.stored and await self._done(sessions.change("", talk, title="new")):
            self.stored[talk] = ("new", self.stored[talk][1])
        short = await self._created(sessions, "short")
        await self._turn(sessions, short, f"{short}-0")
        if short in self.stored:
            if await self._done(sessions.delete("", short)):
                del self.stored[short]
            else:
                self.doubtful.add(short)
        await self._turn(sessions, talk, f"{talk}-2")

    async def _created(self, sessions: Sessions, title: str) -> str:
        try:
            session = await sessions.create("", title)
        except StoreFailed:
            self.refused += 1
            return ""
        self.stored[session.id] = (title, {})
        return session.id

    async def _turn(self, sessions: Sessions, id: str, name: str) -> None:
        if id not in self.stored:
            return
        said = Message(id=f"{name}-said", parent=None, role="user", content=TEXT)
        answer = Message(id=f"{name}-told", parent=said.id, role="assistant", state="running")
        _, messages = self.stored[id]
        session = await sessions.find("", id)
        if await self._done(sessions.begin(session, [said], answer)):
            messages |= {said.id: TEXT, answer.id: ""}
            if await self._done(sessions.save(replace(answer, content=TEXT, state="done"))):
                messages[answer.id] = TEXT

    async def _done(self, work: Awaitable[object]) -> bool:
        try:
            await work
        except StoreFailed:
            self.refused += 1
            return False
        return True


def _checkpoint(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


async def seen(database: Database) -> Seen:
    """What is stored, which is whole."""
    assert await database.read(lambda of: of.execute("PRAGMA integrity_check").fetchall()) == [
        ("ok",)
    ]
    sessions = Sessions(database)
    found, _ = await sessions.listed("")
    return {
        one.session.id: (
            one.session.title,
            {
                message.id: message.content
                for message in (await sessions.whole("", one.session.id)).messages
            },
        )
        for one in found
    }


async def seen_after_a_crash(path: Path) -> Seen:
    """What a server finds that starts after this one was killed now."""
    with TemporaryDirectory(dir=MEMORY) as folder:
        copy = Path(folder, path.name)
        for file in (path, path.with_name(f"{path.name}-wal")):
            if file.exists():
                shutil.copy(file, copy.with_name(file.name.replace(path.name, copy.name)))
        with closing(Database(copy)) as database:
            return await seen(database)


def holds(found: Seen, ledger: Ledger) -> bool:
    """Whether all that was stored is found; what was refused last may be there too."""
    for id in ledger.stored.keys() - ledger.doubtful:
        told = {(message, text) for message, text in ledger.stored[id][1].items() if text}
        if id not in found or not told <= found[id][1].items():
            return False
    return True


async def check(disk: ctypes.CDLL, path: Path, existing: bool, fault: Fault) -> int:
    """Writes with a fault, and goes on without; how many calls there were."""
    ledger, database = Ledger(), None
    if existing:
        with closing(Database(path)) as before:
            await ledger.run(Sessions(before), before)
    disk.disk_fault(os.fsencode(path.parent), *fault)
    try:
        database = Database(path)
        await ledger.run(Sessions(database), database)
    except ConfigError as error:
        assert str(path) in error.message and "\n" not in error.message
    finally:
        calls: int = disk.disk_mended()
    if database:
        with closing(database):
            await go_on(disk, database, ledger)
    disk.disk_forget()
    with closing(Database(path)) as database:
        assert await seen(database) == ledger.stored
    return calls


async def go_on(disk: ctypes.CDLL, database: Database, ledger: Ledger) -> None:
    assert await seen(database) == ledger.stored
    disk.disk_forget()
    assert await seen(database) == ledger.stored
    assert holds(await seen_after_a_crash(database.path), ledger), "what was stored is gone"
    refused = ledger.refused
    await ledger.run(Sessions(database), database)
    assert ledger.refused == refused, "it does not recover"
    assert await seen_after_a_crash(database.path) == ledger.stored


def main(existing: bool, stride: int) -> None:
    disk = ctypes.CDLL(None)

    def attempt(fault: Fault) -> int:
        with TemporaryDirectory(dir=MEMORY) as folder:
            path = Path(folder).resolve() / "onebox.db"
            return asyncio.run(check(disk, path, existing, fault))

    print(tried(FAULTS, attempt, stride))


if __name__ == "__main__":
    logging.disable()
    main(sys.argv[1] == "Existing", int(sys.argv[2]))
