"""Streams on the wire: their frames, their end in every case, and what a hang-up cancels."""

import asyncio
import json
import logging
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest

from api import streaming
from api.metrics import Meter, Metrics
from api.openai.encoder import Encoder
from api.openai.errors import OPENAI
from api.openai.replies import Head
from api.streaming import Narration, TokenStream
from inference import GenerationRequest, Pool, Started, TextDelta, WorkerLost
from tests.fake_pool import FakePool, end, hello, post_head, serving

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "Hi"}]}
STREAM = {**BODY, "stream": True}


async def answer_of(pool, body, path=CHAT):
    async with serving(pool) as url, httpx.AsyncClient(base_url=url) as client:
        return await client.post(path, json=body)


def payloads(text):
    assert text.endswith("\n\n")
    frames = text.removesuffix("\n\n").split("\n\n")
    assert all(frame.startswith("data: ") and "\n" not in frame for frame in frames)
    return [frame.removeprefix("data: ") for frame in frames]


async def test_a_stream_is_one_data_line_per_chunk_and_ends_in_done():
    response = await answer_of(FakePool(), STREAM)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    *chunks, done = payloads(response.text)
    assert done == "[DONE]"
    deltas = [json.loads(chunk)["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
async def test_a_model_that_only_streams_refuses_to_be_waited_for(path):
    pool = FakePool()
    pool.now = replace(pool.now, streams_only=True)
    for body, status in ((BODY, 400), ({**BODY, "stream": False}, 400), (STREAM, 200)):
        response = await answer_of(pool, {**body, "prompt": "Hi"}, path)
        assert response.status_code == status
        assert status == 200 or response.json()["error"]["param"] == "stream"
    assert len(pool.requests) == 1


async def test_what_a_model_says_about_streams_reaches_the_api(deployment):
    for stream, only in (("required", True), ("optional", False)):
        model = replace(deployment.model, stream=stream)
        assert Pool(replace(deployment, model=model)).status().streams_only is only


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
async def test_an_error_in_mid_stream_is_an_event_and_the_stream_still_ends(path):
    codes = {WorkerLost("it died"): "worker_lost", ZeroDivisionError("secret"): "internal_error"}
    pool = FakePool(*([Started(7), TextDelta(0, "Hel"), error] for error in codes))
    async with serving(pool) as url, httpx.AsyncClient(base_url=url) as client:
        for code in codes.values():
            response = await client.post(path, json=STREAM | {"prompt": "Hi"})
            *chunks, failure, done = payloads(response.text)
            assert (response.status_code, done) == (200, "[DONE]")
            assert json.loads(failure)["error"]["code"] == code
            assert "Hel" in chunks[-1]
            assert "secret" not in response.text


async def test_an_error_in_mid_answer_is_a_status_when_nothing_was_sent_yet():
    pool = FakePool([Started(7), TextDelta(0, "Hel"), WorkerLost("it died")])
    assert (await answer_of(pool, BODY)).status_code == 503


@asynccontextmanager
async def asked(url, body):
    """An open connection on which `body` was posted, for hanging up by hand."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[-1]))
    content = json.dumps(body).encode()
    writer.write(post_head(CHAT, f"Content-Length: {len(content)}") + content)
    try:
        yield reader
    finally:
        writer.close()


@pytest.mark.parametrize("body", [BODY, STREAM], ids=["whole", "stream"])
async def test_a_hang_up_at_any_time_cancels_the_request(body):
    before_the_first_event, between_tokens = [], [Started(7), TextDelta(0, "Hel")]
    for phase in (before_the_first_event, between_tokens[:1], between_tokens):
        pool = FakePool([*phase, asyncio.Event()])
        async with serving(pool) as url:
            async with asked(url, body):
                await asyncio.wait_for(pool.waiting.wait(), 10)
            assert await asyncio.wait_for(pool.cancelled.wait(), 10)


async def test_a_hang_up_cancels_every_prompt_of_a_body():
    pool = FakePool(hello(), [Started(7), asyncio.Event()])
    async with serving(pool) as url:
        client = httpx.AsyncClient(base_url=url)
        request = client.post("/v1/completions", json={"prompt": ["a", "b"]})
        task = asyncio.create_task(request)
        await asyncio.wait_for(pool.waiting.wait(), 10)
        task.cancel()
        assert await asyncio.wait_for(pool.cancelled.wait(), 10)
        await client.aclose()


async def test_a_hang_up_in_the_middle_of_the_body_asks_the_pool_nothing():
    pool = FakePool()
    async with serving(pool) as url:
        async with asked(url, BODY) as reader:
            assert await reader.readline()
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[-1]))
        writer.write(post_head(CHAT, "Content-Length: 9") + b"{")
        await writer.drain()
        writer.close()
    assert len(pool.requests) == 1


async def stream_of(pool):
    events = pool.generate(GenerationRequest(id="1"))
    encoder = Encoder(Head("chatcmpl-1", "fake", 5), 1, include_usage=False)
    meter = Meter(Metrics(pool), "chat")
    narration = Narration(await anext(events), events, encoder, OPENAI, meter)
    return TokenStream(streaming._joined(narration), narration, OPENAI)


async def for_ever(*_):
    await asyncio.Event().wait()


async def test_a_hang_up_before_the_stream_begins_cancels_the_request():
    pool = FakePool()

    async def hung_up():
        return {"type": "http.disconnect"}

    await (await stream_of(pool))({"type": "http", "method": "POST"}, hung_up, for_ever)
    assert pool.cancelled.is_set()


async def test_a_quiet_stream_carries_comments(monkeypatch):
    monkeypatch.setattr(streaming, "_PING_SECONDS", 0.01)
    going = asyncio.Event()
    pool = FakePool([Started(7), going, end()])
    sent = []

    async def send(message):
        sent.append(message.get("body", b""))
        if sent[-1].startswith(b": ping"):
            going.set()

    await (await stream_of(pool))({"type": "http", "method": "POST"}, for_ever, send)
    comment = next(body for body in sent if body.startswith(b": ping"))
    assert comment.endswith(b"\n\n") and b"\r" not in comment


async def test_what_is_asked_and_answered_is_never_logged(caplog):
    caplog.set_level(logging.DEBUG)
    canary = "canary in a coal mine"
    asked = {"messages": [{"role": "user", "content": canary}]}
    for stream in (True, False):
        pool = FakePool([Started(7), TextDelta(0, canary), end()])
        assert canary in (await answer_of(pool, asked | {"stream": stream})).text
    assert caplog.records and canary not in caplog.text
