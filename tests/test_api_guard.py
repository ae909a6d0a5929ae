"""What is let in at all: hosts, origins and content types, over every route there is."""

import itertools
import json

import pytest

from api import keys
from api.app import create_app
from api.keys import KeyFile
from api.origins import Reach, reach_of
from inference import Config, Models, Started, TextDelta, load_config
from tests.fake_pool import FakePool, end
from tests.knocking import BODY, CHAT, EVERYWHERE, ROUTES, by_hand, client_of, refusal

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


FROM_A_PAGE = "Origin: http://localhost", "Sec-Fetch-Site: same-origin"


async def test_what_a_form_or_a_beacon_can_send_is_never_read():
    pool = FakePool()
    posts = [path for method, path in ROUTES if method == "POST"]
    types = [(), *((f"Content-Type: {kind}",) for kind in OTHER_TYPES)]
    async with client_of(pool) as client:
        for headers, path, page in itertools.product(types, posts, FROM_A_PAGE):
            status, text = await by_hand(client, "POST", path, "Host: localhost", page, *headers)
            assert status == 415 and "content-type: application/json" in text, headers
    assert not pool.requests


async def test_ollamas_examples_need_not_name_the_type():
    async with client_of(FakePool()) as client:
        for headers in ({}, {"Content-Type": "application/x-www-form-urlencoded"}):
            response = await client.post("/api/chat", content=json.dumps(BODY), headers=headers)
            assert response.status_code == 200


async def test_json_goes_by_several_names():
    async with client_of(FakePool()) as client:
        for kind in ("application/json", "Application/JSON; charset=utf-8", "application/a.b+json"):
            headers = {"Content-Type": kind}
            response = await client.post(CHAT, content=json.dumps(BODY), headers=headers)
            assert response.status_code == 200


async def websocket(headers, key_file, extensions=None):
    """What the app answers to an upgrade, without a server, as ours takes none."""
    app = create_app(Models(FakePool()), keys=KeyFile(key_file))
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
    script = [Started(7), TextDelta(0, "<script>alert(1)</script>"), end()]
    async with client_of(FakePool([ZeroDivisionError()], script, script)) as client:
        for response in [
            await client.post(CHAT, json=BODY),  # 500
            await client.post(CHAT, json=BODY),
            await client.post(CHAT, json=BODY | {"stream": True}),
            await client.get("/<script>alert(1)</script>"),
            await client.get("/health"),
            await client.get("/nothing"),
            await client.get("/", headers={"Host": "evil.com"}),
        ]:
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["referrer-policy"] == "no-referrer"
            assert response.headers["cross-origin-resource-policy"] == "same-origin"
            assert response.headers["cross-origin-opener-policy"] == "same-origin"
            policy = response.headers["content-security-policy"].split("; ")
            assert {"default-src 'none'", "frame-ancestors 'none'"} < set(policy)
            assert not [
                rule for rule in policy if "unsafe" in rule or "*" in rule or "http" in rule
            ]
            assert "html" not in response.headers["content-type"]
            assert "server" not in response.headers
