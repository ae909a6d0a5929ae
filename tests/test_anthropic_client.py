"""`/v1/messages` over HTTP, mostly as the official client sees it."""

import asyncio

import anthropic
import httpx
import pytest

from api import keys, streaming
from api.anthropic.encoder import SIGNATURE
from api.keys import KeyFile
from inference import (
    BadRequest,
    ContextTooLong,
    DeadlineExceeded,
    InferenceError,
    Message,
    NotReady,
    Overloaded,
    ReasoningDelta,
    Started,
    TextDelta,
    Tool,
    ToolCall,
    UnknownModel,
    WorkerLost,
)
from tests.bodies import BODIES, HI, MESSAGES, SCHEMA
from tests.fake_pool import CALL, FakePool, end, serving
from tests.test_anthropic import EVERYTHING, WEATHER, block, parsed


async def asked(client, **fields):
    """What the official client makes of an answer, streamed or not."""
    said = {"model": "fake", "max_tokens": 50, "messages": HI} | fields
    async with client.messages.stream(**said) as stream:
        streamed = await stream.get_final_message()
    whole = await client.messages.create(**said)
    one, other = (m.model_dump(exclude={"id"}, exclude_none=True) for m in (streamed, whole))
    assert one == other
    return whole


def client_of(url, key="none"):
    return anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=0)


async def test_the_official_client_reads_a_stream_and_a_whole_answer_alike():
    async with serving(FakePool(EVERYTHING, EVERYTHING)) as url, client_of(url) as client:
        reply = await asked(client, thinking={"type": "enabled", "budget_tokens": 1024})
    thoughts, text, call, other, last = reply.content
    assert (thoughts.thinking, thoughts.signature) == ("hm", SIGNATURE)
    assert (text.text, last.text) == ('So be "it"\n', "Done.")
    assert (call.id, call.name, call.input) == ("toolu_1", "weather", {"city": "Oslo"})
    assert other.input == {} and reply.stop_reason == "tool_use"
    assert (reply.usage.input_tokens, reply.usage.cache_read_input_tokens) == (4, 3)
    assert reply.usage.output_tokens == 2


async def test_a_whole_agent_loop():
    """A question, a tool call, its result, an answer; what was said comes back as it was."""
    answer = [Started(20), TextDelta(0, "Rainy, 7 degrees."), end()]
    asks = [Started(7), ReasoningDelta(0, "hm"), CALL, end(reason="tool_calls")]
    pool = FakePool(asks, answer)
    async with serving(pool) as url, client_of(url) as client:
        turns = [{"role": "user", "content": "What is the weather in Oslo?"}]
        while True:
            async with client.messages.stream(
                model="default", max_tokens=50, messages=turns, tools=[WEATHER]
            ) as stream:
                reply = await stream.get_final_message()
            turns.append({"role": "assistant", "content": reply.content})
            if reply.stop_reason != "tool_use":
                break
            results = [
                {
                    "type": "tool_result",
                    "tool_use_id": call.id,
                    "content": f"7 in {call.input['city']}",
                }
                for call in reply.content
                if call.type == "tool_use"
            ]
            turns.append({"role": "user", "content": results})
    assert reply.content[0].text == "Rainy, 7 degrees."
    _, call, result = pool.requests[1].messages
    assert call == Message(
        "assistant", "", "hm", (ToolCall("toolu_1", "weather", '{"city": "Oslo"}'),)
    )
    assert result == Message("tool", "7 in Oslo", answers="toolu_1")


REFUSALS = [
    (BadRequest("top_k: too large", "top_k"), anthropic.BadRequestError, "invalid_request_error"),
    (ContextTooLong("prompt is too long"), anthropic.BadRequestError, "invalid_request_error"),
    (UnknownModel("no such model", "model"), anthropic.NotFoundError, "not_found_error"),
    (DeadlineExceeded("too late"), anthropic.APIStatusError, "timeout_error"),
    (Overloaded("queue full", retry_after=7), anthropic.RateLimitError, "rate_limit_error"),
    (NotReady("loading"), anthropic.InternalServerError, "overloaded_error"),
    (WorkerLost("worker died"), anthropic.InternalServerError, "overloaded_error"),
    (InferenceError("odd"), anthropic.InternalServerError, "api_error"),
]


@pytest.mark.parametrize(("error", "kind", "type"), REFUSALS)
async def test_refusals_are_the_clients_own_exceptions(error, kind, type):
    ways = [{}, {"stream": True}]
    async with serving(FakePool(*([error] for _ in range(3)))) as url, client_of(url) as client:
        for way in ways:
            with pytest.raises(kind) as refusal:
                await client.messages.create(model="fake", max_tokens=5, messages=HI, **way)
            assert refusal.value.body == {
                "type": "error",
                "error": {"type": type, "message": error.message},
                "request_id": None,
            }
        with pytest.raises(kind):
            await client.messages.count_tokens(model="fake", messages=HI)


@pytest.mark.parametrize(
    ("error", "type"),
    [(WorkerLost("it died"), "overloaded_error"), (ZeroDivisionError("secret"), "api_error")],
)
async def test_an_error_in_mid_stream_is_an_event_and_the_last(error, type):
    pool = FakePool(*([[Started(7), TextDelta(0, "Hel"), error]] * 2))
    async with serving(pool) as url, client_of(url) as client:
        with pytest.raises(anthropic.APIStatusError) as failure:
            async with client.messages.stream(model="fake", max_tokens=5, messages=HI) as stream:
                await stream.get_final_message()
        async with httpx.AsyncClient() as plain:
            body = BODIES[MESSAGES] | {"stream": True}
            response = await plain.post(f"{url}{MESSAGES}", json=body)
    assert failure.value.body["error"]["type"] == type
    names = [event["type"] for event in parsed(response.text)]
    assert names == ["message_start", "content_block_start", "content_block_delta", "error"]
    assert "secret" not in response.text


async def test_what_the_guard_and_the_router_refuse_is_in_its_shape_too(tmp_path):
    keys.add(tmp_path / "keys.json", "alice")
    ring = KeyFile(tmp_path / "keys.json")
    async with serving(FakePool(), keys=ring) as url, client_of(url, "wrong") as client:
        with pytest.raises(anthropic.AuthenticationError) as refusal:
            await client.messages.create(model="fake", max_tokens=5, messages=HI)
        assert refusal.value.body["error"]["type"] == "authentication_error"
    async with serving(FakePool()) as url, httpx.AsyncClient(base_url=url) as plain:
        for response, status, type in (
            (await plain.get(MESSAGES), 405, "invalid_request_error"),
            (await plain.post(MESSAGES, content="{}"), 415, "invalid_request_error"),
            (
                await plain.post(MESSAGES, json={}, headers={"Host": "x.y"}),
                421,
                "invalid_request_error",
            ),
            (
                await plain.post(MESSAGES, json={}, headers={"Origin": "null"}),
                403,
                "permission_error",
            ),
            (await plain.post(f"{MESSAGES}/batches", json={}), 404, "not_found_error"),
        ):
            assert response.status_code == status
            assert response.json()["error"]["type"] == type
        other = await plain.post("/v1/messagesx", json={})
        assert other.json()["error"]["code"] == "unknown_url"


async def test_a_key_of_either_kind_opens(tmp_path):
    secret = keys.add(tmp_path / "keys.json", "alice")
    pool = FakePool()
    async with serving(pool, keys=KeyFile(tmp_path / "keys.json")) as url:
        for kind in ({"api_key": secret}, {"auth_token": secret}):
            async with anthropic.AsyncAnthropic(base_url=url, **kind) as client:
                assert await asked(client)
                assert await client.messages.count_tokens(model="fake", messages=HI)
    assert len({request.tenant for request in pool.requests} - {""}) == 1


async def test_a_quiet_stream_carries_pings(monkeypatch):
    monkeypatch.setattr(streaming, "_PING_SECONDS", 0.01)
    going = asyncio.Event()
    pool = FakePool([Started(7), going, end()])
    async with serving(pool) as url, httpx.AsyncClient(base_url=url) as client:
        body = BODIES[MESSAGES] | {"stream": True}
        async with client.stream("POST", MESSAGES, json=body) as response:
            text = ""
            async for part in response.aiter_text():
                text += part
                if "event: ping" in text:
                    going.set()
    names = [event["type"] for event in parsed(text)]
    assert "ping" in names and names[-1] == "message_stop"


async def test_such_a_stream_can_be_resumed_as_well():
    async with serving(FakePool()) as url, httpx.AsyncClient(base_url=url) as client:
        body = BODIES[MESSAGES] | {"stream": True}
        whole = await client.post(MESSAGES, json=body, headers={"X-Resumable": "true"})
        id = whole.headers["x-stream-id"]
        rest = await client.post(MESSAGES, json={}, headers={"Last-Event-ID": f"{id}:3"})
    events = whole.text.split("\n\n")
    assert events[0].startswith(f"id: {id}:1\nevent: message_start\ndata: ")
    assert rest.text.split("\n\n") == events[3:]


async def test_tokens_are_counted_by_the_prompt_alone():
    pool = FakePool()
    async with serving(pool) as url, client_of(url) as client:
        said = {"system": "Be brief.", "tools": [WEATHER], "messages": HI}
        counted = await client.messages.count_tokens(model="fake", **said)
        with pytest.raises(anthropic.BadRequestError, match=r"messages\.0\.content"):
            await client.messages.count_tokens(model="fake", messages=block(type="image"))
    assert counted.input_tokens == 7
    [request] = pool.requests
    assert request.tools == (Tool("weather", "Tells it.", SCHEMA),)
    assert request.messages == (Message("system", "Be brief."), Message("user", "Hi"))
