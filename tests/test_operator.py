"""What operators see of a server and do about it: `/api/v1/operator` and `/api/v1/health`."""

import asyncio
import json
import logging

import httpx
import psutil
import pytest

from api import __version__, keys
from api.gateway import machine
from api.guard import is_for_admins
from inference import Pool, Started, TextDelta, Wishes, load_config, prepare
from inference.memory import Gpu, Memory
from tests.bodies import BODIES, CHAT, COMPLETIONS, EMBEDDINGS, OLLAMA_CHAT, STREAMED
from tests.fake_pool import FakePool, serving
from tests.knocking import client_of, refusal
from tests.several import several_served
from tests.talking import new_session, said, session, talking
from tests.test_api_service import metrics_of

OPERATOR, HEALTH = "/api/v1/operator", "/api/v1/health"
FIRST, BETWEEN = "onebox_time_to_first_token_seconds", "onebox_inter_token_seconds"
SENTENCE = "An operator ended this request."
LONG = {"messages": [{"role": "user", "content": "Hi"}], "ignore_eos": True, "max_tokens": 900}
SHORT = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
PARIS = "The capital of France is Paris."


def stuck():
    return [Started(7), TextDelta(0, "Hel"), asyncio.Event()]


async def view(client):
    answer = await client.get(OPERATOR)
    assert answer.status_code == 200
    return answer.json()


async def requests_of(client, ready):
    """The list of requests, as soon as `ready` says so of it."""
    async with asyncio.timeout(60):
        while not ready(found := (await view(client))["requests"]):
            await asyncio.sleep(0.005)
    return found


async def cancel(client, id):
    return (await client.post(f"{OPERATOR}/requests/{id}/cancel")).json()


def ended(answer, stream):
    """Whether an answer is the explicit error of who was ended by an operator."""
    if not stream:
        assert answer.status_code == 500 and answer.headers["x-should-retry"] == "false"
        assert "retry-after" not in answer.headers
    return SENTENCE in answer.text


async def test_it_shows_the_models_and_the_box(monkeypatch):
    gpu = Gpu("H200", total=100, free=40)
    monkeypatch.setattr(machine, "read_memory", lambda: Memory(1000, 300, (gpu,)))
    async with serving(FakePool()) as url, httpx.AsyncClient(base_url=url) as client:
        seen, health = await view(client), (await client.get(HEALTH)).json()
    [model] = seen["models"]
    shown = {
        "name": "fake",
        "state": "ready",
        "slots": 4,
        "running": 3,
        "waiting": 2,
        "kv_used": 100,
        "kv_total": 4096,
        "restarts": 1,
        "prompt_tokens": 70,
        "cached_tokens": 30,
        "completion_tokens": 20,
        "preemptions": 4,
        "pid": None,
        "memory": None,
    }
    assert model | shown == model
    for told in (seen, health):
        assert (told["memory"], told["version"]) == ({"used": 700, "total": 1000}, __version__)
        assert told["vram"] == [{"name": "H200", "used": 60, "total": 100}] and told["uptime"] >= 0
    cpu_percent = health["load"].pop("cpu_percent")
    assert 0 <= cpu_percent <= 100
    load = {"running": 3, "waiting": 2, "slots": 4, "kv_used": 100, "kv_total": 4096}
    assert (health["status"], health["model"], health["load"]) == ("ok", "fake", load)


async def test_health_says_what_the_model_is_at():
    pool = FakePool()
    pool.become("loading", "")
    async with serving(pool) as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.get(HEALTH)
    assert (answer.status_code, answer.json()["status"]) == (200, "loading")


async def test_the_box_is_looked_at_once_in_a_second(monkeypatch):
    looks, now = [], [0.0]
    monkeypatch.setattr(machine, "read_memory", lambda: looks.append(1) or Memory(1000, 300))
    monkeypatch.setattr(machine, "monotonic", lambda: now[0])
    box = machine.Machine()
    await asyncio.gather(*(box.look() for _ in range(9)))
    assert len(looks) == 1
    now[0] = 1.5
    await asyncio.gather(*(box.look() for _ in range(9)))
    assert (len(looks), box.up) == (2, 1.5)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", STREAMED)
async def test_a_client_is_told_that_an_operator_ended_its_request(path, stream):
    pool = FakePool(stuck(), stuck())
    asked = BODIES[path] | {"stream": stream, "max_tokens": 9}
    async with serving(pool) as url, httpx.AsyncClient(base_url=url) as client:
        first, second = (asyncio.create_task(client.post(path, json=asked)) for _ in range(2))
        listed = await requests_of(client, lambda found: [r["tokens"] for r in found] == [2, 2])
        assert len({request["id"] for request in listed}) == 2
        assert await cancel(client, listed[0]["id"]) == {"cancelled": True}
        done, _ = await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1 and ended(done.pop().result(), stream)
        [left] = (await view(client))["requests"]
        assert left == listed[1] | {"seconds": left["seconds"]}
        assert await cancel(client, listed[0]["id"]) == {"cancelled": False}
        assert await cancel(client, left["id"]) == {"cancelled": True}
        assert all(ended(answer, stream) for answer in await asyncio.gather(first, second))
        assert (await view(client))["requests"] == []


async def test_a_conversation_keeps_what_it_was_told_until_an_operator_ended_it():
    async with serving(FakePool(stuck())) as url, httpx.AsyncClient(base_url=url) as client:
        id = await new_session(url)
        async with talking(url) as talk:
            await talk.say(message="Hi", session_id=id)
            [listed] = await requests_of(client, lambda found: found and found[0]["tokens"] == 2)
            await cancel(client, listed["id"])
            *events, last = await talk.turn()
            assert said(events) == "Hel"
            assert (last["type"], last["code"], last["message"]) == ("error", "cancelled", SENTENCE)
            await talk.say(message="Again", session_id=id)
            assert (await talk.turn())[-1]["type"] == "end"
        kept = await session(url, id)
    assert [message["content"] for message in kept["messages"]] == ["Hi", "Hel", "Again", "Hello"]


async def test_vectors_and_questions_are_listed_and_can_be_ended_as_well():
    pool = FakePool([asyncio.Event()])
    async with serving(pool) as url, httpx.AsyncClient(base_url=url) as client:
        asking = asyncio.create_task(client.post(EMBEDDINGS, json={"input": "Hi"}))
        [listed] = await requests_of(client, len)
        assert (listed["model"], listed["tokens"]) == ("fake", 0)
        await cancel(client, listed["id"])
        refusal(await asking, 500, "cancelled")


async def test_all_prompts_of_a_request_end_with_it():
    pool = FakePool(stuck(), stuck())
    async with serving(pool) as url, httpx.AsyncClient(base_url=url) as client:
        asking = asyncio.create_task(client.post(COMPLETIONS, json={"prompt": ["a", "b"]}))
        listed = await requests_of(client, lambda found: len(found) == 2)
        assert len({request["id"] for request in listed}) == 1
        await cancel(client, listed[0]["id"])
        refusal(await asking, 500, "cancelled")
        assert (await view(client))["requests"] == []


async def streamed(client, **fields):
    """The texts of a stream of chat completions, and its last event before `[DONE]`."""
    answer = await client.post(CHAT, json=LONG | {"stream": True} | fields)
    *events, done = answer.text.strip().removeprefix("data: ").split("\n\ndata: ")
    assert done == "[DONE]"
    return answer.text, json.loads(events[-1])


async def test_running_and_queued_requests_end_in_the_model_and_neighbours_go_on():
    one_slot = prepare(load_config(), "qwen3-demo", Wishes(context=2048, slots=2), tuned=False)
    pool = Pool(one_slot)
    async with serving(pool) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        await pool.until_ready()
        alone = (await client.post(CHAT, json=LONG | {"temperature": 0, "max_tokens": 900})).json()
        async with asyncio.TaskGroup() as all:
            first = all.create_task(streamed(client))
            await requests_of(client, lambda found: [r["state"] for r in found] == ["running"])
            near = LONG | {"temperature": 0, "max_tokens": 900}
            near = all.create_task(client.post(CHAT, json=near))
            await requests_of(client, lambda found: len(found) == 2 and found[1]["tokens"] > 0)
            queued = all.create_task(streamed(client))
            async with asyncio.timeout(60):
                while not pool.status().stats.waiting:
                    await asyncio.sleep(0.005)
            listed = await requests_of(client, lambda found: len(found) == 3)
            states = [(r["state"], r["tokens"] > 0) for r in listed]
            assert states == [("running", True), ("running", True), ("waiting", False)]
            assert all_seconds_fall(listed) and {r["model"] for r in listed} == {"qwen3-demo"}
            for place in (2, 0):
                assert (await cancel(client, listed[place]["id"]))["cancelled"]
        for text, last in (first.result(), queued.result()):
            assert last["error"]["code"] == "cancelled", text
        assert near.result().json()["choices"] == alone["choices"]
        assert (await view(client))["requests"] == []
        async with asyncio.timeout(60):
            while pool.status().stats.running or pool.status().stats.waiting:
                await asyncio.sleep(0.005)
        made = pool.status().stats.completion_tokens - 2 * 900
        assert made < 900 and pool.status().restarts == 0


def all_seconds_fall(listed):
    seconds = [request["seconds"] for request in listed]
    return seconds == sorted(seconds, reverse=True) and seconds[-1] >= 0


async def test_who_waits_for_its_model_is_listed_and_ended_and_others_get_it(tmp_path):
    async with (
        several_served(tmp_path) as (_, url),
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        asked = SHORT | {"model": "b", "temperature": 0}
        first = asyncio.create_task(client.post(CHAT, json=asked))
        second = asyncio.create_task(client.post(OLLAMA_CHAT, json=asked | {"stream": False}))
        listed = await requests_of(client, lambda found: len(found) == 2)
        assert [(r["model"], r["state"], r["tokens"]) for r in listed] == [("b", "waiting", 0)] * 2
        [one] = [request["id"] for request in listed if request["id"].startswith("chatcmpl-")]
        assert await cancel(client, one) == {"cancelled": True}
        refusal(await first, 500, "cancelled")
        assert (await second).json()["message"]["content"] == PARIS


async def test_time_that_was_waited_for_a_model_counts(tmp_path):
    async with (
        several_served(tmp_path) as (_, url),
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        asking = asyncio.create_task(streamed(client, model="b"))
        [waits] = await requests_of(client, len)
        [runs] = await requests_of(client, lambda found: found and found[0]["state"] == "running")
        assert runs["id"] == waits["id"] and runs["seconds"] > waits["seconds"]
        await cancel(client, runs["id"])
        await asking


async def test_a_model_is_unloaded_with_its_worker(tmp_path):
    async with (
        several_served(tmp_path, threads=False) as (_, url),
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        unload = f"{OPERATOR}/models/%s/unload"
        assert (await client.post(unload % "c")).status_code == 204  # it is not there
        for name in ("b", "c"):
            await client.post(CHAT, json=SHORT | {"model": name, "stream": True})
        models = {model["name"]: model for model in (await view(client))["models"]}
        assert sorted(models) == ["a", "b", "c"] and models["c"]["expires_in"] > 100
        for model in models.values():
            worker = psutil.Process(model["pid"])
            assert "inference.worker" in worker.cmdline() and model["memory"] > 1 << 20
        assert (await client.post(unload % "bee:1b")).status_code == 204
        assert not psutil.pid_exists(models["b"]["pid"])
        assert [model["name"] for model in (await view(client))["models"]] == ["a", "c"]
        refusal(await client.post(unload % "nobody"), 404, "model_not_found")
        again = await client.post(CHAT, json=SHORT | {"model": "b", "temperature": 0})
        assert again.json()["choices"][0]["message"]["content"] == PARIS


async def test_a_model_in_use_is_unloaded_once_nobody_uses_it(tmp_path):
    async with (
        several_served(tmp_path) as (_, url),
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        asking = asyncio.create_task(streamed(client, model="b", max_tokens=900))
        await requests_of(client, lambda found: found and found[0]["tokens"] > 0)
        assert (await client.post(f"{OPERATOR}/models/b/unload")).status_code == 204
        assert (await asking)[1]["choices"][0]["finish_reason"] == "length"
        async with asyncio.timeout(60):
            while [model["name"] for model in (await view(client))["models"]] != ["a"]:
                await asyncio.sleep(0.005)


async def test_its_histograms_are_those_of_the_metrics():
    async with serving(FakePool()) as url, httpx.AsyncClient(base_url=url) as client:
        for _ in range(5):
            await client.post(CHAT, json=SHORT)
        seen, metrics = await view(client), await metrics_of(client)
    for short, name, count in (("ttft", FIRST, 5), ("itl", BETWEEN, 5)):
        spread, counts = seen[short], [number for _, number in seen[short]["buckets"]]
        assert spread["count"] == count == metrics[(f"{name}_count",)]
        assert spread["sum"] == metrics[(f"{name}_sum",)] > 0
        assert counts == sorted(counts) and counts[-1] <= count and len(counts) > 9
        assert {str(le): number for le, number in spread["buckets"]} == {
            key[1]: number
            for key, number in metrics.items()
            if key[0] == f"{name}_bucket" and key[1] != "+Inf"
        }


async def test_the_log_says_who_did_what_and_nothing_of_the_request(key_file):
    admin = keys.add(key_file, "root", admin=True)
    async with client_of(FakePool(stuck()), key_file=key_file) as client:
        client.headers["x-api-key"] = admin
        assert (await view(client))["log"] == []
        logging.getLogger("inference.replica").error("Something\nhappened.")
        asked = {"messages": [{"role": "user", "content": "my secret"}]}
        asking = asyncio.create_task(client.post(CHAT, json=asked))
        [listed] = await requests_of(client, lambda found: found and found[0]["tokens"] == 2)
        await cancel(client, listed["id"])
        await cancel(client, "nobody's")
        await asking
        first, second = (await view(client))["log"]
    assert (first["level"], first["logger"]) == ("ERROR", "inference.replica")
    assert first["text"] == "Something happened." and first["time"] <= second["time"]
    assert second["text"] == f"root ended the request {listed['id']}."
    assert "secret" not in str((first, second))


async def test_operators_are_admins_and_see_the_names_of_others_only(key_file):
    admin, alice = keys.add(key_file, "root", admin=True), keys.add(key_file, "alice")
    [tenant] = [key.tenant for key in keys.load(key_file) if key.name == "alice"]
    async with client_of(FakePool(stuck()), key_file=key_file) as client:
        asking = asyncio.create_task(client.post(CHAT, json=SHORT, headers={"x-api-key": alice}))
        client.headers["x-api-key"] = admin
        [listed] = await requests_of(client, len)
        assert listed["tenant"] == "alice" and tenant not in str(await view(client))
        cancelling = f"{OPERATOR}/requests/{listed['id']}/cancel"
        for method, path in (
            ("GET", OPERATOR),
            ("GET", "/api//v1/operator/"),
            ("POST", cancelling),
            ("POST", cancelling.replace("/v1/", "//v1/")),
            ("POST", f"{OPERATOR}/models/fake/unload"),
            ("GET", f"{OPERATOR}/nothing"),
        ):
            asked = await client.request(method, path, headers={"x-api-key": alice})
            refusal(asked, 403, "admin_only")
        assert (await view(client))["requests"][0]["id"] == listed["id"]
        assert (await client.get(HEALTH, headers={"x-api-key": alice})).status_code == 200
        assert (await cancel(client, listed["id"]))["cancelled"]
        refusal(await asking, 500, "cancelled")
        del client.headers["x-api-key"]
        for path in (OPERATOR, HEALTH):
            refusal(await client.get(path), 401, "invalid_api_key")


@pytest.mark.parametrize(
    ("path", "admins"),
    [
        ("/metrics", True),
        ("/api/v1/operator", True),
        ("/api/v1/operator/anything", True),
        ("/api/v1/operators", False),
        ("/v1/operator", False),
    ],
)
def test_which_addresses_are_for_admins(path, admins):
    assert is_for_admins(path) == admins
