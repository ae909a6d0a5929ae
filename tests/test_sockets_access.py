"""Who may open a WebSocket, in whose name, how much may be asked on it, and when that ends."""

import asyncio
import itertools
import json
import logging

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from api import guard, keys, limits
from api.keys import KeyFile
from tests.echo import TEXT, answer_to, frame, hearing, opened, talk, upgrade
from tests.test_login import link, log_in

ME = "/api/v1/me/socket"
PAGE = "Origin: http://localhost"


@pytest.fixture
async def place(key_file):
    """The address of a server that looks at its keys each time, and a client of it."""
    ring = KeyFile(key_file, itertools.count().__next__)
    async with hearing(keys=ring) as (url, _), httpx.AsyncClient() as client:
        client.base_url = url.replace("ws", "http", 1)
        yield url, client


async def statuses(url, path, *headers):
    """What an upgrade is answered with."""
    answer = await answer_to(url, upgrade(path, *headers))
    return int(answer.split()[1]), answer


async def refused(url, **how):
    with pytest.raises(InvalidStatus) as refusal:
        await talk(url, **how)
    response = refusal.value.response
    return response.status_code, json.loads(response.body)["error"]["code"]


async def test_a_host_that_is_not_ours_and_pages_of_others_open_nothing(place, key_file):
    url, _ = place
    secret = keys.add(key_file, "alice", admin=True)
    key = f"x-api-key: {secret}"
    for headers, status in (
        (("Host: evil.com",), 421),
        (("Host: localhost.evil.com",), 421),
        (("Origin: https://evil.com",), 403),
        (("Origin: null",), 403),
        (("Origin: http://localhost:3000",), 403),
        (("Sec-Fetch-Site: cross-site",), 403),
        ((PAGE, "Sec-Fetch-Site: cross-site"), 403),
    ):
        for path in ("/ws", "/ws/echo", ME, "/nothing"):
            found, answer = await statuses(url, path, key, *headers)
            assert found == status, (headers, path)
            assert "content-security-policy" in answer


async def test_without_a_key_there_is_no_connection(place, key_file):
    url, _ = place
    secret = keys.add(key_file, "alice")
    for path in ("/ws", "/ws/echo", "/health", "/nothing"):
        for how in ({}, {"x-api-key": "wrong"}, {"cookie": "onebox=wrong"}):
            needs = 404 if path == "/health" else 401
            with pytest.raises(InvalidStatus) as refusal:
                await talk(url, path, additional_headers=how)
            assert refusal.value.response.status_code == needs
    async with talk(url, ME, additional_headers={"Authorization": f"Bearer {secret}"}) as socket:
        assert json.loads(await socket.recv()) == [keys.load(key_file)[0].tenant, False, ""]


async def test_a_cookie_opens_one_for_our_own_page(place, key_file):
    url, client = place
    secret = keys.add(key_file, "alice", admin=True)
    cookie = {"cookie": f"onebox={await log_in(client, secret)}"}
    own = url.replace("ws", "http", 1)
    async with talk(url, ME, additional_headers=cookie, origin=own) as socket:
        assert json.loads(await socket.recv()) == [keys.load(key_file)[0].tenant, True, ""]
    site = cookie | {"Sec-Fetch-Site": "same-site"}
    assert await refused(url, additional_headers=site) == (401, "invalid_api_key")


async def test_a_page_that_may_use_the_api_needs_a_key_nevertheless(key_file):
    reach = guard.Reach(origins=frozenset({"http://localhost:2"}))
    secret = keys.add(key_file, "alice")
    async with hearing(keys=KeyFile(key_file), reach=reach) as (url, _):
        async with httpx.AsyncClient(base_url=url.replace("ws", "http", 1)) as client:
            cookie = f"Cookie: onebox={await log_in(client, secret)}"
            token = await link(client, secret)
        foreign = "Origin: http://localhost:2"
        assert (await statuses(url, "/ws", cookie, foreign))[0] == 401
        async with talk(url, f"/ws?token={token}", origin="http://localhost:2"):
            pass


async def test_a_token_opens_one_connection_and_is_not_seen_behind_the_door(place, key_file):
    url, client = place
    secret = keys.add(key_file, "alice")
    token = await link(client, secret)
    async with talk(url, f"{ME}?a=%C3%A9&token={token}&b=") as socket:
        tenant = keys.load(key_file)[0].tenant
        assert json.loads(await socket.recv()) == [tenant, False, "a=%C3%A9&b="]
    assert (await statuses(url, f"{ME}?token={token}"))[0] == 401


async def test_of_many_with_the_same_token_one_gets_in(place, key_file):
    url, client = place
    secret = keys.add(key_file, "alice")
    token = await link(client, secret)

    async def attempt(_):
        try:
            async with talk(url, f"/ws?token={token}"):
                return 101
        except InvalidStatus as refusal:
            return refusal.response.status_code

    assert sorted(await asyncio.gather(*map(attempt, range(9)))) == [101] + [401] * 8


async def test_who_guesses_tokens_is_told_to_wait(place, key_file):
    url, _ = place
    secret = keys.add(key_file, "alice")
    for guess in range(limits.FAILURES):
        assert (await statuses(url, f"/ws?token=guess{guess}"))[0] == 401
    assert (await statuses(url, "/ws?token=guess"))[0] == 429
    async with talk(url, additional_headers={"x-api-key": secret}):
        pass


async def test_a_token_is_in_no_log(place, key_file, caplog, capsys):
    url, client = place
    secret = keys.add(key_file, "alice")
    token, cookie = await link(client, secret), await log_in(client, secret)
    cookie = f"Cookie: onebox={cookie}"
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "uvicorn.error")
    async with opened(url, f"/ws?token={token}", cookie) as one:
        one.send(frame(TEXT, b"{}"))
        await one.frame()
    for path in (f"/ws?token={token}", f"/ws?token={token}x", "/ws/nothing"):
        await statuses(url, path, cookie)
    said = caplog.text + str(capsys.readouterr())
    assert "WebSocket" in said
    assert token not in said and cookie[-40:] not in said


async def test_answers_count_and_open_connections_do_not(place, key_file):
    url, client = place
    key = {"x-api-key": keys.add(key_file, "alice", concurrent=1)}
    async with (
        talk(url, "/ws/answer", additional_headers=key) as first,
        talk(url, "/ws/answer", additional_headers=key) as second,
    ):
        assert (await client.get("/v1/models", headers=key)).status_code == 200
        await first.send("1")
        assert await first.recv() == "begun"
        await second.send("2")
        assert await second.recv() == "rate_limit_exceeded"
        assert (await client.get("/v1/models", headers=key)).status_code == 429
        await first.send("on")
        assert await first.recv() == "done 1"
        await second.send("3")
        assert await second.recv() == "begun"
    async with asyncio.timeout(20):  # who leaves in the middle takes nothing with him
        while (await client.get("/v1/models", headers=key)).status_code != 200:
            pass


async def test_answers_count_by_the_minute(place, key_file):
    url, _ = place
    key = {"x-api-key": keys.add(key_file, "alice", per_minute=2)}
    async with talk(url, "/ws/answer", additional_headers=key) as socket:
        for turn in ("1", "2"):
            await socket.send(turn)
            assert await socket.recv() == "begun"
            await socket.send("on")
            assert await socket.recv() == f"done {turn}"
        await socket.send("3")
        assert await socket.recv() == "rate_limit_exceeded"


async def code_of(socket):
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            await asyncio.wait_for(socket.recv(), 10)
    return closed.value.rcvd.code


@pytest.mark.parametrize("path", ["/ws", "/ws/echo", "/ws/answer"])
async def test_a_removed_key_ends_its_connections_and_no_others(path, place, key_file, caplog):
    url, client = place
    alice, bob = keys.add(key_file, "alice"), keys.add(key_file, "bob")
    token = await link(client, alice) if path == "/ws" else ""
    cookie = await log_in(client, alice)
    hers = {"x-api-key": alice}, {"cookie": f"onebox={cookie}"}
    async with (
        talk(url, path, additional_headers={"x-api-key": bob}) as his,
        talk(url, path, additional_headers=hers[0]) as first,
        talk(url, path, additional_headers=hers[1]) as second,
        talk(url, f"{path}?token={token}", additional_headers={} if token else hers[0]) as third,
    ):
        if path == "/ws/answer":
            await first.send("1")
            assert await first.recv() == "begun"
        keys.remove(key_file, "alice")
        keys.add(key_file, "alice")
        assert [await code_of(socket) for socket in (first, second, third)] == [1008] * 3
        assert await his.ping()
        for shown in hers:
            assert (await refused(url, additional_headers=shown))[0] == 401
    assert not caplog.records


async def test_the_first_key_ends_what_was_opened_without_one(place, key_file):
    url, _ = place
    async with talk(url) as socket:
        keys.add(key_file, "alice")
        assert await code_of(socket) == 1008


async def test_a_damaged_key_file_ends_no_connection(place, key_file):
    url, client = place
    key = {"x-api-key": keys.add(key_file, "alice")}
    async with talk(url, additional_headers=key) as socket:
        key_file.write_text("damaged")
        assert (await client.get("/v1/models", headers=key)).status_code == 503
        await asyncio.sleep(0.5)
        await socket.send("Hi")
        assert await socket.recv() == "Hi"


async def test_who_is_removed_and_reads_nothing_goes_as_well(place, key_file):
    url, _ = place
    key = f"x-api-key: {keys.add(key_file, 'alice')}"
    async with opened(url, "/ws/echo", key) as one:
        one.send(frame(TEXT, b"flood"))
        await one.frame()
        keys.remove(key_file, "alice")
        async with asyncio.timeout(20):
            while await one.reader.read(1 << 16):
                pass


async def test_who_logs_out_leaves_no_connection_open(place, key_file):
    url, client = place
    secret = keys.add(key_file, "alice")
    other = {"cookie": f"onebox={await log_in(client, secret)}"}
    mine = {"cookie": f"onebox={await log_in(client, secret)}"}
    async with (
        talk(url, additional_headers=other) as stays,
        talk(url, additional_headers=mine) as goes,
    ):
        assert (await client.post("/api/v1/logout")).status_code == 204
        assert await code_of(goes) == 1008
        assert await stays.ping()
