"""Conversations as files: all of one comes back from JSON, and Markdown can be read."""

import asyncio
import json
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import settings as settings_of
from hypothesis import strategies as st
from msgspec.structs import replace

from api.body import parse_object
from api.gateway.imports import understand
from api.gateway.settings import SettingsBody
from api.store.database import Database
from api.store.exports import as_json, as_markdown
from api.store.records import Call, Conversation, Message, Session, Settings
from api.store.sessions import Sessions
from inference import BadRequest
from tests.conversations import SETTINGS, conversations, settings


def again(whole: Conversation) -> Conversation:
    return understand(parse_object(as_json(whole)))


def same(one: Conversation, other: Conversation) -> bool:
    """But for what is new about a copy: the id, and when it was changed."""
    session = replace(one.session, id=other.session.id, updated=other.session.updated)
    return Conversation(session, one.messages, one.summaries) == other


@given(conversations())
def test_what_was_exported_is_understood_as_it_was(whole):
    assert same(whole, again(whole))


@given(settings)
def test_every_setting_is_among_those_that_a_client_says(said):
    written = json.loads(as_json(Conversation(session_with(said), [], [])))["session"]["settings"]
    assert SettingsBody.model_validate(written).settings() == said


@settings_of(max_examples=20)
@given(conversations())
def test_what_is_stored_comes_back_from_its_export(whole):
    """Ids are new each time, so the trees are told by their places."""

    async def restored() -> tuple[Conversation, Conversation]:
        with TemporaryDirectory() as folder, closing(Database(Path(folder, "x.db"))) as database:
            sessions = Sessions(database)
            first = await sessions.whole("", (await sessions.restore("", whole)).id)
            second = await sessions.restore("", again(first))
            return first, await sessions.whole("", second.id)

    first, second = asyncio.run(restored())
    assert placed(first) == placed(second) == placed(whole)


def placed(whole: Conversation) -> Conversation:
    ids = {message.id: str(place) for place, message in enumerate(whole.messages)}
    session = replace(whole.session, id="", head=ids.get(whole.session.head), updated=0.0)
    messages = [replace(one, id=ids[one.id], parent=ids.get(one.parent)) for one in whole.messages]
    return Conversation(
        session, messages, [replace(one, upto=ids[one.upto]) for one in whole.summaries]
    )


def session_with(said: Settings = SETTINGS, **about: object) -> Session:
    known = {"title": "T", "model": "fake", "head": None, "created": 0.0, "updated": 0.0}
    return Session(id="chat_1", settings=said, **(known | about))


def conversation(*messages: Message, **about: object) -> Conversation:
    head = messages[-1].id if messages else None
    return Conversation(session_with(head=head, **about), [*messages], [])


def test_what_is_being_written_is_cut_in_its_export():
    answer = Message(id="a", parent=None, role="assistant", content="Hel", state="running")
    [read] = again(conversation(answer)).messages
    assert (read.state, read.content) == ("cut", "Hel")


def exported(**changed: object) -> dict:
    said = Message(id="a", parent=None, role="user", content="Hi")
    told = Message(id="b", parent="a", role="assistant", content="Hello")
    whole = json.loads(as_json(conversation(said, told)))
    whole["summaries"] = [{"upto": "b", "facts": [], "content": "s", "messages": 2}]
    return whole | changed


MESSAGE = {"id": "a", "role": "user"}
WRONG = [
    ("format", "onebox.session.2"),
    ("format", None),
    ("session", []),
    ("session.title", {"title": "t" * 201}),
    ("session.settings.temperature", {"settings": {"temperature": 3}}),
    ("session.settings.system_prompt", {"settings": {"system_prompt": "x" * (65536 + 1)}}),
    ("session.settings.tools.0.function.name", {"settings": {"tools": [{"function": {}}]}}),
    ("session.head", {"head": "none"}),
    ("session.created", {"created": -1}),
    ("messages", None),
    ("messages", {}),
    ("messages.0", ["Hi"]),
    ("messages.0.id", [{"role": "user"}]),
    ("messages.0.id", [MESSAGE | {"id": ""}]),
    ("messages.0.role", [MESSAGE | {"role": "king"}]),
    ("messages.0.content", [MESSAGE | {"content": ["Hi"]}]),
    ("messages.0.state", [MESSAGE | {"state": "running"}]),
    ("messages.0.tool_calls.0.name", [MESSAGE | {"tool_calls": [{"id": "", "arguments": ""}]}]),
    ("messages.0.usage.cached_tokens", [MESSAGE | {"usage": {"prompt_tokens": 1}}]),
    ("messages.0.thought_ms", [MESSAGE | {"thought_ms": -1}]),
    ("messages.1.id", [MESSAGE, MESSAGE]),
    ("messages.0.parent", [MESSAGE | {"parent": "none"}]),
    ("messages.0.parent", [MESSAGE | {"parent": "a"}]),
    ("messages.0.parent", [MESSAGE | {"parent": "b"}, MESSAGE | {"id": "b", "parent": "a"}]),
    ("messages", [MESSAGE] * 100_001),
    ("summaries.0.upto", [{"upto": "none", "content": "s", "messages": 1}]),
    ("summaries.0.messages", [{"upto": "a", "content": "s", "messages": -1}]),
]


@pytest.mark.parametrize(("field", "value"), WRONG, ids=[field for field, _ in WRONG])
def test_what_is_no_export_is_refused_by_name(field, value):
    assert understand(exported())
    with pytest.raises(BadRequest) as refused:
        understand(exported(**{field.split(".")[0]: value}))
    place = refused.value.field
    assert place == field or place.startswith(f"{field}.")
    assert refused.value.message.startswith(f"{place}: ")


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(
                    ["id", "parent", "role", "content", "messages", "session", "format"]
                ),
                x,
            )
        ),
    )
)
def test_nothing_else_goes_wrong(value):
    for field in ("session", "messages", "summaries"):
        try:
            understand(exported(**{field: value}))
        except BadRequest as error:
            assert error.message


CALL = Call("call_1", "add", '{"a": 1}')
TALK = (
    Message(id="0", parent=None, role="user", content="Another beginning"),
    Message(id="1", parent=None, role="user", content="Add **1** and 2."),
    Message(
        id="2",
        parent="1",
        role="assistant",
        model="fake",
        reasoning="Hm.\n</details>",
        thought_ms=1250,
        tool_calls=(CALL,),
    ),
    Message(id="3", parent="2", role="tool", content="```\n3", answers="call_1"),
    Message(id="4", parent="3", role="assistant", content="It is", model="fake", state="stopped"),
)
MARKDOWN = """\
# T

1970-01-01 · fake

<details><summary>System prompt</summary>

```text
Be brief.
```

</details>

## You

Add **1** and 2.

## Assistant (fake)

<details><summary>Thoughts (1.2 s)</summary>

```text
Hm.
</details>
```

</details>

Calls **add**:

```json
{"a": 1}
```

## Result of add

````
```
3
````

## Assistant (fake)

It is

*It was stopped here.*
"""


def test_markdown_is_the_branch_that_is_read():
    assert as_markdown(conversation(*TALK)) == MARKDOWN


@given(conversations())
def test_every_conversation_can_be_read(whole):
    text = as_markdown(whole)
    for message in whole.messages:
        if message.id == whole.session.head:
            assert message.content in text
    assert text.startswith("# ")
