"""API keys over HTTP: who may ask for what, how often, and what is whose."""

import asyncio
import itertools
import json
import logging

import pytest

from api import guard, keys, limits
from api.guard import PUBLIC, expel_revoked, is_for_admins
from api.keys import KeyFile
from inference import Pool, Started, TextDelta
from tests.fake_pool import FakePool, end
from tests.knocking import BODY, CHAT, EVERYWHERE, LOCAL_JSON, by_hand, client_of, refusal


def spellings(secret):
    """Every way to show a key, right and wrong, and whether it is right."""
    bearer, wrong = f"Authorization: Bearer {secret}", f"Authorization: Bearer x{secret}"
    right = [
        (bearer,),
        (f"authorization: bearer  {secret}",),
        (f"x-api-key: {secret}",),
        (f"X-API-Key: {secret}", bearer),
    ]
    return [(headers, True) for headers in right] + [
        (headers, False)
        for headers in (
            (),
            (wrong,),
            ("Authorization: Bearer",),
            ("Authorization: Bearer ",),
            ("Authorization:",),
            (f"Authorization: {secret}",),
            (f"Authorization: Basic {secret}",),
            (f"{bearer} {secret}",),
            (f"{bearer},Bearer {secret}",),
            (bearer, bearer),
            (bearer[:-1],),
            (f"Authorization: Bearer {secret.upper()}",),
            ("x-api-key:",),
            (f"x-api-key: Bearer {secret}",),
            (f"x-api-key: {secret}", f"x-api-key: {secret}"),
            (f"x-api-key: x{secret}", bearer),
            (f"x-api-key: {secret}", wrong),
            (f"x-api-key: {secret}", f"Authorization: Basic {secret}"),
            (f"api-key: {secret}",),
            (f"Cookie: key={secret}",),
        )
    ]


@pytest.fixture
def patience(monkeypatch):
    """Wrong keys without end."""
    monkeypatch.setattr(limits, "FAILURES", 10**6)


@pytest.mark.parametrize("admin", [True, False], ids=["admin", "infer"])
async def test_every_route_but_the_public_ones_needs_a_key(admin, key_file, patience):
    secret = keys.add(key_file, "alice", admin=admin)
    async with client_of(FakePool(), key_file=key_file) as client:
        for (headers, right), (method, path) in itertools.product(spellings(secret), EVERYWHERE):
            status, text = await by_hand(client, method, path, *LOCAL_JSON, *headers)
            if path not in PUBLIC and not right:
                good = status == 401 and "www-authenticate: bearer" in text
            elif is_for_admins(path) and not admin:
                good = status == 403 and "the scope admin" in text
            else:
                good = status in (200, 201, 204, 404, 405, 501) or (
                    status == 400 and "required" in text
                )
            assert good, (method, path, headers, status)


async def test_public_is_a_path_and_not_how_a_path_begins(key_file):
    keys.add(key_file, "alice")
    async with client_of(FakePool(), key_file=key_file) as client:
        for path in (
            "/health/",
            "//health",
            "/health%2f",
            "/HEALTH",
            "/ready;x",
            "/.",
            "/health/x",
        ):
            assert (await by_hand(client, "GET", path, "Host: localhost"))[0] == 401


async def test_a_key_in_the_url_opens_nothing(key_file):
    secret = keys.add(key_file, "alice")
    async with client_of(FakePool(), key_file=key_file) as client:
        for name in ("key", "api_key", "access_token", "x-api-key"):
            response = await client.get("/v1/models", params={name: secret})
            refusal(response, 401, "invalid_api_key")


async def test_who_has_no_key_learns_whether_it_is_ready_and_not_why_not(key_file):
    pool = FakePool()
    pool.become("failed", "/srv/weights.gguf cannot be read")
    secret = keys.add(key_file, "alice")
    async with client_of(pool, key_file=key_file) as client:
        for headers in ({}, {"x-api-key": "wrong"}):
            response = await client.get("/ready", headers=headers)
            assert (response.status_code, response.json()) == (503, {"status": "failed"})
        known = await client.get("/ready", headers={"x-api-key": secret})
        assert "weights.gguf" in known.json()["detail"]


async def test_keys_come_and_go_while_the_server_runs(key_file):
    async with client_of(FakePool(), key_file=key_file) as client:
        assert (await client.get("/v1/models")).status_code == 200
        secret = keys.add(key_file, "alice")
        refusal(await client.get("/v1/models"), 401, "invalid_api_key")
        client.headers["x-api-key"] = secret
        assert (await client.get("/v1/models")).status_code == 200
        keys.remove(key_file, "alice")
        refusal(await client.get("/v1/models"), 401, "invalid_api_key")
        key_file.write_text("damaged")
        refusal(await client.get("/v1/models"), 503, "keys_unreadable")
        assert (await client.get("/health")).status_code == 200


async def test_an_address_that_guesses_is_told_to_wait(key_file):
    secret = keys.add(key_file, "alice")
    async with client_of(FakePool(), key_file=key_file) as client:
        for guess in range(limits.FAILURES):
            headers = {"x-api-key": str(guess), "X-Forwarded-For": f"10.0.0.{guess}"}
            response = await client.get("/v1/models", headers=headers)
            refusal(response, 401, "invalid_api_key")
        slowed = await client.get("/v1/models", headers={"x-api-key": "once more"})
        assert refusal(slowed, 429, "rate_limit_exceeded")["type"] == "rate_limit_error"
        assert 0 < int(slowed.headers["retry-after"]) <= 60
        known = await client.get("/v1/models", headers={"x-api-key": secret})
        assert known.status_code == 200


@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_counts_until_the_last_byte_of_its_answer(stream, key_file):
    going = asyncio.Event()
    pool = FakePool([Started(7), TextDelta(0, "Hel"), going, end()])
    alice, bob = keys.add(key_file, "alice", concurrent=1), keys.add(key_file, "bob")
    async with client_of(pool, key_file=key_file) as client:

        def chat(secret):
            headers = {"x-api-key": secret}
            return client.post(CHAT, json=BODY | {"stream": stream}, headers=headers)

        first = asyncio.create_task(chat(alice))
        await asyncio.wait_for(pool.waiting.wait(), 10)
        refused = await chat(alice)
        assert refusal(refused, 429, "rate_limit_exceeded")["type"] == "rate_limit_error"
        assert refused.headers["retry-after"] == "1"
        assert (await chat(bob)).status_code == 200
        going.set()
        assert (await first).status_code == 200
        assert (await chat(alice)).status_code == 200


async def test_a_request_that_hangs_up_counts_no_more(key_file):
    pool = FakePool([Started(7), asyncio.Event()])
    headers = {"x-api-key": keys.add(key_file, "alice", concurrent=1)}
    async with client_of(pool, key_file=key_file, headers=headers) as client:
        gone = asyncio.create_task(client.post(CHAT, json=BODY | {"stream": True}))
        await asyncio.wait_for(pool.waiting.wait(), 10)
        gone.cancel()
        await asyncio.wait_for(pool.cancelled.wait(), 10)
        async with asyncio.timeout(10):
            while (await client.post(CHAT, json=BODY)).status_code != 200:
                pass


async def test_a_key_has_a_number_of_requests_in_a_minute(key_file):
    headers = {"x-api-key": keys.add(key_file, "alice", per_minute=3)}
    async with client_of(FakePool(), key_file=key_file, headers=headers) as client:
        for _ in range(3):
            assert (await client.post(CHAT, json=BODY)).status_code == 200
        response = await client.post(CHAT, json=BODY)
        refusal(response, 429, "rate_limit_exceeded")
        assert 0 < int(response.headers["retry-after"]) <= 60
        assert (await client.get("/health")).status_code == 200


async def test_no_secret_is_in_a_log_or_an_answer(key_file, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    secret = keys.add(key_file, "alice")
    hashed = keys.load(key_file)[0].sha256
    said = ""
    async with client_of(FakePool(), key_file=key_file) as client:
        paths = "/v1/models", "/metrics", "/ready", "/nothing"
        for (headers, _), path in itertools.product(spellings(secret), paths):
            said += (await by_hand(client, "GET", path, *LOCAL_JSON, *headers))[1]
    said += (caplog.text + str(capsys.readouterr())).lower()
    assert "invalid_api_key" in said
    assert secret[3:-1].lower() not in said and hashed not in said


async def test_keys_share_no_computed_prefix(deployment, key_file):
    question = {"messages": [{"role": "user", "content": "Who asked this before? " * 8}]}
    alice, bob = keys.add(key_file, "alice"), keys.add(key_file, "bob")
    pool = Pool(deployment)
    async with client_of(pool, key_file=key_file, timeout=60) as client:
        await pool.until_ready()

        async def cached(secret, **fields):
            body = question | {"max_tokens": 1} | fields
            response = await client.post(CHAT, json=body, headers={"x-api-key": secret})
            return response.json()["usage"]["prompt_tokens_details"]["cached_tokens"]

        assert await cached(alice) == 0
        assert await cached(alice) > 30
        assert await cached(bob) == 0
        assert await cached(bob) > 30
        for salt in ("alice", "alice\0", "\0", "bob\0"):
            assert await cached(bob, cache_salt=salt) == 0
            assert await cached(alice, cache_salt=salt) == 0


async def test_a_request_is_in_the_name_of_its_key(key_file):
    pool = FakePool()
    async with client_of(pool, key_file=key_file) as client:
        await client.post(CHAT, json=BODY | {"cache_salt": "mine"})
        headers = {"x-api-key": keys.add(key_file, "alice")}
        await client.post("/v1/completions", json={"prompt": ["a", "b"]}, headers=headers)
    nobody, *hers = pool.requests
    assert (nobody.tenant, nobody.salt) == ("", "mine")
    assert [request.tenant for request in hers] == [keys.load(key_file)[0].tenant] * 2


async def streamed(client, secret, **fields):
    """The last event of a stream before its `[DONE]`."""
    body = BODY | {"stream": True} | fields
    response = await client.post(CHAT, json=body, headers={"x-api-key": secret})
    *_, last, done = response.text.strip().removeprefix("data: ").split("\n\ndata: ")
    assert done == "[DONE]"
    return json.loads(last)


@pytest.mark.parametrize("given_again", [False, True])
async def test_a_key_that_is_taken_away_ends_what_it_asked_for(
    given_again, deployment, key_file, monkeypatch
):
    monkeypatch.setattr(guard, "_LOOK_EVERY", 0.01)
    alice, bob = keys.add(key_file, "alice"), keys.add(key_file, "bob")
    long = {"ignore_eos": True, "max_tokens": 900}
    pool = Pool(deployment)
    async with client_of(pool, key_file=key_file, timeout=60) as client, asyncio.TaskGroup() as all:
        await pool.until_ready()
        whole = client.post(CHAT, json=BODY | long, headers={"x-api-key": alice})
        hers = [
            all.create_task(streamed(client, alice, **long)),
            all.create_task(whole),
            all.create_task(streamed(client, alice, **long, resumable=True)),
        ]
        his = all.create_task(streamed(client, bob, ignore_eos=True, max_tokens=300))
        async with asyncio.timeout(60):
            while pool.status().stats.running < 4:
                await asyncio.sleep(0.005)
        hers[2].cancel()  # it goes on, for who comes back
        keys.remove(key_file, "alice")
        if given_again:
            keys.add(key_file, "alice")
        assert (await hers[0])["error"]["code"] == "key_revoked"
        refusal(await hers[1], 401, "key_revoked")
        assert (await his)["choices"][0]["finish_reason"] == "length"
        async with asyncio.timeout(60):
            while pool.status().stats.running:
                await asyncio.sleep(0.005)
    assert pool.status().stats.completion_tokens < 300 + 3 * 900  # his, and not all of hers
    assert pool.status().restarts == 0


async def test_a_damaged_key_file_ends_nothing_that_runs(key_file):
    keys.add(key_file, "alice")
    ring, pool = KeyFile(key_file, itertools.count().__next__), FakePool()
    watching = asyncio.create_task(expel_revoked(ring, pool))
    async with asyncio.timeout(10):
        while not pool.spared:
            await asyncio.sleep(0.01)
        key_file.write_text("damaged")
        while not ring.damaged:
            await asyncio.sleep(0.01)
    watching.cancel()
    assert all(pool.spared)
