"""Several models behind one server, as the official clients and operators see them."""

import asyncio
from datetime import UTC, datetime, timedelta

import httpx
import ollama
import openai
import pytest

from tests import embedding_model
from tests.several import DEMO, several_served, workers
from tests.test_api_service import metrics_of

HI = [{"role": "user", "content": "What is the capital of France?"}]
PARIS = "The capital of France is Paris."
GREEDY = {"temperature": 0}


async def test_the_openai_client_reaches_every_model_by_its_name(tmp_path):
    async with several_served(tmp_path) as (_, url):
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        listed = {model.id: model async for model in client.models.list()}
        assert [*listed] == ["a", "b", "c", "broken"]
        assert [model.state for model in listed.values()] == ["ready", *["unloaded"] * 3]
        assert listed["a"].max_model_len == 1024 and not hasattr(listed["b"], "max_model_len")
        answer = await client.chat.completions.create(model="bee:1b", messages=HI, temperature=0)
        assert (answer.model, answer.choices[0].message.content) == ("b", PARIS)
        assert (await client.models.retrieve("BEE:1B")).max_model_len == 1024
        stream = await client.chat.completions.create(model="c", messages=HI, stream=True)
        assert {chunk.model async for chunk in stream} == {"c"}
        with pytest.raises(openai.BadRequestError, match="c only streams its answers"):
            await client.chat.completions.create(model="c", messages=HI)
        for name in ("far", "gone", "gpt-4o", str(DEMO), "/etc/passwd", "../models.yaml"):
            with pytest.raises(openai.NotFoundError) as refusal:
                await client.chat.completions.create(model=name, messages=HI)
            assert refusal.value.code == "model_not_found" and refusal.value.param == "model"
        for name in ("far", "nobody", "etc/passwd"):
            with pytest.raises(openai.NotFoundError):
                await client.models.retrieve(name)
        asked = {"model": "b", "messages": HI, "extra_body": {"keep_alive": "soon"}}
        with pytest.raises(openai.BadRequestError) as refusal:
            await client.chat.completions.create(**asked)
        assert refusal.value.param == "keep_alive"
        await client.chat.completions.create(**asked | {"extra_body": {"keep_alive": "0"}})
        await client.close()


async def test_the_ollama_client_loads_keeps_and_unloads_models(tmp_path):
    async with (
        several_served(tmp_path, threads=False) as (_, url),
        ollama.AsyncClient(host=url) as client,
    ):
        [running] = (await client.ps()).models
        assert (running.model, running.expires_at.year) == ("a", 2318)
        assert running.size == DEMO.stat().st_size
        loaded = await client.generate("b", keep_alive="10m")
        assert (loaded.done_reason, workers()) == ("load", 2)
        assert loaded.load_duration == loaded.total_duration > 0
        first, running = (await client.ps()).models
        assert (first.model, running.model, running.context_length) == ("a", "b", 1024)
        left = running.expires_at - datetime.now(UTC)
        assert timedelta(minutes=9) < left <= timedelta(minutes=10)
        answer = await client.chat("bee:1b", HI, options=GREEDY, keep_alive=-1)
        assert (answer.message.content, answer.load_duration) == (PARIS, 0)
        assert (await client.ps()).models[1].expires_at.year == 2318
        gone = await client.chat("b", keep_alive=0)
        assert (gone.done_reason, workers()) == ("unload", 1)
        assert [model.model for model in (await client.ps()).models] == ["a"]
        answer = await client.chat("b", HI, options=GREEDY, keep_alive=0)
        assert answer.message.content == PARIS
        assert 0 < answer.load_duration < answer.total_duration
        for name in ("broken", "gone"):
            with pytest.raises(ollama.ResponseError) as refusal:
                await client.chat(name, HI)
            assert name in refusal.value.error and str(tmp_path) not in refusal.value.error


async def test_the_ollama_client_sees_what_there_is(tmp_path):
    async with several_served(tmp_path) as (_, url), ollama.AsyncClient(host=url) as client:
        listed = (await client.list()).models
        assert [model.model for model in listed] == ["a", "first", "b", "bee:1b", "c", "broken"]
        assert listed[0].size == listed[2].size == DEMO.stat().st_size
        assert listed[0].details.quantization_level
        shown = [await client.show(name) for name in ("a", "bee:1b")]
        assert {one.modelinfo["general.architecture"] for one in shown} == {"qwen3"}
        assert {one.details.quantization_level for one in shown} == {
            listed[0].details.quantization_level
        }
        assert len({one.modelinfo["general.parameter_count"] for one in shown}) == 1
        assert workers() == 1


async def test_an_embedding_model_is_loaded_beside_one_that_answers(tmp_path):
    embedding_model.write(tmp_path / "embedder.gguf", "last")
    async with (
        several_served(tmp_path) as (_, url),
        ollama.AsyncClient(host=url) as client,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as other,
    ):
        assert (await client.show("embedder")).capabilities == ["embedding"]
        made = await client.embed("embedder", ["A fox.", "An ox."], keep_alive=-1)
        assert 0 < made.load_duration < made.total_duration and len(made.embeddings) == 2
        assert (await client.embed("embedder", "A fox.")).load_duration == 0
        again = await other.embeddings.create(model="embedder", input="A fox.")
        assert again.model == "embedder" and len(again.data[0].embedding) == 256
        assert (await client.ps()).models[1].expires_at.year == 2318
        with pytest.raises(openai.BadRequestError, match="gives no answers"):
            await other.chat.completions.create(model="embedder", messages=HI)
        with pytest.raises(ollama.ResponseError, match="is no embedding model"):
            await client.embed("a", "A fox.")
        assert (await client.chat("a", HI, options=GREEDY)).message.content == PARIS


async def test_the_first_model_may_go_and_come_back(tmp_path):
    async with (
        several_served(tmp_path, room=1) as (_, url),
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        asked = {"messages": HI, "temperature": 0}
        for name in ("b", None, "b"):
            answer = await client.post("/v1/chat/completions", json=asked | {"model": name})
            assert answer.json()["choices"][0]["message"]["content"] == PARIS
        ready = await client.get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "unloaded")
        metrics = await metrics_of(client)
        assert metrics[("onebox_ready",)] == 1
        assert ("onebox_completion_tokens_total", "b") in metrics
        assert ("onebox_completion_tokens_total", "a") not in metrics


async def test_a_client_that_hangs_up_while_its_model_loads_leaves_no_request(tmp_path):
    async with (
        several_served(tmp_path) as (box, url),
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        asked = {"messages": HI, "model": "b", "stream": True}
        hasty = asyncio.create_task(client.post("/v1/chat/completions", json=asked))
        async with asyncio.timeout(30):
            while box.models.status("b").state != "loading":
                await asyncio.sleep(0.005)
        hasty.cancel()
        patient = await client.post("/v1/chat/completions", json=asked)
        assert patient.status_code == 200
        metrics = await metrics_of(client)
        assert metrics[("onebox_requests_total", "chat", "499")] == 1
        assert metrics[("onebox_requests_running", "b")] == 0
