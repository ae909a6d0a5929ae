"""What clients in use send that no reference says, as far as it is no dialect's own."""

import gzip
import json

import httpx
import pytest

from api.paths import meant
from tests.bodies import (
    BODIES,
    CHAT,
    COMPLETIONS,
    HI,
    MESSAGES,
    OLLAMA_CHAT,
    OLLAMA_GENERATE,
    RESPONSES,
    STREAMED,
)
from tests.fake_pool import FakePool, serving

ADDRESSES = [
    (CHAT, [f"{CHAT}/", f"/{CHAT}", "/v1//chat/completions", f"/v1{CHAT}", f"/api{CHAT}"]),
    (CHAT, ["/chat/completions", "/chat/completions/", f"/v1/v1{CHAT}", f"//api/v1/{CHAT}/"]),
    (COMPLETIONS, ["/completions", f"{COMPLETIONS}/", f"/v1{COMPLETIONS}"]),
    (MESSAGES, ["/messages", f"{MESSAGES}/", f"/v1{MESSAGES}"]),
    (RESPONSES, ["/responses", f"{RESPONSES}/", f"/v1{RESPONSES}"]),
    (OLLAMA_CHAT, [f"{OLLAMA_CHAT}/", f"/{OLLAMA_CHAT}"]),
]
# Of other servers and other times; a server that does not know them is not worse for it.
FOREIGN = {
    "store": True,
    "metadata": {"a": "b"},
    "user": "somebody",
    "service_tier": "auto",
    "prompt_cache_key": "k",
    "safety_identifier": "s",
    "verbosity": "low",
    "modalities": ["text"],
    "prediction": {"type": "content", "content": "x"},
    "web_search_options": {},
    "keep_alive": "5m",
    "extra_body": {"x": 1},
    "betas": ["x"],
    "num_ctx": 65536,
    "truncate": False,
    "session_id": "x",
}


@pytest.mark.parametrize(("address", "spellings"), ADDRESSES)
async def test_a_base_url_may_be_joined_in_many_ways(address, spellings):
    pool = FakePool()
    async with serving(pool) as url, httpx.AsyncClient(base_url=url) as client:
        expected = await client.post(address, json=BODIES[address])
        for spelling in spellings:
            answer = await client.post(url + spelling, json=BODIES[address])
            assert answer.status_code == 200, spelling
            assert answer.json().keys() == expected.json().keys()
    assert len(pool.requests) == 1 + len(spellings)


def test_only_what_the_dialects_have_is_written_in_several_ways():
    for path in ("/", "//", "/health/", "//health", "/metrics/", "/v2/chat", "/tokenize/", "/docs"):
        assert meant(path) == path
    assert meant("/v1" * 5000) == "/v1"
    assert meant("/models/org/fake/") == "/v1/models/org/fake"
    assert meant("/v1/models/v1/api") == "/v1/models/v1/api"


@pytest.mark.parametrize("path", BODIES)
async def test_fields_of_others_are_ignored(path):
    pool = FakePool()
    message = {"messages": [HI[0] | {"cache_control": {"type": "ephemeral"}, "name": "Ann"}]}
    body = BODIES[path] | (message if path in (CHAT, MESSAGES, OLLAMA_CHAT) else {})
    async with serving(pool) as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.post(path, json=body | FOREIGN)
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", BODIES)
async def test_null_says_nothing_anywhere(path):
    said = {"tools", "stop", "n", "seed", "temperature", "max_tokens", "format", "options", "think"}
    async with serving(FakePool()) as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.post(path, json=BODIES[path] | dict.fromkeys(said))
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("stream", ["true", "TRUE", 1, True])
@pytest.mark.parametrize("path", STREAMED)
async def test_a_stream_may_be_asked_for_in_any_spelling(path, stream):
    async with serving(FakePool()) as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.post(path, json=BODIES[path] | {"stream": stream})
        plain = await client.post(path, json=BODIES[path] | {"stream": 0})
    assert answer.headers["content-type"].partition(";")[0] != "application/json"
    assert plain.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer ollama"},
        {"Authorization": "Bearer null"},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic eDp5"},
        {"x-api-key": "x"},
        {"api-key": "x"},
        {"Authorization": "Bearer a", "x-api-key": "b"},
    ],
)
async def test_where_no_key_is_needed_any_will_do(headers):
    async with serving(FakePool()) as url, httpx.AsyncClient(base_url=url) as client:
        for path, body in BODIES.items():
            assert (await client.post(path, json=body, headers=headers)).status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "br", "GZIP", "gzip, identity"])
@pytest.mark.parametrize("path", [CHAT, OLLAMA_GENERATE])
async def test_a_compressed_body_is_refused_by_name(path, encoding):
    async with serving(FakePool()) as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.post(
            path,
            content=gzip.compress(json.dumps(BODIES[path]).encode()),
            headers={"Content-Type": "application/json", "Content-Encoding": encoding},
        )
        assert answer.status_code == 415 and "Content-Encoding" in answer.text
        answer = await client.post(
            path, json=BODIES[path], headers={"Content-Encoding": "identity"}
        )
        assert answer.status_code == 200


async def test_proxies_are_told_to_hold_nothing_back():
    async with serving(FakePool()) as url, httpx.AsyncClient(base_url=url) as client:
        for path in STREAMED:
            answer = await client.post(path, json=BODIES[path] | {"stream": True})
            assert answer.headers["x-accel-buffering"] == "no"
            assert answer.headers["cache-control"] == "no-cache"
            assert b"\r" not in answer.content
