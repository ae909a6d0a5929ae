"""Stored conversations, for tests: turns, and what hypothesis makes of them."""

from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from hypothesis import strategies as st
from msgspec.structs import replace

from api.store.copies import message_id
from api.store.database import Database
from api.store.records import Call, Conversation, Message, Session, Settings, Summary, Usage
from api.store.sessions import Sessions

TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
SETTINGS = Settings(system_prompt="Be brief.", temperature=0.5, seed=3, thinking=False, tools=TOOLS)
USAGE = Usage(
    prompt_tokens=7,
    cached_tokens=3,
    completion_tokens=2,
    ttft_ms=10.5,
    total_ms=30.0,
    tokens_per_second=60.5,
)


class Clock:
    """A second passes whenever it is looked at."""

    def __init__(self) -> None:
        self._seconds = count(1_000_000)

    def __call__(self) -> float:
        return float(next(self._seconds))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(tmp_path / "onebox.db")) as database:
        yield database


@pytest.fixture
def sessions(database: Database) -> Sessions:
    return Sessions(database, Clock())


def asked(parent: str | None, text: str) -> Message:
    return Message(id=message_id(), parent=parent, role="user", content=text)


def running(parent: str) -> Message:
    return Message(id=message_id(), parent=parent, role="assistant", state="running", model="fake")


async def turn(
    sessions: Sessions,
    session: Session,
    text: str,
    answer: str = "Yes.",
    after: str | None = "",
    tenant: str = "ann",
) -> Message:
    """A whole turn, after the last message or the message `after`; its answer."""
    if after == "":
        messages = (await sessions.whole(tenant, session.id)).messages
        after = messages[-1].id if messages else None
    said = asked(after, text)
    begun = running(said.id)
    await sessions.begin(session, [said], begun)
    done = replace(begun, content=answer, state="done", reason="stop", usage=USAGE)
    await sessions.save(done)
    return done


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
counts = st.integers(0, 2**53)
measures = st.floats(0, 1e9)
calls = st.builds(Call, words, words, texts)
usages = st.builds(
    Usage,
    prompt_tokens=counts,
    cached_tokens=counts,
    completion_tokens=counts,
    reasoning_tokens=counts,
    ttft_ms=measures,
    total_ms=measures,
    tokens_per_second=measures,
)
settings = st.builds(
    Settings,
    system_prompt=st.none() | texts,
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0, 1, exclude_min=True),
    top_k=st.none() | st.integers(-1, 2**31 - 1),
    min_p=st.none() | st.floats(0, 1),
    repetition_penalty=st.none() | st.floats(0.01, 10),
    presence_penalty=st.none() | st.floats(-2, 2),
    frequency_penalty=st.none() | st.floats(-2, 2),
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    max_tokens=st.none() | st.integers(1, 2**31 - 1),
    thinking=st.none() | st.booleans(),
    compaction=st.none() | st.booleans(),
    tools=st.none() | st.just(TOOLS) | st.just([]),
)


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """Any tree of messages, with some summaries, none of which is being written."""
    messages: list[Message] = []
    for number in range(draw(st.integers(0, 8))):
        parent = draw(st.sampled_from([None, *(message.id for message in messages)]))
        about = {
            "content": draw(texts),
            "reasoning": draw(texts),
            "thought_ms": draw(st.none() | counts),
            "tool_calls": tuple(draw(st.lists(calls, max_size=3))),
            "answers": draw(words),
            "state": draw(st.sampled_from(["done", "stopped", "cut", "failed"])),
            "reason": draw(words),
            "error": draw(texts),
            "model": draw(words),
            "usage": draw(st.none() | usages),
            "created": draw(measures),
        }
        role = draw(st.sampled_from(["user", "assistant", "tool", "system"]))
        messages.append(Message(id=f"m{number}", parent=parent, role=role, **about))
    ids = [message.id for message in messages]
    summaries = [
        Summary(
            upto=draw(st.sampled_from(ids)),
            facts=tuple(draw(st.lists(texts, max_size=3))),
            content=draw(texts),
            messages=draw(st.integers(0, 100)),
            created=draw(measures),
        )
        for _ in range(draw(st.integers(0, 2)) if ids else 0)
    ]
    session = Session(
        id="chat_1",
        title=draw(texts),
        model=draw(words),
        settings=draw(settings),
        head=draw(st.sampled_from([None, *ids])),
        created=draw(measures),
        updated=draw(measures),
    )
    return Conversation(session, messages, summaries)
