"""Kills a server's store while it writes: `python -m benchmarks.turn_kills --times 200`.

A child process writes turns and says of each when it is stored. It is killed at a random moment,
again and again on the same file. Each time the file has to open, be whole, have every turn that was
told of, and no half of one.
"""

import asyncio
import json
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from api.store.database import Database
from api.store.records import Conversation
from api.store.sessions import Sessions
from benchmarks import run
from benchmarks.turn_writer import TENANT, is_sealed

_MOST_LINES: Final = 120  # that are read before a kill
_LONGEST: Final = 0.02  # seconds from the last of them to the kill
_START: Final = 0.5  # and from the start of the child, where none is read


@dataclass(slots=True)
class Told:
    """What a child has said is stored, by session; `gone` may be deleted or not, unless it is
    `deleted`."""

    messages: dict[str, set[str]] = field(default_factory=dict)
    contents: dict[str, tuple[str, str]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)

    def hear(self, line: dict[str, Any]) -> None:
        match line:
            case {"did": "begun" | "branched", "session": session, "messages": messages}:
                self.messages.setdefault(session, set()).update(messages)
            case {"did": "saved", "session": session, "message": message, "content": content}:
                self.contents[message] = (session, content)
            case {"did": "deleting", "session": session}:
                self.gone.add(session)
            case {"did": "deleted", "session": session}:
                self.deleted.add(session)


@dataclass(slots=True)
class Tally:
    kills: int = 0
    turns: int = 0
    """Told of, over all kills."""
    cut: int = 0
    """Answers that were being written."""
    idle: int = 0
    """Kills before anything was told of."""
    faults: list[str] = field(default_factory=list)
    opened: list[float] = field(default_factory=list)
    """Seconds that it took to open the file and cut what had been running."""


def main(
    times: Annotated[int, typer.Option(min=1, help="Kills.")] = 200,
    seed: Annotated[int, typer.Option(help="Of what is written and when it is killed.")] = 0,
) -> None:
    """Kill a process that writes turns; end with 1 unless the file is always as it was told."""
    with TemporaryDirectory() as folder:
        tally = kill_often(Path(folder, "turns.db"), times, random.Random(seed))
    table = Table("kills", "before a turn", "turns told of", "answers cut", "opened, longest (ms)")
    longest = f"{1000 * max(tally.opened):.0f}"
    table.add_row(*map(str, (tally.kills, tally.idle, tally.turns, tally.cut)), longest)
    console = Console()
    console.print(table)
    console.print("\n".join(tally.faults) or "Nothing was lost, and nothing was half there.")
    if tally.faults:
        raise SystemExit(1)


def kill_often(path: Path, times: int, rng: random.Random) -> Tally:
    """What `times` kills on one file have done; it ends with the first fault."""
    tally, told = Tally(), Told()
    while tally.kills < times and not tally.faults:
        before = len(told.contents)
        _kill_once(path, rng, told)
        tally.kills += 1
        tally.turns = len(told.contents)
        tally.idle += tally.turns == before
        asyncio.run(examine(path, told, tally))
    return tally


def _kill_once(path: Path, rng: random.Random, told: Told) -> None:
    command = [sys.executable, "-m", "benchmarks.turn_writer", str(path), str(rng.random())]
    lines, longest = rng.randrange(_MOST_LINES), _LONGEST
    if rng.random() < 0.2:
        lines, longest = 0, _START
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        heard = [child.stdout.readline() for _ in range(lines)]
        time.sleep(rng.uniform(0, longest))
        child.kill()
        heard += child.stdout.readlines()
    for line in heard:
        if line.endswith("\n"):  # the last one may be cut, and was not said then
            told.hear(json.loads(line))


async def examine(path: Path, told: Told, tally: Tally) -> None:
    """Opens the file as a server would, and adds what is wrong with it to the faults."""
    began = time.perf_counter()
    with closing(Database(path)) as database:
        sessions = Sessions(database)
        tally.opened.append(time.perf_counter() - began)
        tally.faults += await database.read(_damage)
        found, more = await sessions.listed(TENANT, limit=100_000)
        assert not more
        for one in found:
            left = await sessions.running(one.session.id)
            await sessions.cut(left)
            tally.cut += len(left)
        there = {one.session.id: await sessions.whole(TENANT, one.session.id) for one in found}
    tally.faults += [fault for whole in there.values() for fault in _halves(whole)]
    tally.faults += losses(told, there)


def _damage(database: sqlite3.Connection) -> list[str]:
    whole = [text for (text,) in database.execute("PRAGMA integrity_check")]
    loose = database.execute("PRAGMA foreign_key_check").fetchall()
    return [*(whole if whole != ["ok"] else ()), *(f"hangs loose: {row}" for row in loose)]


def _halves(whole: Conversation) -> list[str]:
    """What is there of a turn without the rest of it."""
    known = {message.id: message for message in whole.messages}
    answered = {message.parent for message in whole.messages if message.role == "assistant"}
    faults = []
    if whole.session.head not in {None, *known}:
        faults.append(f"{whole.session.id}: its head is missing")
    for message in whole.messages:
        if message.parent is not None and message.parent not in known:
            faults.append(f"{message.id}: what it answers is missing")
        if message.role == "user" and message.id not in answered:
            faults.append(f"{message.id}: its answer is missing")
        if not (is_sealed(message.content) or (message.state, message.content) == ("cut", "")):
            faults.append(f"{message.id}: a part of it is missing")
    return faults


def losses(told: Told, there: Mapping[str, Conversation]) -> list[str]:
    """What was told of and is not there, or is there again."""
    contents = {one.id: one.content for whole in there.values() for one in whole.messages}
    lost = [
        f"{message}: it was told of, and is not there"
        for session, messages in told.messages.items()
        if session not in told.gone
        for message in messages - contents.keys()
    ]
    lost += [
        f"{message}: it is not what was saved"
        for message, (session, content) in told.contents.items()
        if session not in told.gone and contents.get(message) != content
    ]
    return lost + [f"{session}: it was deleted" for session in told.deleted & there.keys()]


if __name__ == "__main__":
    run(main)
