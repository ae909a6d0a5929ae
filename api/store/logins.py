"""Who is logged in: cookies that stand for a key, and tokens that do so once.

A cookie is stored as its SHA-256, and mirrored in memory, where every request looks it up. It
outlives the server, so its end is a time of day. A token outlives nothing. Neither says that its
key is still there. Knows no HTTP.
"""

import hashlib
import secrets
import sqlite3
import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from api.store.database import Database

DAYS: Final = 30
SECONDS: Final = DAYS * 24 * 3600
TOKEN_SECONDS: Final = 600
_COOKIES: Final = 64  # of one tenant; the oldest makes way
_TOKENS: Final = 16
_TOO_MANY: Final = """
SELECT sha256 FROM (
    SELECT sha256, expires, row_number() OVER (PARTITION BY tenant ORDER BY rowid DESC) AS place
    FROM logins
) WHERE expires <= ? OR place > ?
"""

Clock = Callable[[], float]


class Login(Struct, frozen=True):
    tenant: str
    expires: float


class Logins:
    """The cookies in `database`, to be opened before the first request, and `tokens`."""

    def __init__(self, database: Database, clock: Clock = time.time) -> None:
        self._database = database
        self._clock = clock
        self._logins: dict[str, Login] = {}
        self.tokens = Tokens()

    async def open(self) -> None:
        """Raises StoreFailed."""
        rows = await self._database.read(_all)
        self._logins = {digest: Login(tenant, expires) for digest, tenant, expires in rows}

    async def add(self, tenant: str) -> str:
        """A new cookie. Raises StoreFailed."""
        secret = secrets.token_urlsafe(32)
        digest, login = _digest(secret.encode()), Login(tenant, self._clock() + SECONDS)

        def work(connection: sqlite3.Connection) -> list[str]:
            row = (digest, login.tenant, login.expires)
            connection.execute("INSERT INTO logins VALUES (?, ?, ?)", row)
            return self._sweep(connection)

        gone = await self._database.write(work)
        self._logins[digest] = login
        for other in gone:
            self._logins.pop(other, None)
        return secret

    def tenant_of(self, secret: bytes) -> str | None:
        """In whose name a cookie is shown; None if it is not known, or not any more."""
        login = self._logins.get(_digest(secret))
        return login.tenant if login and login.expires > self._clock() else None

    async def remove(self, secret: bytes) -> None:
        """Raises StoreFailed, and then it is still there."""
        digest = _digest(secret)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM logins WHERE sha256 = ?", (digest,))

        await self._database.write(work)
        self._logins.pop(digest, None)

    def _sweep(self, connection: sqlite3.Connection) -> list[str]:
        """Delete those that have ended, and those that one tenant has too many of; which."""
        rows = connection.execute(_TOO_MANY, (self._clock(), _COOKIES)).fetchall()
        connection.executemany("DELETE FROM logins WHERE sha256 = ?", rows)
        return [digest for (digest,) in rows]


class Tokens:
    """Each is good for one request, within ten minutes."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._tokens: dict[str, Login] = {}  # oldest first

    def add(self, tenant: str) -> str:
        now = self._clock()
        known = {digest: login for digest, login in self._tokens.items() if login.expires > now}
        others = [digest for digest, login in known.items() if login.tenant == tenant]
        for digest in others[: max(0, len(others) + 1 - _TOKENS)]:
            del known[digest]
        secret = secrets.token_urlsafe(32)
        self._tokens = {**known, _digest(secret.encode()): Login(tenant, now + TOKEN_SECONDS)}
        return secret

    def take(self, secret: bytes) -> str | None:
        """In whose name a token is shown, the first time."""
        login = self._tokens.pop(_digest(secret), None)
        return login.tenant if login and login.expires > self._clock() else None


def _all(connection: sqlite3.Connection) -> list[tuple[str, str, float]]:
    return connection.execute("SELECT sha256, tenant, expires FROM logins").fetchall()


def _digest(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()
