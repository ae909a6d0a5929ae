"""`/api/v1/agents` over HTTP, and agents under their names in every dialect."""

import json
from contextlib import AsyncExitStack, asynccontextmanager, closing

import httpx
import jsonschema_rs
import pytest

from api import keys
from api.keys import KeyFile
from api.store import agents as agents_module
from api.store.database import Database
from inference import Message, NotReady
from tests.bodies import BODIES, CHAT, EMBEDDINGS, HI, OLLAMA_CHAT, RESPONSES, STREAMED
from tests.fake_pool import FakePool, serving
from tests.several import several_served, workers

AGENTS = "/api/v1/agents"
WEATHER = {"type": "function", "function": {"parameters": {"type": "object"}, "name": "weather"}}
PIRATE = {
    "name": "The Pirate",
    "description": "Says Arr.",
    "system_prompt": "Arr.",
    "temperature": 0.5,
    "max_tokens": 9,
    "thinking": False,
    "tools": [WEATHER],
}
USER = Message("user", "Hi")


@asynccontextmanager
async def client_of(pool=None, **how):
    async with (
        serving(pool or FakePool(), **how) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        yield client


@asynccontextmanager
async def people(key_file, pool=None):
    """Clients of an admin and of two others, of one server."""
    secrets = [keys.add(key_file, name, admin=name == "ann") for name in ("ann", "bob", "carl")]
    async with serving(pool or FakePool(), keys=KeyFile(key_file)) as url, AsyncExitStack() as open:
        clients = [httpx.AsyncClient(base_url=url, headers={"x-api-key": one}) for one in secrets]
        yield [await open.enter_async_context(client) for client in clients]


async def make(client, **fields):
    response = await client.post(AGENTS, json=fields)
    assert response.status_code == 201, response.text
    return response.json()


async def names(client):
    return [agent["name"] for agent in (await client.get(AGENTS)).json()["agents"]]


def refused(response, status, code, param=None):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert (error["code"], error["param"]) == (code, param)
    return error["message"]


async def test_an_agent_is_made_read_changed_and_deleted_and_the_document_says_how():
    async with client_of() as client:
        document = (await client.get("/openapi.json")).json()

        async def asked(method, path, status, **body):
            response = await client.request(method, path, **body)
            assert response.status_code == status, response.text
            operation = document["paths"]["/".join([AGENTS, "{which}"][: 1 + (path != AGENTS)])]
            said = operation[method.lower()]["responses"][str(status)]["content"]
            for about in said.values():
                schema = about["schema"] | {"components": document["components"]}
                assert jsonschema_rs.is_valid(schema, response.json())
            return response.json() if response.content else None

        made = await asked("POST", AGENTS, 201, json=PIRATE)
        assert {name: made[name] for name in PIRATE} == PIRATE
        assert made["tools"] == [WEATHER] and made["mine"] and not made["shared"]
        assert json.dumps(made["tools"]) == json.dumps([WEATHER])  # in its own order
        assert (await asked("GET", AGENTS, 200))["agents"] == [made]
        for which in (made["id"], "the pirate", "The%20Pirate"):
            assert await asked("GET", f"{AGENTS}/{which}", 200) == made
        one = f"{AGENTS}/{made['id']}"
        changed = await asked("PATCH", one, 200, json={"top_p": "0.9", "thinking": None})
        assert "thinking" not in changed and changed["updated"] >= made["updated"]
        same = made.keys() - {"thinking", "updated"}
        assert {name: changed[name] for name in same} == {name: made[name] for name in same}
        assert changed["top_p"] == 0.9
        replaced = await asked("PUT", one, 200, json={"name": "Sailor", "seed": -1})
        assert replaced["description"] == "" and not PIRATE.keys() & replaced.keys() - {
            "name",
            "description",
        }
        assert (replaced["id"], replaced["created"]) == (made["id"], made["created"])
        assert await names(client) == ["Sailor"]
        await asked("DELETE", f"{AGENTS}/sailor", 204)
        assert (await asked("GET", one, 404))["error"]["code"] == "agent_not_found"
        assert await names(client) == []


LIMITS = [
    ("name", "n" * 64, "n" * 65),
    ("description", "é" * 1000, "é" * 1001),
    ("system_prompt", "é" * (64 << 10), "é" * ((64 << 10) + 1)),
    ("max_tokens", 1, 0),
    ("max_tokens", -1, -2),
    ("max_tokens", 2**31 - 1, 2**31),
    ("temperature", 2, 2.1),
    ("top_p", 1, 0),
    ("top_k", -1, -2),
    ("min_p", 1, 1.1),
    ("repetition_penalty", 10, 10.1),
    ("presence_penalty", -2, -2.1),
    ("frequency_penalty", 2, 2.1),
    ("seed", 2**63 - 1, "none"),
    ("tools", [WEATHER] * 128, [WEATHER] * 129),
]
WRONG = [
    *((field, value) for field, _, value in LIMITS),
    *(("name", name) for name in ("", " x", "-x", ".x", "a/b", "a:b", "é", "x\n", None, 5)),
    ("thinking", "perhaps"),
    ("compaction", 2),
    ("shared", "all"),
    ("tools.0.function.name", [{"function": {"name": "two words"}}]),
    ("model", "m" * 257),
    ("model", "nothing"),
]


async def test_what_is_at_a_limit_is_taken_and_stays_and_what_is_over_it_is_refused_by_name():
    async with client_of() as client:
        for field, value, _ in LIMITS:
            made = await make(client, **{"name": "x", field: value})
            assert made[field] == value
            assert (await client.delete(f"{AGENTS}/{made['id']}")).status_code == 204
        await make(client, name="x")
        for field, value in WRONG:
            body = {field.split(".")[0]: value}
            for response in (
                await client.post(AGENTS, json={"name": "y"} | body),
                await client.put(f"{AGENTS}/x", json={"name": "x"} | body),
                await client.patch(f"{AGENTS}/x", json=body),
            ):
                assert field in refused(response, 400, "invalid_value", field)
        assert await names(client) == ["x"]
        for content in (b"[", b"[]", b"\xff"):
            headers = {"Content-Type": "application/json"}
            response = await client.post(AGENTS, content=content, headers=headers)
            refused(response, 400, "invalid_value")


async def test_no_agent_has_the_name_of_a_model_or_stands_on_another_agent():
    async with client_of() as client:
        for name in ("fake", "FAKE", "default", "Default"):
            message = refused(
                await client.post(AGENTS, json={"name": name}), 409, "name_taken", "name"
            )
            assert "name of a model" in message
        await make(client, name="x", model="org/fake")
        refused(await client.post(AGENTS, json={"name": "X"}), 409, "name_taken", "name")
        await make(client, name="y", model="default")
        for body in ({"name": "z", "model": "x"}, {"name": "z", "model": "z"}):
            refused(await client.post(AGENTS, json=body), 400, "invalid_value", "model")
        refused(await client.patch(f"{AGENTS}/y", json={"name": "x"}), 409, "name_taken", "name")


async def test_who_asks_sees_and_changes_its_own_and_only_an_admin_shares(key_file):
    async with people(key_file) as (ann, bob, carl):
        own = await make(bob, name="x", system_prompt="b")
        await make(carl, name="x", system_prompt="c")
        assert (await carl.get(f"{AGENTS}/x")).json()["system_prompt"] == "c"
        for method, body in (
            ("GET", None),
            ("PATCH", {}),
            ("PUT", {"name": "x"}),
            ("DELETE", None),
        ):
            for client in (ann, carl):
                response = await client.request(method, f"{AGENTS}/{own['id']}", json=body)
                refused(response, 404, "agent_not_found")
        refused(await bob.patch(f"{AGENTS}/x", json={"shared": True}), 403, "admin_only", "shared")
        response = await bob.post(AGENTS, json={"name": "y", "shared": True})
        refused(response, 403, "admin_only", "shared")
        shared = await make(ann, name="y", shared=True)
        assert await names(bob) == ["x", "y"] and await names(ann) == ["y"]
        seen = (await bob.get(f"{AGENTS}/Y")).json()
        assert seen == shared | {"mine": False}
        for method, body in (("PATCH", {"seed": 1}), ("PUT", {"name": "y"}), ("DELETE", None)):
            response = await bob.request(method, f"{AGENTS}/y", json=body)
            refused(response, 403, "admin_only")
        refused(await ann.get(f"{AGENTS}/x"), 404, "agent_not_found")
        assert (await ann.delete(f"{AGENTS}/y")).status_code == 204
        assert await names(bob) == ["x"]


async def test_an_admin_may_change_what_another_admin_shares(tmp_path):
    first, second = (keys.add(tmp_path / "k", name, admin=True) for name in ("ann", "bob"))
    async with client_of(keys=KeyFile(tmp_path / "k")) as client:
        client.headers["x-api-key"] = first
        await make(client, name="x", shared=True)
        client.headers["x-api-key"] = second
        changed = (await client.patch(f"{AGENTS}/x", json={"seed": 1})).json()
        assert changed["seed"] == 1 and not changed["mine"]
        assert (await client.patch(f"{AGENTS}/x", json={"shared": False})).status_code == 200
        assert await names(client) == []
        client.headers["x-api-key"] = first
        assert await names(client) == ["x"]


async def test_there_may_be_too_many(monkeypatch):
    monkeypatch.setattr(agents_module, "MOST", 1)
    async with client_of() as client:
        await make(client, name="x")
        refused(await client.post(AGENTS, json={"name": "y"}), 409, "too_many_stored")


async def test_agents_are_there_after_a_restart(tmp_path):
    with closing(Database(tmp_path / "onebox.db")) as database:
        async with client_of(database=database) as client:
            made = await make(client, **PIRATE)
        async with client_of(database=database) as client:
            assert (await client.get(f"{AGENTS}/the pirate")).json() == made


NAMED = {"model": "the pirate:latest"}
TOLD = {OLLAMA_CHAT: "the pirate:latest", "/api/generate": "the pirate:latest"}  # as Ollama does


@pytest.mark.parametrize("path", STREAMED)
async def test_every_dialect_asks_an_agent_by_its_name(path):
    pool = FakePool()
    async with client_of(pool) as client:
        await make(client, **PIRATE)
        for fields in ({}, {"temperature": 1.5, "options": {"temperature": 1.5}}):
            response = await client.post(path, json=BODIES[path] | NAMED | fields)
            assert response.status_code == 200
            assert response.json()["model"] == TOLD.get(path, "The Pirate")
    assert [request.sampling.temperature for request in pool.requests] == [0.5, 1.5]
    for request in pool.requests:
        assert (request.model, request.max_tokens, request.thinking) == (None, 9, False)
        if request.prompt is None:
            assert request.messages == (Message("system", "Arr."), USER)
            assert [tool.name for tool in request.tools] == ["weather"]
        else:
            assert (request.prompt, request.messages, request.tools) == ("Hi", (), ())


async def test_a_streamed_answer_names_the_agent_too():
    async with client_of() as client:
        await make(client, **PIRATE)
        for path in STREAMED[:4]:
            answer = await client.post(path, json=BODIES[path] | NAMED | {"stream": True})
            assert '"model":"The Pirate"' in answer.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages/count_tokens", {"messages": HI}),
        ("/v1/responses/input_tokens", {"input": "Hi"}),
        ("/tokenize", {"messages": HI}),
    ],
)
async def test_the_prompt_of_an_agent_is_counted_with_what_it_says(path, body):
    pool = FakePool()
    async with client_of(pool) as client:
        await make(client, **PIRATE)
        assert (await client.post(path, json=body | NAMED)).status_code == 200
        assert (await client.post(path, json=body)).status_code == 200
    asked, plain = pool.requests
    assert asked.messages == (Message("system", "Arr."), USER) and plain.messages == (USER,)


async def test_nobody_asks_the_agent_of_somebody_else(key_file):
    pool = FakePool()
    async with people(key_file, pool) as (ann, bob, _):
        await make(ann, **PIRATE)
        for path in STREAMED:
            assert (await ann.post(path, json=BODIES[path] | NAMED)).status_code == 200
            response = await bob.post(path, json=BODIES[path] | NAMED)
            assert response.status_code == 404 and "this is fake" in response.text
        await ann.patch(f"{AGENTS}/the pirate", json={"shared": True})
        assert (await bob.post(CHAT, json=BODIES[CHAT] | NAMED)).status_code == 200
    tenants = [request.tenant.split(":")[0] for request in pool.requests]
    assert tenants == ["ann"] * len(STREAMED) + ["bob"]
    assert pool.requests[-1].salt.startswith(pool.requests[-1].tenant)


async def test_agents_are_listed_with_the_models_for_those_who_may_ask_them(key_file):
    async with people(key_file) as (ann, bob, _):
        made = await make(ann, **PIRATE)
        listed = (await ann.get("/v1/models")).json()["data"]
        assert (await ann.get("/api/v1/models")).json()["data"] == listed
        model, agent = listed
        assert "agent" not in model
        about = {"owned_by": "agent", "agent": True, "created": int(made["created"])}
        assert agent == model | about | {"id": "The Pirate", "aliases": []}
        for path in ("/v1/models/the pirate", "/api/v1/models/THE PIRATE:latest"):
            assert (await ann.get(path)).json() == agent
            refused(await bob.get(path), 404, "model_not_found", "model")
        assert (await bob.get("/v1/models")).json()["data"] == [model]
        *tags, tag = (await ann.get("/api/tags")).json()["models"]
        assert tag["details"] == tags[0]["details"] | {"parent_model": "fake"}
        assert (tag["name"], tag["model"]) == ("The Pirate", "The Pirate")
        shown = (await ann.post("/api/show", json={"model": "The Pirate:latest"})).json()
        plain = (await ann.post("/api/show", json={"model": "fake"})).json()
        assert shown == plain | {"details": tag["details"]}
        assert (await bob.get("/api/tags")).json()["models"] == tags
        assert (await bob.post("/api/show", json={"model": "the pirate"})).status_code == 404
        assert [one["name"] for one in (await ann.get("/api/ps")).json()["models"]] == ["fake"]


async def test_a_response_that_is_remembered_has_said_nothing_of_its_agent():
    pool = FakePool()
    async with client_of(pool) as client:
        await make(client, **PIRATE)
        first = (await client.post(RESPONSES, json={"input": "Hi"} | NAMED)).json()
        assert first["instructions"] is None and first["tools"] == []
        again = {"input": "Hi", "previous_response_id": first["id"]}
        await client.post(RESPONSES, json=again | NAMED)
        await client.post(RESPONSES, json=again)
    _, mine, plain = (request.messages for request in pool.requests)
    assert mine == (Message("system", "Arr."), *plain)
    assert [message.role for message in plain] == ["user", "assistant", "user"]


async def test_a_session_may_be_an_agents_and_has_its_own_settings_before_that():
    pool = FakePool()
    async with client_of(pool) as client:
        await make(client, **PIRATE)
        about = {"model": "the pirate", "settings": {"system_prompt": "Brief.", "temperature": 1}}
        session = (await client.post("/api/v1/sessions", json=about)).json()["id"]
        asked = {"session_id": session, "message": "Hi"}
        assert (await client.post(f"/api{CHAT}", json=asked)).status_code == 200
        *_, answer = (await client.get(f"/api/v1/sessions/{session}")).json()["messages"]
    *_, request = pool.requests  # after it was counted
    assert request.messages == (Message("system", "Arr.\n\nBrief."), USER)
    assert (request.sampling.temperature, request.max_tokens) == (1, 9)
    assert answer["model"] == "The Pirate"


async def test_an_agent_has_no_vectors():
    async with client_of() as client:
        await make(client, **PIRATE)
        response = await client.post(EMBEDDINGS, json=BODIES[EMBEDDINGS] | NAMED)
        refused(response, 404, "model_not_found", "model")


async def test_the_model_below_an_agent_is_loaded_and_goes_as_it_is_asked(tmp_path):
    async with (
        several_served(tmp_path) as (box, url),
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        await make(client, name="Bee", model="bee:1b", system_prompt="Be brief.")
        await make(client, name="Sea", model="c")
        loaded = await client.post(OLLAMA_CHAT, json={"model": "bee", "keep_alive": "10m"})
        assert loaded.json()["done_reason"] == "load" and workers() == 2
        assert [one["name"] for one in (await client.get("/api/ps")).json()["models"]] == ["a", "b"]
        assert 500 < box.models.status("b").expires_in <= 600
        asked = {"model": "Bee", "messages": HI, "max_tokens": 5}
        answer = (await client.post(CHAT, json=asked)).json()
        assert answer["model"] == "Bee" and answer["usage"]["completion_tokens"] == 5
        gone = await client.post(OLLAMA_CHAT, json={"model": "Bee:latest", "keep_alive": 0})
        assert gone.json()["done_reason"] == "unload" and workers() == 1
        response = await client.post(CHAT, json={"model": "sea", "messages": HI})
        assert "c only streams" in refused(response, 400, "invalid_value", "stream")


async def test_an_agent_whose_model_is_not_here_is_listed_nowhere_and_says_so(tmp_path):
    async with (
        several_served(tmp_path) as (_, url),
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        await make(client, name="Far Away", model="far:8b")
        listed = (await client.get("/v1/models")).json()["data"]
        tags = (await client.get("/api/tags")).json()["models"]
        assert "Far Away" not in [one["id"] for one in listed] + [one["name"] for one in tags]
        for response in (
            await client.get("/v1/models/far away"),
            await client.post(CHAT, json={"model": "far away", "messages": HI}),
        ):
            assert "onebox pull far" in refused(response, 404, "model_not_found", "model")
        assert await names(client) == ["Far Away"]


async def test_an_error_of_the_model_reaches_who_asked_the_agent():
    async with client_of(FakePool([NotReady("it loads", retry_after=3)])) as client:
        await make(client, **PIRATE)
        response = await client.post(CHAT, json=BODIES[CHAT] | NAMED)
        refused(response, 503, "not_ready")
        assert response.headers["retry-after"] == "3"
