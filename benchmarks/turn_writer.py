"""Writes turns into a database and says of each what is stored, until it is killed.

    python -m benchmarks.turn_writer FILE SEED

Started and killed by turn_kills. A line of JSON on stdout is said after a write has returned, but
for "deleting", which is said before.
"""

import asyncio
import hashlib
import json
import random
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from api.store.copies import message_id
from api.store.database import Database
from api.store.records import Message, Session, Summary
from api.store.sessions import Sessions

TENANT: Final = "writer"
_WRITERS: Final = 3
_SESSIONS: Final = 12  # each; of more the oldest is deleted
_WORDS: Final = 400


class Writer:
    def __init__(self, sessions: Sessions, rng: random.Random) -> None:
        self._sessions = sessions
        self._rng = rng

    async def write(self, mine: list[Session]) -> None:
        while True:
            if len(mine) > _SESSIONS:
                await self._delete(mine.pop(0))
            if not mine or self._rng.random() < 0.1:
                mine.append(await self._sessions.create(TENANT))
            session = self._rng.choice(mine)
            answer = await self._turn(await self._sessions.find(TENANT, session.id))
            if self._rng.random() < 0.1:
                mine.append(await self._branch(session, answer))

    async def _turn(self, session: Session) -> Message:
        said = Message(id=message_id(), parent=session.head, role="user", content=self._text())
        answer = Message(id=message_id(), parent=said.id, role="assistant", state="running")
        await self._sessions.begin(session, [said], answer)
        _say(did="begun", session=session.id, messages=[said.id, answer.id])
        answer = replace(answer, content=self._text(), state="done", reason="stop")
        await self._sessions.save(answer)
        _say(did="saved", session=session.id, message=answer.id, content=answer.content)
        if self._rng.random() < 0.1:
            await self._sessions.summarise(session.id, _summary(answer))
        return answer

    async def _branch(self, session: Session, answer: Message) -> Session:
        branch = await self._sessions.branch(TENANT, session.id, answer.id)
        _say(did="branched", session=branch.id, messages=[branch.head])
        return branch

    async def _delete(self, session: Session) -> None:
        _say(did="deleting", session=session.id)
        await self._sessions.delete(TENANT, session.id)
        _say(did="deleted", session=session.id)

    def _text(self) -> str:
        return sealed(" ".join(str(self._rng.random()) for _ in range(self._rng.randrange(_WORDS))))


def _summary(answer: Message) -> Summary:
    return Summary(upto=answer.id, facts=(), content=sealed("sum"), messages=2, created=0.0)


def sealed(text: str) -> str:
    """`text` and its hash: nobody can lose a part of it unseen."""
    return f"{text} {hashlib.sha256(text.encode()).hexdigest()}"


def is_sealed(text: str) -> bool:
    return text == sealed(text.rpartition(" ")[0])


def _say(**what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def _write(database: Database, rng: random.Random) -> None:
    sessions = Sessions(database)
    found, _ = await sessions.listed(TENANT, limit=1000)
    _say(did="opened")
    async with asyncio.TaskGroup() as tasks:
        for number in range(_WRITERS):
            mine = [one.session for one in found[number::_WRITERS]][::-1]
            tasks.create_task(Writer(sessions, rng).write(mine))


def main(arguments: Sequence[str]) -> None:
    path, seed = arguments
    with closing(Database(Path(path))) as database:
        asyncio.run(_write(database, random.Random(seed)))


if __name__ == "__main__":
    main(sys.argv[1:])
