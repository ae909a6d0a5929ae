"""The turns of sessions among each other: who may stop them, how many there are, what is left."""

import asyncio

import httpx
import pytest

from api import keys
from api.gateway import turn as turn_module
from api.keys import KeyFile
from api.store.errors import StoreFailed
from api.store.sessions import Sessions
from inference import Started, TextDelta
from tests.fake_pool import FakePool, end, served, serving
from tests.talking import new_session, said, session, talking

PATH = "/api/v1/chat/completions"


@pytest.mark.parametrize("how", ["socket", "http", "delete"])
async def test_a_turn_that_only_waits_is_stopped_by_others_too(how):
    pool = FakePool([asyncio.Event()])
    async with (
        serving(pool) as url,
        talking(url) as talk,
        talking(url) as other,
        httpx.AsyncClient(base_url=url) as http,
    ):
        id = await new_session(url)
        await talk.say(session_id=id, message="Hi")
        await asyncio.wait_for(pool.waiting.wait(), 5)
        if how == "socket":
            await other.say(session_id=id, stop=True)
        elif how == "http":
            assert (await http.post(f"/api/v1/sessions/{id}/stop")).json() == {"stopped": True}
        else:
            assert (await http.delete(f"/api/v1/sessions/{id}")).status_code == 204
        assert await talk.turn() == [{"type": "end", "reason": "stopped", "saved": False}]
        assert pool.cancelled.is_set()
        if how != "delete":
            assert (await session(url, id))["messages"] == []
            await talk.say(session_id=id, message="Hi")
            assert said(await talk.turn()) == "Hello"


async def test_to_stop_one_session_stops_no_other():
    gate = asyncio.Event()
    pool = FakePool([gate, Started(7), TextDelta(0, "Hello"), end()])
    async with serving(pool) as url, talking(url) as talk:
        mine, other = await new_session(url), await new_session(url)
        await talk.say(session_id=mine, message="Hi")
        await asyncio.wait_for(pool.waiting.wait(), 5)
        await talk.say(session_id=other, stop=True)
        await talk.say(ping=True)
        assert await talk.event() == {"type": "pong"}
        gate.set()
        assert said(await talk.turn()) == "Hello"


async def test_nobody_stops_or_follows_the_turns_of_others(key_file):
    hers, his = ({"x-api-key": keys.add(key_file, name)} for name in ("ann", "bob"))
    gate = asyncio.Event()
    pool = FakePool([Started(7), TextDelta(0, "Hel"), gate, TextDelta(0, "lo"), end()])
    async with (
        serving(pool, keys=KeyFile(key_file)) as url,
        talking(url, additional_headers=hers) as ann,
        talking(url, additional_headers=his) as bob,
        httpx.AsyncClient(base_url=url, headers=hers) as http,
    ):
        id = (await http.post("/api/v1/sessions", json={})).json()["id"]
        await ann.say(session_id=id, message="Hi")
        assert [(await ann.event())["type"] for _ in range(2)] == ["start", "text"]
        await bob.say(session_id=id, stop=True)
        await bob.say(session_id=id, resume=True)
        assert await bob.event() == {"type": "idle", "session_id": id}
        gate.set()
        assert said(await ann.turn()) == "lo"


async def test_who_stops_and_hangs_up_while_it_is_stored_leaves_nothing_running(monkeypatch):
    begin, storing, go = Sessions.begin, asyncio.Event(), asyncio.Event()

    async def slowly(self, *turn):
        storing.set()
        await go.wait()
        await begin(self, *turn)

    monkeypatch.setattr(Sessions, "begin", slowly)
    async with serving(FakePool()) as url:
        id = await new_session(url)
        async with talking(url) as talk:
            await talk.say(session_id=id, message="Hi")
            await asyncio.wait_for(storing.wait(), 5)
            await talk.say(stop=True)
        go.set()
        states = []
        async with asyncio.timeout(10):
            while states[1:] not in (["stopped"], ["cut"]):
                states = [one["state"] for one in (await session(url, id))["messages"]]


async def test_an_answer_whose_end_could_not_be_stored_is_cut_and_blocks_nothing(monkeypatch):
    monkeypatch.setattr(turn_module, "_PATIENCE", (0,))
    save = Sessions.save

    async def full(self, message):
        raise StoreFailed

    monkeypatch.setattr(Sessions, "save", full)
    async with serving(FakePool()) as url, talking(url) as talk:
        id = await new_session(url)
        await talk.say(session_id=id, message="Hi")
        told = await talk.turn()
        assert told[-1] == {"type": "end", "reason": "stop", "saved": False}
        monkeypatch.setattr(Sessions, "save", save)
        found = await session(url, id)
        assert (found["running"], found["messages"][1]["state"]) == (None, "cut")
        async with httpx.AsyncClient(base_url=url) as http:
            place, body = f"/api/v1/sessions/{id}/branch", {"message_id": told[0]["message_id"]}
            assert (await http.post(place, json=body)).status_code == 201
        await talk.say(session_id=id, message="Again")
        assert (await talk.turn())[-1]["saved"]


async def test_answers_whose_client_is_gone_count_for_their_key(key_file):
    secret = keys.add(key_file, "anna", concurrent=1)
    gate = asyncio.Event()
    pool = FakePool([Started(7), TextDelta(0, "Hel"), gate, TextDelta(0, "lo"), end()])
    async with (
        serving(pool, keys=KeyFile(key_file)) as url,
        httpx.AsyncClient(base_url=url, headers={"x-api-key": secret}) as http,
    ):
        one, two = [(await http.post("/api/v1/sessions", json={})).json()["id"] for _ in "12"]
        body = {"session_id": one, "message": "Hi", "stream": True}
        async with http.stream("POST", PATH, json=body) as answer:
            async for line in answer.aiter_lines():
                if "Hel" in line:
                    break
        refused = await http.post(PATH, json={"session_id": two, "message": "Hi"})
        assert refused.status_code == 429
        gate.set()
        while (await http.post(PATH, json={"session_id": two, "message": "Hi"})).status_code == 429:
            await asyncio.sleep(0.01)


async def test_a_server_that_stops_waits_for_an_answer_whose_client_is_gone():
    gate = asyncio.Event()
    pool = FakePool([Started(7), TextDelta(0, "Hel"), gate, TextDelta(0, "lo"), end()])
    async with served(pool, drain=30) as (url, server):
        id = await new_session(url)
        async with talking(url) as talk:
            await talk.say(session_id=id, message="Hi")
            assert (await talk.event())["type"] == "start"
        server.stop()
        await asyncio.sleep(0.3)  # ticks in which it would have left
        assert (await session(url, id))["messages"][1]["state"] == "running"
        gate.set()
    assert not pool.cancelled.is_set()


@pytest.mark.parametrize("typed", [False, True])
async def test_what_is_said_meanwhile_does_not_end_the_answer(typed):
    gate = asyncio.Event()
    pool = FakePool([Started(7), TextDelta(0, "one"), gate, TextDelta(0, "two"), end()])
    async with serving(pool) as url, talking(url, typed=typed) as talk:
        await talk.say(message="Hi")
        while "one" not in await talk.frame():
            pass
        await talk.say(message="Me too")
        refused = await talk.event()
        assert "stop it first" in str(refused)
        assert (refused["type"] == "refused") if typed else ("error" in refused)
        gate.set()
        told = said(await talk.turn()) if typed else "".join(await talk.raw_turn())
        assert told == "two"


async def test_a_deadline_holds_for_all_of_a_turn():
    pool = FakePool()
    async with serving(pool) as url, talking(url) as talk:
        id = await new_session(url)
        await talk.say(session_id=id, message="Hi", timeout=5)
        assert (await talk.turn())[-1]["type"] == "end"
    assert 0 < pool.requests[0].deadline < 5
