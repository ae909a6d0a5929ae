"""One SQLite file: opened, locked, brought up to date, and written by one thread.

A transaction runs as a whole on that thread, so who stops waiting for it leaves no half of it
behind. What `write` has returned from is on the disk. Another thread reads, and a third one
searches, which may take long. Knows no table but its own version.
"""

import asyncio
import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Final, TypeVar

from api.store.errors import SearchTooLong, StoreFailed
from api.store.migrations import MIGRATIONS
from inference import ConfigError

LONGEST: Final = 10  # seconds of a search
_STEPS: Final = 20  # of SQLite's machine, a few to a row, until it is asked whether to go on
_SETTINGS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA busy_timeout = 5000",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA secure_delete = ON",  # what is deleted is overwritten
)
# Refused where SQLite, after a fault, has opened a file that can only be read.
_NOTHING: Final = "DELETE FROM sqlite_sequence WHERE false"
_log = logging.getLogger(__name__)

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]


def place() -> Path:
    """The database of this user; XDG base directory specification."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "onebox" / "onebox.db"


class Database:
    """The file at `path`, which belongs to this process until it is closed.

    To make one raises ConfigError: it cannot be opened, is none, is of a newer version, or another
    server has it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = _locked(path)
        try:
            self._writer = _connected(path)
            self._reader = _connected(path)
            self._searcher = _connected(path)
        except (OSError, sqlite3.Error, ConfigError) as error:
            _unlock(self._lock)
            if isinstance(error, ConfigError):
                raise
            raise _unusable(path, str(error)) from error
        self._writing = ThreadPoolExecutor(1, "database-writer")
        self._reading = ThreadPoolExecutor(1, "database-reader")
        self._searching = ThreadPoolExecutor(1, "database-searcher")
        self._closing = threading.Event()

    async def write(self, work: Work[Result]) -> Result:
        """What `work` returns, as one transaction: stored by then, or not at all.

        Raises StoreFailed if the disk does not do it, and what `work` raises.
        """
        return await _run(self._writing, self._transaction, work)

    async def read(self, work: Work[Result]) -> Result:
        """What `work` finds. Raises as `write`."""
        return await _run(self._reading, work, self._reader)

    async def search(self, work: Work[Result]) -> Result:
        """What `work` finds at one moment, while others read. It is ended when its caller is.

        Raises SearchTooLong if it is not done in time, and as `write`.
        """
        left = threading.Event()
        try:
            return await _run(self._searching, self._found, work, left)
        finally:
            left.set()

    def close(self) -> None:
        """Waits for what is being written; what is being searched is ended."""
        self._closing.set()
        for threads in (self._writing, self._reading, self._searching):
            threads.shutdown()
        self._searcher.close()
        self._reader.close()
        self._writer.close()
        _unlock(self._lock)

    def _transaction(self, work: Work[Result]) -> Result:
        connection = self._writer
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result

    def _found(self, work: Work[Result], left: threading.Event) -> Result:
        connection, end = self._searcher, monotonic() + LONGEST

        def over() -> bool:
            return left.is_set() or self._closing.is_set() or monotonic() > end

        with at_one_moment(connection):
            connection.set_progress_handler(over, _STEPS)
            try:
                return work(connection)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                    raise SearchTooLong from error
                raise
            finally:
                connection.set_progress_handler(None, _STEPS)


@contextmanager
def at_one_moment(connection: sqlite3.Connection) -> Iterator[None]:
    """Whatever is written meanwhile, all is read as it is now."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def opened(path: Path | None, warn: Callable[[str], None]) -> Iterator[Database]:
    """The database at `path`, or that of this user, or a temporary one and a warning.

    Raises ConfigError if `path` is given and cannot be used.
    """
    kept: AbstractContextManager[Database]
    try:
        kept = closing(Database(path or place()))
    except ConfigError as error:
        if path:
            raise
        warn(f"Warning: conversations go when this server ends. {error.message}")
        kept = temporary()
    with kept as database:
        yield database


@contextmanager
def temporary() -> Iterator[Database]:
    """A database that goes with who uses it."""
    with (
        TemporaryDirectory(prefix="onebox-") as folder,
        closing(Database(Path(folder, "onebox.db"))) as database,
    ):
        yield database


async def _run(threads: ThreadPoolExecutor, work: Callable[..., Result], *about: object) -> Result:
    try:
        return await asyncio.get_running_loop().run_in_executor(threads, work, *about)
    except sqlite3.Error as error:
        _log.error("The database failed: %s", error)
        raise StoreFailed from error


def _locked(path: Path) -> int:
    """A descriptor that holds the lock of a database; the system takes it back with the process."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unusable(path, str(error.strerror)) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        _unlock(lock)
        raise _unusable(path, "another server uses it") from error
    return lock


def _unlock(lock: int) -> None:
    with suppress(OSError):  # of the disk; it is closed all the same
        os.close(lock)


def _connected(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # nobody else's to read
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        for setting in _SETTINGS:
            connection.execute(setting)
        _bring_up_to_date(connection, path)
        connection.execute(_NOTHING)
    except BaseException:
        connection.close()
        raise
    return connection


def _bring_up_to_date(connection: sqlite3.Connection, path: Path) -> None:
    with closing(connection.execute("PRAGMA user_version")) as found:
        [version] = found.fetchone()
    if version > len(MIGRATIONS):
        raise _unusable(path, "a newer Onebox wrote it")
    for number, step in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN;{step};PRAGMA user_version = {number};COMMIT;")


def _unusable(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"Conversations cannot be stored in {path}: {reason}. "
        "Name another file with server.database in models.yaml."
    )
