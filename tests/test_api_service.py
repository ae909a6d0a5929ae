"""What operators and clients ask beside the model: health, readiness, models, metrics."""

import asyncio
import socket

import httpx
import pytest
from openai import AsyncOpenAI, NotFoundError
from prometheus_client.parser import text_string_to_metric_families

from api.server import bind
from inference import Started, TextDelta, WorkerLost
from tests.fake_pool import FakePool, serving

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "Hi"}]}


async def test_health_is_about_the_process_and_ready_about_the_model():
    pool = FakePool()
    async with serving(pool) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/ready")).json()["status"] == "ready"
        pool.become("restarting", "the worker died")
        ready = await client.get("/ready")
        assert ready.status_code == 503
        assert ready.json() == {
            "status": "restarting",
            "detail": "the worker died",
            "model": "fake",
        }
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/")).text == "Ollama is running"
        assert (await client.head("/")).status_code == 200


async def test_the_model_is_listed_and_found_by_every_name():
    async with serving(FakePool()) as url:
        client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        listed = [model async for model in client.models.list()]
        assert [model.id for model in listed] == ["fake"]
        assert listed[0].max_model_len == 4096
        for name in ("fake", "default", "fake:latest", "org/fake"):
            assert (await client.models.retrieve(name)).id == "fake"
        with pytest.raises(NotFoundError) as refusal:
            await client.models.retrieve("gpt-4o")
        assert refusal.value.code == "model_not_found"
        await client.close()


async def metrics_of(client):
    text = (await client.get("/metrics")).text
    families = text_string_to_metric_families(text)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


async def test_metrics_show_the_pool_as_it_is_now():
    pool = FakePool()
    async with serving(pool) as url, httpx.AsyncClient(base_url=url) as client:
        metrics = await metrics_of(client)
        pool.become("loading", "")
        assert (await metrics_of(client))[("onebox_ready",)] == 0
    assert metrics[("onebox_ready",)] == 1
    shown = {
        "onebox_requests_waiting": 2,
        "onebox_requests_running": 3,
        "onebox_kv_cells_used": 100,
        "onebox_kv_cells_total": 4096,
        "onebox_prompt_tokens_total": 70,
        "onebox_cached_tokens_total": 30,
        "onebox_completion_tokens_total": 20,
        "onebox_worker_restarts_total": 1,
    }
    assert {name: metrics[(name, "fake")] for name in shown} == shown


async def test_metrics_count_each_request_once_under_the_status_it_had():
    lost = [Started(7), TextDelta(0, "Hel"), WorkerLost("it died")]
    gone = [Started(7), asyncio.Event()]
    pool = FakePool(*([lost, lost, gone]))
    async with serving(pool) as url, httpx.AsyncClient(base_url=url) as client:
        await client.post(CHAT, json=BODY)
        await client.post(CHAT, json=BODY | {"stream": True})
        task = asyncio.create_task(client.post(CHAT, json=BODY | {"stream": True}))
        await asyncio.wait_for(pool.waiting.wait(), 10)
        task.cancel()
        await asyncio.wait_for(pool.cancelled.wait(), 10)
        await client.post(CHAT, json=BODY)
        await client.post(CHAT, json=BODY | {"stream": True})
        await client.post(CHAT, json={})
        await client.post("/v1/completions", json={"prompt": "Hi"})
        metrics = await metrics_of(client)
    outcomes = {key[1:]: n for key, n in metrics.items() if key[0] == "onebox_requests_total"}
    assert outcomes == {
        ("chat", "200"): 2,
        ("chat", "400"): 1,
        ("chat", "499"): 1,
        ("chat", "503"): 2,
        ("completions", "200"): 1,
    }
    assert metrics[("onebox_request_seconds_count",)] == 3
    assert metrics[("onebox_time_to_first_token_seconds_count",)] == 5
    assert metrics[("onebox_inter_token_seconds_count",)] == 3


async def test_every_app_counts_for_itself():
    for _ in range(2):
        async with serving(FakePool()) as url, httpx.AsyncClient(base_url=url) as client:
            await client.post(CHAT, json=BODY)
            metrics = await metrics_of(client)
            assert metrics[("onebox_requests_total", "chat", "200")] == 1


def test_a_token_never_waits_for_the_acknowledgement_of_the_one_before():
    with bind("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_bodies_in_progress_have_a_bound_together(monkeypatch):
    body = BODY | {"user": "x" * 1000}
    monkeypatch.setattr("api.metrics.MAX_HELD", 1500)
    pool = FakePool([Started(7), asyncio.Event()])
    async with serving(pool) as url, httpx.AsyncClient(base_url=url) as client:
        stream = asyncio.create_task(client.post(CHAT, json=body | {"stream": True}))
        await asyncio.wait_for(pool.waiting.wait(), 10)
        assert (await client.post(CHAT, json=body)).status_code == 429
        assert (await metrics_of(client))[("onebox_request_bytes",)] > 1000
        stream.cancel()
        await asyncio.wait_for(pool.cancelled.wait(), 10)
        for _ in range(3):
            assert (await client.post(CHAT, json=body)).status_code == 200
        assert (await metrics_of(client))[("onebox_request_bytes",)] == 0
