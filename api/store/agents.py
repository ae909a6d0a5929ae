"""The agents of all tenants: named models with a system prompt and settings.

All are in memory as well, so that a request finds the one it names without waiting, and one that
names none pays for a look into a dict. Knows neither HTTP nor models.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from time import time
from typing import Any, Final, TypeVar
from uuid import uuid4

import msgspec

from api.store.database import Database
from api.store.errors import NameTaken, StoreFull, UnknownAgent
from api.store.records import About, Agent
from api.store.rows import columns, marks, record_of, values

MOST: Final = 1000  # of a tenant
MOST_BYTES: Final = 16 << 20  # of a tenant's settings, which are all in memory
_READ: Final = f"SELECT {columns(Agent)} FROM agents"
_OTHERS: Final = (
    "SELECT count(*), total(length(CAST(settings AS BLOB))) FROM agents "
    "WHERE tenant = ? AND id != ?"
)
_PUT: Final = f"""
INSERT INTO agents ({columns(Agent)}) VALUES ({marks(Agent)})
ON CONFLICT (id) DO UPDATE SET shared = excluded.shared, name = excluded.name,
description = excluded.description, model = excluded.model, settings = excluded.settings,
updated = excluded.updated
"""

Result = TypeVar("Result")
Named = dict[str, Agent]


class Agents:
    """Those in `database`, once they are opened. A tenant sees its own and those that are shared;
    of two of one name its own comes first. Upper and lower case are one."""

    def __init__(self, database: Database, clock: Callable[[], float] = time) -> None:
        self._database = database
        self._clock = clock
        self._of: dict[str, Named] = {}
        self._shared: Named = {}
        self._changing = asyncio.Lock()

    async def open(self) -> None:
        """Read all. Raises StoreFailed."""
        for agent in await self._database.read(_all):
            self._note(agent)

    def named(self, name: object, tenant: str) -> Agent | None:
        """The agent that a tenant means by the name of a model; `:latest` adds nothing."""
        if not isinstance(name, str):
            return None
        key = name.lower().removesuffix(":latest")
        return self._own(tenant).get(key) or self._shared.get(key)

    def listed(self, tenant: str) -> list[Agent]:
        """All that a tenant can name, by their names."""
        seen = self._shared | self._own(tenant)
        return [seen[key] for key in sorted(seen)]

    def find(self, tenant: str, which: str) -> Agent:
        """One that a tenant sees, by its id or its name. Raises UnknownAgent."""
        seen = (*self._own(tenant).values(), *self._shared.values())
        found = next((agent for agent in seen if agent.id == which), self.named(which, tenant))
        if found is None:
            raise UnknownAgent
        return found

    async def create(self, tenant: str, about: About) -> Agent:
        """Raises NameTaken, StoreFull and StoreFailed."""
        id, now = f"agent_{uuid4().hex}", self._clock()
        agent = Agent(**_fields(about), id=id, tenant=tenant, created=now, updated=now)
        return await self._alone(self._put(agent))

    async def change(self, agent: Agent, change: Callable[[Agent], About]) -> Agent:
        """`agent` as `change` says of what it is by now.

        Raises UnknownAgent if it is not there any more, what `change` raises, and as `create`.
        """

        async def changed() -> Agent:
            before = self._still(agent)
            said = _fields(change(before))
            return await self._put(msgspec.structs.replace(before, **said, updated=self._clock()))

        return await self._alone(changed())

    async def delete(self, agent: Agent) -> None:
        """Raises UnknownAgent if it is not there any more, and StoreFailed."""

        async def deleted() -> None:
            before = self._still(agent)
            await self._database.write(lambda to: _delete(to, before))
            self._forget(before)

        await self._alone(deleted())

    async def _alone(self, work: Coroutine[Any, Any, Result]) -> Result:
        """`work` after other changes, and to its end though nobody may wait for that any more: what
        is on the disk is in memory."""

        async def in_turn() -> Result:
            async with self._changing:
                return await work

        return await asyncio.shield(asyncio.create_task(in_turn()))

    async def _put(self, agent: Agent) -> Agent:
        self._check_name(agent)
        await self._database.write(lambda to: _put(to, agent))
        if before := self._by_id(agent):
            self._forget(before)
        self._note(agent)
        return agent

    def _check_name(self, agent: Agent) -> None:
        key = agent.name.lower()
        others = [self._own(agent.tenant).get(key), self._shared.get(key) if agent.shared else None]
        if any(other and other.id != agent.id for other in others):
            raise NameTaken(f"There is an agent called {agent.name} already.", "name")

    def _own(self, tenant: str) -> Named:
        return self._of.get(tenant, {})

    def _by_id(self, agent: Agent) -> Agent | None:
        own = self._own(agent.tenant).values()
        return next((one for one in own if one.id == agent.id), None)

    def _still(self, agent: Agent) -> Agent:
        if (now := self._by_id(agent)) is None:
            raise UnknownAgent
        return now

    def _note(self, agent: Agent) -> None:
        key = agent.name.lower()
        self._of.setdefault(agent.tenant, {})[key] = agent
        if agent.shared:
            self._shared[key] = agent

    def _forget(self, agent: Agent) -> None:
        key = agent.name.lower()
        del self._of[agent.tenant][key]
        if agent.shared:
            del self._shared[key]


def _fields(about: About) -> dict[str, Any]:
    return {name: getattr(about, name) for name in About.__struct_fields__}


def _all(database: sqlite3.Connection) -> list[Agent]:
    return [record_of(Agent, row) for row in database.execute(_READ)]


def _put(database: sqlite3.Connection, agent: Agent) -> None:
    settings = msgspec.json.encode(agent.settings)
    count, size = database.execute(_OTHERS, (agent.tenant, agent.id)).fetchone()
    if count >= MOST:
        raise StoreFull(f"There are {MOST:,} agents of this key already; delete some first.")
    if size + len(settings) > MOST_BYTES:
        most = MOST_BYTES >> 20
        raise StoreFull(f"The agents of this key would take more than {most} MiB.")
    database.execute(_PUT, values(agent))


def _delete(database: sqlite3.Connection, agent: Agent) -> None:
    database.execute("DELETE FROM agents WHERE id = ?", (agent.id,))
