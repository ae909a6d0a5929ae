"""Responses that are stored: how many, for how long, for whom, and what goes on from them."""

import asyncio
import json

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import keys, streaming
from api.errors import UnknownResponse
from api.keys import KeyFile
from api.openai.responses.store import Kept, Store
from inference import (
    BadRequest,
    DeadlineExceeded,
    Message,
    NotReady,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    UnknownModel,
    WorkerLost,
)
from tests.bodies import BODIES, RESPONSES
from tests.fake_pool import FakePool, end, hello, serving
from tests.test_responses import EVERYTHING, WEATHER
from tests.test_responses_encoder import told


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def kept(size=0):
    return Kept(b"x" * size, {}, 0)


def ids(store, tenant=""):
    """The names of those that are there, of one letter each."""
    there = []
    for name in "abcdef":
        try:
            store.find(tenant, name)
        except UnknownResponse:
            continue
        there.append(name)
    return "".join(there)


def filled(store, names="abcd", tenant="", size=10):
    for name in names:
        store.keep(tenant, name, kept(size))
    return store


def test_what_was_not_used_for_longest_makes_room():
    for bound in ({"most": 3}, {"room": 39}):
        store = filled(Store(**bound), "abc")
        store.find("", "a")
        filled(store, "d")
        assert ids(store) == "acd"


def test_whoever_has_most_makes_room():
    store = filled(Store(room=60), "a", "alice")
    filled(store, "bcdef", "bob")
    filled(store, "f", "alice")
    assert (ids(store, "alice"), ids(store, "bob")) == ("af", "cdef")


def test_one_that_is_larger_than_all_of_the_room_is_not_kept():
    store = filled(Store(room=30), "ab")
    filled(store, "c", size=31)
    assert ids(store) == "ab"


def test_items_count_and_what_python_takes_for_each_of_them():
    item = Kept(b"12", {"a": b"345", "b": b"6"}, 1)
    assert 6 + 2 * 200 < item.size < 6 + 2 * 300


def test_what_nobody_uses_is_gone_after_a_while():
    clock = Clock()
    store = filled(Store(keep=100, clock=clock), "ab")
    clock.now += 60
    store.find("", "a")
    clock.now += 60
    assert ids(store) == "a"
    clock.now += 101
    assert ids(store) == ""


def test_what_is_deleted_leaves_its_room():
    store = filled(Store(room=30), "abc")
    store.forget("", "a")
    filled(store, "d")
    assert ids(store) == "bcd"
    with pytest.raises(UnknownResponse):
        store.forget("", "a")


TENANTS, NAMES = st.sampled_from(["", "alice", "bob"]), st.sampled_from("abcdef")


@given(st.lists(st.tuples(TENANTS, NAMES, st.integers(0, 40), st.booleans()), max_size=40))
def test_it_never_holds_more_than_it_may(steps):
    store, known = Store(most=5, room=100), set()
    for tenant, name, size, forgets in steps:
        if forgets and name in ids(store, tenant):
            store.forget(tenant, name)
        elif (tenant, name) not in known:
            known.add((tenant, name))
            store.keep(tenant, name, kept(size))
        held = [kept for kept, _ in store._kept.values()]
        assert len(held) <= 5
        assert store._bytes.total() == sum(kept.size for kept in held) <= 100


def client_of(url, key="none"):
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


async def test_a_conversation_goes_on_with_all_that_was_said_but_the_instructions():
    asked = [Started(7), *EVERYTHING[1:6], end(reason="tool_calls")]
    pool = FakePool(asked, hello(), hello())
    async with serving(pool) as url, client_of(url) as client:
        how = {"model": "fake", "tools": [WEATHER]}
        first = await client.responses.create(input="Weather?", instructions="Old.", **how)
        result = {"type": "function_call_output", "call_id": "call_1", "output": "7"}
        second = await client.responses.create(
            input=[result], previous_response_id=first.id, instructions="New.", **how
        )
        await client.responses.delete(first.id)
        await client.responses.create(input="And?", previous_response_id=second.id, **how)
    call = ToolCall("call_1", "weather", '{"city": "Oslo"}')
    turn = (
        Message("user", "Weather?"),
        Message("assistant", 'So be "it"\n', "hm", (call,)),
        Message("tool", "7", answers="call_1"),
    )
    assert pool.requests[1].messages == (Message("system", "New."), *turn)
    assert pool.requests[2].messages == (
        *turn,
        Message("assistant", "Hello"),
        Message("user", "And?"),
    )


async def test_items_are_listed_page_by_page_and_can_be_referred_to():
    pool = FakePool(EVERYTHING, hello())
    async with serving(pool) as url, client_of(url) as client:
        asked = [{"role": "user", "content": text} for text in "abc"]
        first = await client.responses.create(model="fake", input=asked)
        listed = client.responses.input_items.list
        pages = [page async for page in (await listed(first.id, limit=2)).iter_pages()]
        assert [[i.content[0].text for i in page.data] for page in pages] == [["c", "b"], ["a"]]
        for wrong in ({"limit": 101}, {"limit": 0}, {"order": "up"}, {"after": "x"}):
            with pytest.raises(openai.BadRequestError) as refusal:
                await listed(first.id, **wrong)
            assert refusal.value.param == next(iter(wrong))
        references = [
            {"type": "item_reference", "id": item.id} for item in [*pages[1].data, *first.output]
        ]
        await client.responses.create(model="fake", input=references[:4])
    question, answer = pool.requests[1].messages
    assert question == Message("user", "a")
    assert (answer.content, answer.reasoning) == ('So be "it"\n', "hm")
    assert [call.name for call in answer.tool_calls] == ["weather"]


async def test_a_few_references_do_not_stand_for_very_much():
    async with serving(FakePool()) as url, client_of(url) as client:
        first = await client.responses.create(model="fake", input="x" * 1_500_000)
        [item] = (await client.responses.input_items.list(first.id)).data
        reference = {"type": "item_reference", "id": item.id}
        assert await client.responses.create(model="fake", input=[reference] * 2)
        with pytest.raises(openai.BadRequestError, match="more than 4 MiB"):
            await client.responses.create(model="fake", input=[reference] * 3)


async def test_tokens_are_counted_without_an_answer():
    pool = FakePool(hello())
    async with serving(pool) as url, client_of(url) as client:
        first = await client.responses.create(model="fake", input="Hi")
        counted = await client.responses.input_tokens.count(
            model="fake", input="And?", previous_response_id=first.id, instructions="Be brief."
        )
    assert (counted.input_tokens, counted.object) == (7, "response.input_tokens")
    said = [(message.role, message.content) for message in pool.requests[1].messages]
    assert said == [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "And?"),
    ]


async def test_a_key_opens_its_own_responses_only(tmp_path):
    path = tmp_path / "keys.json"
    alice, bob = keys.add(path, "alice"), keys.add(path, "bob")
    async with serving(FakePool(), keys=KeyFile(path)) as url:
        async with client_of(url, alice) as client:
            mine = await client.responses.create(model="fake", input="Hi")
            assert (await client.responses.retrieve(mine.id)).id == mine.id
        async with client_of(url, bob) as client:
            for ask in (
                client.responses.retrieve,
                client.responses.delete,
                client.responses.cancel,
                client.responses.input_items.list,
            ):
                with pytest.raises(openai.NotFoundError):
                    await ask(mine.id)
            with pytest.raises(openai.BadRequestError, match="no such response"):
                await client.responses.create(
                    model="fake", input="Hi", previous_response_id=mine.id
                )
            item = {"type": "item_reference", "id": mine.output[0].id}
            with pytest.raises(openai.BadRequestError, match="no stored item"):
                await client.responses.create(model="fake", input=[item])


async def test_a_stream_is_stored_once_it_has_ended_and_not_if_it_breaks():
    broken = [Started(7), TextDelta(0, "Hel"), WorkerLost("it died")]
    async with serving(FakePool(hello(), broken)) as url, client_of(url) as client:
        async with client.responses.stream(model="fake", input="Hi") as stream:
            reply = await stream.get_final_response()
        assert (await client.responses.retrieve(reply.id)).output_text == "Hello"
        stream = await client.responses.create(model="fake", input="Hi", stream=True)
        *_, failed = [event async for event in stream]
        assert (failed.type, failed.response.status) == ("response.failed", "failed")
        assert failed.response.error.message == "it died"
        assert failed.response.output[0].content[0].text == "Hel"
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(failed.response.id)


async def test_refusals_are_the_clients_own_exceptions():
    errors = [
        (BadRequest("top_k: too large", "top_k"), openai.BadRequestError),
        (UnknownModel("no such model", "model"), openai.NotFoundError),
        (DeadlineExceeded("too late"), openai.APIStatusError),
        (NotReady("loading"), openai.InternalServerError),
    ]
    pool = FakePool(*([error] for error, _ in errors for _ in range(2)))
    async with serving(pool) as url, client_of(url) as client:
        for error, kind in errors:
            for stream in (False, True):
                with pytest.raises(kind) as refusal:
                    await client.responses.create(model="fake", input="Hi", stream=stream)
                assert refusal.value.code == error.code
        reply = await client.responses.create(model="fake", input="Hi")
        with pytest.raises(openai.BadRequestError, match="not streamed again"):
            await client.responses.retrieve(reply.id, stream=True)


async def test_a_quiet_stream_carries_events(monkeypatch):
    monkeypatch.setattr(streaming, "_PING_SECONDS", 0.01)
    going = asyncio.Event()
    pool = FakePool([Started(7), ReasoningDelta(0, "hm"), going, TextDelta(0, "so"), end()])
    async with serving(pool) as url, httpx.AsyncClient(base_url=url) as client:
        body = BODIES[RESPONSES] | {"stream": True}
        async with client.stream("POST", RESPONSES, json=body) as response:
            text = ""
            async for part in response.aiter_text():
                text += part
                if text.count("event: response.in_progress") > 1:
                    going.set()
    assert told([text.encode()])[-1]["type"] == "response.completed"


async def test_such_a_stream_can_be_resumed_as_well():
    async with serving(FakePool()) as url, httpx.AsyncClient(base_url=url) as client:
        body = BODIES[RESPONSES] | {"stream": True}
        whole = await client.post(RESPONSES, json=body, headers={"X-Resumable": "true"})
        id = whole.headers["x-stream-id"]
        rest = await client.post(RESPONSES, json={}, headers={"Last-Event-ID": f"{id}:3"})
        again = await client.get(f"/v1/responses/{id}")
    events = whole.text.split("\n\n")
    assert events[0].startswith(f"id: {id}:1\nevent: response.created\ndata: ")
    assert rest.text.split("\n\n") == events[3:]
    assert again.json() == json.loads(events[-2].split("data: ")[1])["response"]


async def test_a_client_that_hangs_up_stores_nothing():
    pool = FakePool([Started(7), ToolCallDelta(0, 0, ToolCall("c", "f", "{}")), asyncio.Event()])
    async with serving(pool) as url, client_of(url) as client:
        stream = await client.responses.create(model="fake", input="Hi", stream=True)
        created = await anext(stream)
        await stream.close()
        await asyncio.wait_for(pool.cancelled.wait(), 10)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(created.response.id)
