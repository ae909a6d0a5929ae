"""Who is let in: hosts, origins, content types and keys, over every route there is."""

import asyncio
import itertools
import json
import logging
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from api import keys, limits
from api.app import create_app
from api.guard import ADMIN, PUBLIC
from api.keys import KeyFile
from api.origins import Reach, reach_of
from inference import Config, Pool, Started, TextDelta, load_config
from tests.fake_pool import FakePool, end, serving

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "Hi"}]}
ROUTES = sorted(
    (method, route.path.replace("{name:path}", "fake"))
    for route in iter_route_contexts(create_app(FakePool()).routes)
    for method in route.methods
)
# What an address that does not exist needs, it must not tell.
EVERYWHERE = [*ROUTES, ("GET", "/v1/nothing"), ("POST", "/secret"), ("OPTIONS", CHAT), ("PUT", "/")]
LOCAL_JSON = "Host: localhost", "Content-Type: application/json"
FOREIGN_HOSTS = [
    "evil.com",
    "127.0.0.1.evil.com",
    "localhost.evil.com",
    "127.0.0.1:80.evil",
    "127.0.0.1:8000:8000",
    "localhost:abc",
    "localhost:",
    "localhost:123456",
    "localhost:８０".encode().decode("latin-1"),
    "localhost/health?",
    "localhost/health",
    "localhost?",
    "localhost#",
    "localhost\\@evil.com",
    "a@localhost",
    "localhost.",
    "xlocalhost",
    "0.0.0.0",
    "0",
    "127.1",
    "2130706433",
    "0x7f000001",
    "127.0.0.2",
    "::1",
    "[::1",
    "[::]",
    "[::ffff:7f00:1]",
    "[::ffff:127.0.0.1]",
    "[0:0:0:0:0:0:0:1]",
    "onebox.local",
    "*",
    "*.local",
    "localhost, evil.com",
    "localhost evil.com",
    "",
]


@pytest.fixture
def key_file(tmp_path):
    return tmp_path / "keys.json"


@asynccontextmanager
async def client_of(pool, reach=None, key_file=None, **kwargs):
    ring = KeyFile(key_file, itertools.count().__next__) if key_file else None
    async with (
        serving(pool, reach=reach, keys=ring) as url,
        httpx.AsyncClient(base_url=url, **kwargs) as client,
    ):
        yield client


async def by_hand(client, method, path, *headers, version="1.1"):
    """The answer's status and text, to a request whose headers no library tidies up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
    body = json.dumps(BODY)
    length = f"Content-Length: {len(body)}"
    lines = f"{method} {path} HTTP/{version}", *headers, "Connection: close", length, "", body
    writer.write("\r\n".join(lines).encode("latin-1"))
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return int(answer.split()[1]), answer.decode().lower()


def refusal(response, status, code):
    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    return response.json()["error"]


@pytest.mark.parametrize("keyed", [True, False])
async def test_no_route_answers_to_another_name(keyed, key_file):
    secret = keys.add(key_file, "alice")
    async with client_of(FakePool(), key_file=key_file if keyed else None) as client:
        for host, (method, path) in itertools.product(FOREIGN_HOSTS, EVERYWHERE):
            headers = f"Host: {host}", f"x-api-key: {secret}", "X-Forwarded-Host: localhost"
            status, _ = await by_hand(client, method, path, *headers)
            assert status in (400, 421), (host, method, path)


async def test_a_host_is_there_once_and_whole():
    async with client_of(FakePool()) as client:
        for headers in (
            (),
            ("Host: localhost", "Host: localhost"),
            ("Host: localhost", "Host: evil.com"),
            ("Host: localhost\r\n evil.com",),
            ("Host: local\rhost",),
        ):
            status, _ = await by_hand(client, "GET", "/health", *headers)
            assert status in (400, 421), headers
        assert (await by_hand(client, "GET", "/health", version="1.0"))[0] == 421


async def test_a_whole_url_is_no_path():
    async with client_of(FakePool()) as client:
        for target in ("http://evil.com/health", "http://localhost/health", "*"):
            for method in ("GET", "OPTIONS"):
                assert (await by_hand(client, method, target, "Host: localhost"))[0] == 421


async def test_every_name_of_loopback_is_ours():
    async with client_of(FakePool()) as client:
        for host in ("127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:65535"):
            assert (await client.get("/health", headers={"Host": host})).status_code == 200
            refused = await client.get("/health", headers={"Host": f"x{host}"})
            refusal(refused, 421, "unknown_host")


def config_with(**server) -> Config:
    shipped = load_config()
    return shipped.model_copy(update={"server": shipped.server.model_copy(update=server)})


@pytest.mark.parametrize(
    ("host", "address", "known", "unknown"),
    [
        ("127.0.0.1", "127.0.0.1", ["localhost", "chat.lan:1"], ["10.0.0.5", "[fe80::1]"]),
        ("10.0.0.5", "10.0.0.5", ["10.0.0.5:1", "[::1]", "chat.lan"], ["10.0.0.6", "0.0.0.0"]),
        ("Box.lan", "10.0.0.5", ["box.lan", "10.0.0.5"], ["xbox.lan", "10.0.0.6"]),
        ("fe80::1", "fe80::1%eth0", ["[fe80::1]:1"], ["fe80::1", "[fe80::2]"]),
        (
            "0.0.0.0",
            "0.0.0.0",
            ["10.0.0.5", "[fe80::1]:1", "localhost", "chat.lan"],
            [
                "evil.com",
                "0.0.0.0",
                "[::]",
                "10.0.0.5.evil",
                "[10.0.0.5]",
                "2130706433",
                "224.0.0.1",
            ],
        ),
        ("::", "::", ["10.0.0.5", "[fe80::1]"], ["[::ffff:7f00:1]", "evil.com", "[ff02::1]"]),
    ],
)
async def test_a_server_goes_by_its_address_and_the_names_it_was_given(
    host, address, known, unknown
):
    reach = reach_of(config_with(allowed_hosts=["Chat.lan"]), host, address)
    async with client_of(FakePool(), reach) as client:
        for names, status in ((known, 200), (unknown, 421)):
            for name in names:
                response = await client.get("/health", headers={"Host": name})
                assert response.status_code == status, name


FOREIGN_PAGES = [
    ("Origin: null",),
    ("Origin:",),
    ("Origin: https://evil.com",),
    ("Origin: http://localhost",),
    ("Origin: http://localhost.evil.com",),
    ("Origin: http://localhost:1.evil.com",),
    ("Origin: http://localhost:1, http://localhost:1",),
    ("Origin: http://localhost:1", "Origin: http://localhost:1"),
    ("Origin: ftp://localhost:1",),
    ("Origin: http://localhost:1/",),
    ("Origin: http://a@localhost:1",),
    ("Sec-Fetch-Site: cross-site",),
    ("Sec-Fetch-Site: something-new",),
    ("Sec-Fetch-Site: cross-site", "Origin: http://localhost:1"),
]


async def test_no_route_serves_a_page_of_another_site(key_file):
    secret = keys.add(key_file, "alice", admin=True)
    async with client_of(FakePool(), key_file=key_file) as client:
        for headers, (method, path) in itertools.product(FOREIGN_PAGES, EVERYWHERE):
            ours = "Host: localhost:1", f"x-api-key: {secret}"
            status, text = await by_hand(client, method, path, *ours, *headers)
            assert status == 403, (headers, method, path)
            assert "access-control-allow-origin" not in text


async def test_a_page_of_our_own_and_a_program_are_served():
    async with client_of(FakePool(), headers={"Host": "localhost:1"}) as client:
        for headers in (
            {"Origin": "http://localhost:1"},
            {"Origin": "https://localhost:1", "Sec-Fetch-Site": "same-origin"},
            {"Sec-Fetch-Site": "none"},
            {},
        ):
            response = await client.post(CHAT, json=BODY, headers=headers)
            assert response.status_code == 200
            assert "access-control-allow-origin" not in response.headers


async def test_a_site_that_is_trusted_is_served_by_name_and_never_by_star(key_file):
    secret = keys.add(key_file, "alice")
    reach = Reach(origins=frozenset({"https://chat.example"}))
    page = {"Origin": "https://chat.example", "Sec-Fetch-Site": "cross-site"}
    preflight = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
    }
    async with client_of(FakePool(), reach, key_file) as client:
        asked = await client.options(CHAT, headers=page | preflight)
        assert asked.status_code == 200
        assert "authorization" in asked.headers["access-control-allow-headers"]
        with_key = page | {"Authorization": f"Bearer {secret}"}
        served = await client.post(CHAT, json=BODY, headers=with_key)
        assert served.status_code == 200
        refused = await client.post(CHAT, json=BODY, headers=page)
        assert refused.status_code == 401
        for response in (asked, served, refused):
            assert response.headers["access-control-allow-origin"] == "https://chat.example"
            assert "Origin" in response.headers["vary"]
            assert "access-control-allow-credentials" not in response.headers
        for origin in ("https://chat.example.evil.com", "http://chat.example", "null"):
            for headers in (preflight, {"Authorization": f"Bearer {secret}"}):
                foreign = await client.options(CHAT, headers=headers | {"Origin": origin})
                assert foreign.status_code == 403
                assert "access-control-allow-origin" not in foreign.headers


OTHER_TYPES = [
    "",
    "text/plain",
    "text/plain;charset=UTF-8",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/jsonp",
    "application/x+jsonp",
    "text/plain; application/json",
    "text/json",
    "application/json, text/plain",
]


async def test_what_a_form_or_a_beacon_can_send_is_never_read():
    pool = FakePool()
    posts = [path for method, path in ROUTES if method == "POST"]
    types = [(), *((f"Content-Type: {kind}",) for kind in OTHER_TYPES)]
    async with client_of(pool) as client:
        for headers, path in itertools.product(types, posts):
            status, text = await by_hand(client, "POST", path, "Host: localhost", *headers)
            assert status == 415 and "unsupported_media_type" in text, headers
    assert not pool.requests


async def test_json_goes_by_several_names():
    async with client_of(FakePool()) as client:
        for kind in ("application/json", "Application/JSON; charset=utf-8", "application/a.b+json"):
            headers = {"Content-Type": kind}
            response = await client.post(CHAT, content=json.dumps(BODY), headers=headers)
            assert response.status_code == 200


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
            elif path in ADMIN and not admin:
                good = status == 403 and "admin_only" in text
            else:
                good = status in (200, 404, 405) or (status == 400 and "prompt" in text)
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


async def websocket(headers, key_file, extensions=None):
    """What the app answers to an upgrade, without a server, as ours takes none."""
    app = create_app(FakePool(), keys=KeyFile(key_file))
    scope = {"type": "websocket", "path": "/v1/live", "headers": headers, "client": ("::1", 1)}
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "websocket.connect"}

    await app(scope | {"extensions": extensions or {}}, receive, send)
    return sent


async def test_an_upgrade_to_a_websocket_is_guarded_like_a_request(key_file):
    host, secret = (b"host", b"localhost"), keys.add(key_file, "alice").encode()
    for headers, status in (
        ([(b"host", b"evil.com"), (b"x-api-key", secret)], 421),
        ([host, (b"origin", b"https://evil.com"), (b"x-api-key", secret)], 403),
        ([host], 401),
    ):
        [plain] = await websocket(headers, key_file)
        assert (plain["type"], plain["code"]) == ("websocket.close", 1008)
        start, _ = await websocket(headers, key_file, {"websocket.http.response": {}})
        assert (start["type"], start["status"]) == ("websocket.http.response.start", status)
    [routed] = await websocket([host, (b"x-api-key", secret)], key_file)
    assert routed["code"] != 1008


async def test_every_answer_tells_browsers_to_be_careful():
    async with client_of(FakePool([ZeroDivisionError()])) as client:
        for response in [
            await client.post(CHAT, json=BODY),  # 500
            await client.post(CHAT, json=BODY | {"stream": True}),
            await client.get("/health"),
            await client.get("/nothing"),
            await client.get("/", headers={"Host": "evil.com"}),
        ]:
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["referrer-policy"] == "no-referrer"
            assert response.headers["cross-origin-resource-policy"] == "same-origin"
            assert "server" not in response.headers


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
    assert [request.tenant for request in hers] == ["alice", "alice"]
