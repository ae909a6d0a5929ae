"""`/api/v1/chat/completions`: as OpenAI's, and with a session instead of a history."""

import asyncio
import json
from dataclasses import replace

import httpx
import openai
import pytest

from inference import Overloaded, Started, TextDelta
from tests.fake_pool import FakePool, end, serving
from tests.several import several_served, workers
from tests.talking import new_session, session, talking

PATH = "/api/v1/chat/completions"
HI = [{"role": "user", "content": "Hi"}]


async def ask(url, **body):
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        return await client.post(PATH, json=body)


async def test_without_a_session_it_is_openais():
    async with serving(FakePool()) as url:
        answer = (await ask(url, messages=HI)).json()
        assert answer["choices"][0]["message"]["content"] == "Hello"
        assert not {"session_id", "message_id"} & answer.keys()
        assert (await ask(url, message="Hi")).json()["choices"][0]["message"]["content"] == "Hello"


@pytest.mark.parametrize("said", [{"messages": HI}, {"message": "Hi"}])
async def test_a_session_goes_on_and_is_stored(said):
    pool = FakePool()
    async with serving(pool) as url:
        id = await new_session(url)
        first = (await ask(url, session_id=id, **said)).json()
        again = (await ask(url, session_id=id, message="And?")).json()
        assert first["session_id"] == again["session_id"] == id
        stored = (await session(url, id))["messages"]
        assert [(one["role"], one["content"], one["state"]) for one in stored] == [
            ("user", "Hi", "done"),
            ("assistant", "Hello", "done"),
            ("user", "And?", "done"),
            ("assistant", "Hello", "done"),
        ]
        assert stored[3]["id"] == again["message_id"]
        assert stored[3]["usage"]["completion_tokens"] == 2
        assert [one.content for one in pool.requests[1].messages] == ["Hi", "Hello", "And?"]


async def test_who_answers_is_the_model_or_agent_of_the_session():
    async with serving(FakePool()) as url, httpx.AsyncClient(base_url=url) as client:
        made = await client.post("/api/v1/agents", json={"name": "Poet", "model": "fake"})
        assert made.status_code == 201
        id = await new_session(url, model="Poet")
        assert (await ask(url, session_id=id, message="Hi")).json()["model"] == "Poet"


@pytest.mark.parametrize("model", ["c", "Sea"])
async def test_a_session_of_a_model_that_only_streams_refuses_to_be_waited_for(tmp_path, model):
    async with (
        several_served(tmp_path) as (_, url),
        httpx.AsyncClient(base_url=url) as client,
        talking(url, typed=False) as talk,
    ):
        made = await client.post("/api/v1/agents", json={"name": "Sea", "model": "c"})
        assert made.status_code == 201
        for wish in ({"model": model}, {"session_id": await new_session(url, model=model)}):
            refusal = (await ask(url, message="Hi", **wish)).json()["error"]
            assert refusal["param"] == "stream" and "c only streams" in refusal["message"]
            await talk.say(message="Hi", stream=False, **wish)
            told = json.loads((await talk.raw_turn())[0])
            assert told["error"] == refusal
        assert (await session(url, wish["session_id"]))["messages"] == []
        assert workers() == 1  # nothing was loaded for it
        other = await new_session(url, model="b")
        assert (await ask(url, session_id=other, message="Hi", max_tokens=2)).status_code == 200


async def test_a_session_of_a_model_that_only_streams_is_streamed():
    pool = FakePool()
    pool.now = replace(pool.now, streams_only=True)
    async with serving(pool) as url, talking(url, typed=False) as talk:
        id = await new_session(url)
        assert (await ask(url, session_id=id, message="Hi", stream=True)).status_code == 200
        for said in ({}, {"stream": None}, {"stream": "true"}):
            await talk.say(session_id=id, message="Hi", **said)
            assert "".join(await talk.raw_turn()) == "Hello"
            await talk.say(message="Hi", **said)
            assert "".join(await talk.raw_turn()) == "Hello"


async def test_openais_client_streams_a_session():
    async with serving(FakePool()) as url:
        id = await new_session(url)
        async with openai.AsyncOpenAI(base_url=f"{url}/api/v1", api_key="unused") as client:
            stream = await client.chat.completions.create(
                model="fake", messages=HI, stream=True, extra_body={"session_id": id}
            )
            chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello"
        assert {chunk.session_id for chunk in chunks} == {id}
        assert (await session(url, id))["messages"][1]["content"] == "Hello"


async def test_results_of_tools_are_said_in_a_session():
    pool = FakePool()
    async with serving(pool) as url:
        id = await new_session(url)
        await ask(url, session_id=id, message="Weather?")
        result = {"role": "tool", "tool_call_id": "c1", "content": "Rain"}
        assert (await ask(url, session_id=id, messages=[result])).status_code == 200
    last = pool.requests[1].messages[-1]
    assert (last.role, last.content, last.answers) == ("tool", "Rain", "c1")


async def test_an_answer_goes_on_when_its_client_hangs_up():
    gate = asyncio.Event()
    pool = FakePool([Started(7), TextDelta(0, "Hel"), gate, TextDelta(0, "lo"), end()])
    async with serving(pool) as url, httpx.AsyncClient(base_url=url) as client:
        id = await new_session(url)
        body = {"session_id": id, "message": "Hi", "stream": True}
        async with client.stream("POST", PATH, json=body) as answer:
            async for line in answer.aiter_lines():
                if "Hel" in line:
                    break
        assert (await ask(url, session_id=id, message="Hi")).status_code == 409
        gate.set()
        while (await session(url, id))["messages"][1]["state"] == "running":
            await asyncio.sleep(0.01)
        assert (await session(url, id))["messages"][1]["content"] == "Hello"


REFUSED = [
    ({"session_id": "nothing", "message": "Hi"}, 404, "session_id"),
    ({"message": "Hi", "parent": "nothing"}, 400, "parent"),
    ({}, 400, "message"),
    ({"messages": [{"role": "system", "content": "Hi"}]}, 400, "messages"),
    ({"messages": [{"role": "assistant", "content": "Hi"}]}, 400, "messages"),
    ({"message": "Hi", "regenerate": True}, 400, "regenerate"),
    ({"regenerate": True}, 400, "parent"),
    ({"message": "Hi", "n": 2}, 400, "n"),
    ({"message": "Hi", "temperature": 3}, 400, "temperature"),
]


@pytest.mark.parametrize(("body", "status", "field"), REFUSED)
async def test_what_is_wrong_is_refused_by_name_and_stores_nothing(body, status, field):
    async with serving(FakePool()) as url:
        id = await new_session(url)
        answer = await ask(url, **{"session_id": id} | body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, field)
        assert (await session(url, id))["messages"] == []


async def test_a_refusal_of_the_model_has_its_status_and_stores_nothing():
    async with serving(FakePool([Overloaded("full", retry_after=3)])) as url:
        id = await new_session(url)
        answer = await ask(url, session_id=id, message="Hi", stream=True)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
        assert (await session(url, id))["messages"] == []
