"""`/api` over HTTP, mostly as Ollama's own client sees it."""

import asyncio
import json
from contextlib import asynccontextmanager

import httpx
import ollama
import pytest

from api import streaming
from inference import (
    BadRequest,
    Message,
    Overloaded,
    Pool,
    Started,
    TextDelta,
    ToolCall,
    WorkerLost,
)
from tests.bodies import HI
from tests.fake_pool import FakePool, end, serving
from tests.test_ollama import EVERYTHING, WEATHER

CHAT = "/api/chat"


@asynccontextmanager
async def client_of(pool):
    """The official client of a server around `pool`."""
    async with serving(pool) as url, ollama.AsyncClient(host=url) as client:
        yield client


async def test_the_official_client_reads_a_stream_and_a_whole_answer_alike():
    async with client_of(FakePool(EVERYTHING, EVERYTHING)) as client:
        whole = await client.chat("fake:latest", HI, tools=[WEATHER], think=True)
        parts = [p async for p in await client.chat("fake:latest", HI, think=True, stream=True)]
    assert whole.message.content == "".join(part.message.content for part in parts)
    assert whole.message.thinking == parts[0].message.thinking == "hm"
    [call] = whole.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("weather", {"city": "Oslo"})
    assert parts[3].message.tool_calls == whole.message.tool_calls
    assert [part.done for part in parts] == [False] * 4 + [True]
    for last in (whole, parts[-1]):
        assert (last.model, last.done_reason, last.eval_count) == ("fake:latest", "stop", 2)
        assert last.total_duration == 300_000_000


async def test_a_prompt_is_generated_from_and_a_model_loaded():
    pool = FakePool()
    async with client_of(pool) as client:
        assert (await client.generate("fake", "Hi")).response == "Hello"
        parts = [p.response async for p in await client.generate("fake", "Hi", stream=True)]
        assert "".join(parts) == "Hello"
        assert (await client.generate("fake", keep_alive=0)).done_reason == "unload"
        assert (await client.chat("fake")).done_reason == "load"
    assert len(pool.requests) == 2


async def test_the_model_is_listed_shown_and_running():
    async with client_of(FakePool()) as client:
        listed = (await client.list()).models
        assert [model.model for model in listed] == ["fake", "fake:latest", "org/fake"]
        assert listed[0].details.family == "qwen3" and listed[0].details.parameter_size == "0.6B"
        shown = await client.show("fake:latest")
        assert shown.modelinfo["qwen3.context_length"] == 4096
        assert {"tools", "thinking"} < set(shown.capabilities)
        [running] = (await client.ps()).models
        assert (running.model, running.context_length) == ("fake", 4096)
        with pytest.raises(ollama.ResponseError) as refusal:
            await client.show("llama3")
        assert refusal.value.status_code == 404


async def test_refusals_are_the_clients_own_exception_before_and_within_a_stream():
    full = Overloaded("queue full", retry_after=7)
    errors = [BadRequest("top_k: no", "top_k"), full, WorkerLost("it died")]
    for error, status in zip(errors, (400, 429, 503), strict=True):
        broken = [Started(7), TextDelta(0, "Hel"), error]
        async with client_of(FakePool([error], broken)) as client:
            with pytest.raises(ollama.ResponseError) as refusal:
                await client.chat("fake", HI)
            assert (refusal.value.error, refusal.value.status_code) == (error.message, status)
            said = []
            with pytest.raises(ollama.ResponseError, match=error.message):
                async for part in await client.chat("fake", HI, stream=True):
                    said.append(part.message.content)
            assert said == ["Hel"]


async def test_what_changes_models_is_said_not_to_be_done_here():
    async with client_of(FakePool()) as client:
        for asked in (
            client.push("fake"),
            client.create("mine", from_="fake"),
            client.copy("fake", "mine"),
            client.delete("fake"),
        ):
            with pytest.raises(ollama.ResponseError) as refusal:
                await asked
            assert refusal.value.status_code == 501 and refusal.value.error.endswith(".")


async def test_errors_around_the_routes_have_its_shape():
    async with serving(FakePool()) as url, httpx.AsyncClient(base_url=url) as client:
        for response, status in (
            (await client.get("/api/nothing"), 404),
            (await client.get(CHAT), 405),
            (await client.post(CHAT, content="{}", headers={"Sec-Fetch-Site": "none"}), 415),
            (await client.post(CHAT, json={}, headers={"Origin": "null"}), 403),
            (await client.post("/api/blobs/sha256:00", json={}), 501),
        ):
            assert response.status_code == status
            assert list(response.json()) == ["error"]


async def test_lines_are_json_and_a_quiet_stream_has_more_of_them(monkeypatch):
    monkeypatch.setattr(streaming, "_PING_SECONDS", 0.01)
    going = asyncio.Event()
    pool = FakePool([Started(7), going, TextDelta(0, "Hi"), end()])
    headers = {"X-Resumable": "true"}
    async with (
        serving(pool) as url,
        httpx.AsyncClient(base_url=url, headers=headers) as client,
        client.stream("POST", CHAT, json={"messages": HI}) as response,
    ):
        assert response.headers["content-type"] == "application/x-ndjson"
        assert "x-stream-id" not in response.headers
        text = ""
        async for part in response.aiter_text():
            text += part
            going.set()
    lines = [json.loads(line) for line in text.removesuffix("\n").split("\n")]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert len(lines) > 2 and "".join(line["message"]["content"] for line in lines) == "Hi"


async def test_an_answer_fits_the_format_that_is_asked_for(deployment):
    pool = Pool(deployment)
    async with client_of(pool) as client:
        await pool.until_ready()
        kind = {"type": "integer", "minimum": 0, "maximum": 999}
        schema = {"type": "object", "properties": {"sum": kind}, "required": ["sum"]}
        schema |= {"additionalProperties": False}
        options = {"num_predict": 200}
        asked = await client.generate("qwen3-demo", "2 + 3", format=schema, options=options)
        assert 0 <= json.loads(asked.response)["sum"] <= 999
        said = [{"role": "user", "content": "Hello!"}]
        told = await client.chat("qwen3-demo", said, format="json", options={"num_predict": 4})
        assert told.message.content.startswith("{")


async def test_a_whole_agent_loop_with_the_bundled_model(deployment):
    parameters = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    }
    function = {
        "name": "get_weather",
        "description": "Get the current weather of a city",
        "parameters": parameters,
    }
    pool = Pool(deployment)
    async with client_of(pool) as client:
        await pool.until_ready()
        turns = [{"role": "user", "content": "What is the weather in Oslo?"}]
        how = {"tools": [{"type": "function", "function": function}], "think": False}
        asked = await client.chat("qwen3-demo", turns, **how)
        [call] = asked.message.tool_calls
        assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "Oslo"})
        result = '{"temperature": 7, "condition": "rainy"}'
        turns += [asked.message, {"role": "tool", "content": result, "tool_name": "get_weather"}]
        parts = [part async for part in await client.chat("qwen3-demo", turns, stream=True, **how)]
        assert "7" in "".join(part.message.content for part in parts)
        last = parts[-1]
        assert last.eval_count > 3 and last.total_duration >= last.eval_duration > 0
        thought = await client.chat(
            "default", [{"role": "user", "content": "What is 38 + 47?"}], think=True
        )
        assert thought.message.thinking == "8 + 7 = 15, 3 + 4 + 1 = 8."
        assert thought.message.content == "38 + 47 = 85"


async def test_a_tool_call_comes_back_as_it_was():
    pool = FakePool(EVERYTHING)
    async with client_of(pool) as client:
        reply = await client.chat("fake", HI, tools=[WEATHER])
        await client.chat("fake", [*HI, reply.message, {"role": "tool", "content": "7"}])
    _, call, result = pool.requests[1].messages
    calls = (ToolCall("", "weather", '{"city": "Oslo"}'),)
    assert call == Message("assistant", "So be it.\n", "hm", calls)
    assert result == Message("tool", "7")
