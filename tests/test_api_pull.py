"""`/api/pull`: weights that a client asks for, from a hub on this machine."""

import asyncio
import json
import random

import httpx
import ollama
import pytest
from huggingface_hub import close_session

from api.keys import KeyFile, add
from tests.hub_stand_in import hub_stand_in
from tests.several import DEMO, several_served

HI = [{"role": "user", "content": "What is the capital of France?"}]
CHUNK = 10 << 20  # bytes that the hub's client writes at a time
LARGE = random.Random(3).randbytes(2 * CHUNK)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with hub_stand_in(DEMO.read_bytes()) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.delenv("HF_HUB_CACHE", raising=False)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub
        close_session()


async def test_a_model_is_pulled_and_then_answers(hub, tmp_path):
    async with several_served(tmp_path) as (_, url), ollama.AsyncClient(host=url) as client:
        with pytest.raises(ollama.ResponseError, match="onebox pull far"):
            await client.chat("far:8b", HI)
        steps = [step async for step in await client.pull("far:8b", stream=True)]
        said = list(dict.fromkeys(step.status for step in steps))
        pulling = f"pulling {hub.sha256[:12]}"
        assert said == ["pulling manifest", pulling, "verifying sha256 digest", "success"]
        last = [step for step in steps if step.status == pulling][-1]
        assert last.digest == f"sha256:{hub.sha256}"
        assert last.total == last.completed == len(hub.content)
        assert "far:8b" in [model.model for model in (await client.list()).models]
        answer = await client.chat("far:8b", HI, options={"temperature": 0})
        assert answer.message.content == "The capital of France is Paris."
        hub.shutdown()  # what is here is only verified
        for name in ("far", "a", "b"):
            assert (await client.pull(name)).status == "success"
        steps = [step.status async for step in await client.pull("far", stream=True)]
        assert steps == ["pulling manifest", "verifying sha256 digest", "success"]


async def test_what_a_client_names_is_looked_up_and_nothing_else(hub, tmp_path):
    async with several_served(tmp_path) as (_, url), ollama.AsyncClient(host=url) as client:
        for name in ("org/weights-GGUF", f"{hub.url}/x.gguf", str(DEMO), "../far", "hf.co/a/b"):
            with pytest.raises(ollama.ResponseError) as refusal:
                await client.pull(name)
            assert refusal.value.status_code == 404
        assert hub.described == 0
        hub.files.clear()
        with pytest.raises(ollama.ResponseError, match="has no file") as refusal:
            await client.pull("far")
        assert refusal.value.status_code == 502
        with pytest.raises(ollama.ResponseError, match="has no file"):
            async for step in await client.pull("far", stream=True):
                assert step.status == "pulling manifest"


async def some_of(client):
    """A pull whose client has seen the first bytes arrive, and hangs up."""
    async with client.stream("POST", "/api/pull", json={"model": "far"}) as answer:
        async for line in answer.aiter_lines():
            if json.loads(line).get("completed"):
                return


async def test_a_pull_that_nobody_waits_for_ends_and_the_next_goes_on_there(hub, tmp_path):
    hub.content, hub.stall_at = LARGE, CHUNK + 100
    async with (
        several_served(tmp_path) as (box, url),
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        await some_of(client)
        [pull] = box.models._pulls._running.values()
        async with asyncio.timeout(30):
            while pull.watchers:
                await asyncio.sleep(0.005)
            hub.recover()
            while box.models._pulls._running:
                await asyncio.sleep(0.005)
        assert not list((tmp_path / "hf").rglob("*.verified"))
        sent, described = hub.sent, hub.described
        assert (await client.post("/api/pull", json={"model": "far", "stream": False})).json() == {
            "status": "success"
        }
        assert hub.described > described
        assert await asyncio.to_thread(hub.has_sent, sent + CHUNK)


async def test_two_who_pull_the_same_share_one_download(hub, tmp_path):
    hub.content, hub.stall_at = LARGE, CHUNK + 100
    async with (
        several_served(tmp_path) as (_, url),
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        whole = asyncio.create_task(client.post("/api/pull", json={"name": "far"}))
        await some_of(client)
        hub.recover()
        lines = (await whole).text.splitlines()
        assert json.loads(lines[-1]) == {"status": "success"}
        assert await asyncio.to_thread(hub.has_sent, len(LARGE))


async def test_a_pull_that_runs_when_the_server_stops_ends_with_an_error(hub, tmp_path):
    hub.content, hub.stall_at = LARGE, CHUNK + 100
    async with (
        several_served(tmp_path) as (box, url),
        httpx.AsyncClient(base_url=url, timeout=60) as client,
        client.stream("POST", "/api/pull", json={"model": "far"}) as answer,
    ):
        async for line in answer.aiter_lines():
            if json.loads(line).get("completed"):
                await box.models.close(patience=1)
        assert "shutting down" in json.loads(line)["error"]


async def test_where_there_are_keys_only_admins_pull(hub, tmp_path, key_file):
    alice, root = add(key_file, "alice"), add(key_file, "root", admin=True)
    async with several_served(tmp_path, keys=KeyFile(key_file)) as (_, url):
        for secret, status in ((alice, 403), (root, 200), ("wrong", 401)):
            headers = {"Authorization": f"Bearer {secret}"}
            async with httpx.AsyncClient(base_url=url, headers=headers) as client:
                answer = await client.post("/api/pull", json={"model": "b", "stream": False})
                assert answer.status_code == status
