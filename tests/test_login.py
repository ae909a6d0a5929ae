"""Cookies and one-time tokens: who gets one, what it opens, when it ends, where it never is."""

import asyncio
import itertools
import logging
from contextlib import asynccontextmanager, closing
from pathlib import Path

import httpx
import pytest

from api import guard, keys, limits
from api.keys import KeyFile
from api.store import logins
from api.store.database import Database, temporary
from api.store.logins import DAYS, SECONDS, TOKEN_SECONDS, Logins, Tokens
from tests.fake_pool import FakePool, serving
from tests.knocking import BODY, by_hand, client_of, refusal

CHAT = "/api/v1/chat/completions"
LOGIN, LOGOUT, ME, LINKS = (f"/api/v1/{name}" for name in ("login", "logout", "me", "links"))
OPERATOR = "/api/v1/operator"


async def log_in(client, secret):
    """The value of the cookie, which the client has from now on."""
    answer = await client.post(LOGIN, json={"token": secret})
    assert answer.status_code == 200, answer.text
    return client.cookies["onebox"]


async def link(client, secret):
    answer = await client.post(LINKS, headers={"x-api-key": secret})
    assert answer.status_code == 200, answer.text
    return answer.json()["token"]


async def status(client, cookie, *headers, method="GET", path=ME):
    shown = f"Cookie: onebox={cookie}", "Content-Type: application/json"
    return (await by_hand(client, method, path, "Host: localhost:1", *shown, *headers))[0]


@pytest.mark.parametrize("admin", [True, False])
async def test_a_key_logs_a_browser_in_and_it_is_that_key(admin, key_file):
    secret = keys.add(key_file, "alice", admin=admin)
    pool = FakePool()
    async with client_of(pool, key_file=key_file) as client:
        refusal(await client.get(ME), 401, "invalid_api_key")
        answer = await client.post(LOGIN, json={"token": secret})
        assert answer.json() == {"name": "alice", "admin": admin}
        flags = {flag.strip().lower() for flag in answer.headers["set-cookie"].split(";")[1:]}
        assert flags == {"httponly", "samesite=strict", "path=/", f"max-age={SECONDS}"}
        assert (await client.get(ME)).json() == {"name": "alice", "admin": admin, "keys": True}
        assert (await client.post("/v1/chat/completions", json=BODY)).status_code == 200
        assert (await client.get("/metrics")).status_code == (200 if admin else 403)
    assert pool.requests[0].tenant == keys.load(key_file)[0].tenant


async def test_over_tls_the_cookie_goes_no_other_way(key_file):
    secret = keys.add(key_file, "alice")
    async with client_of(FakePool(), key_file=key_file) as client:
        host = client.base_url.netloc.decode()
        for scheme, secure in (("https", True), ("http", False)):
            headers = {"Origin": f"{scheme}://{host}"}
            answer = await client.post(LOGIN, json={"token": secret}, headers=headers)
            assert ("secure" in answer.headers["set-cookie"].lower()) == secure


async def test_where_no_key_is_needed_everybody_is_in(key_file):
    async with client_of(FakePool(), key_file=key_file) as client:
        assert (await client.get(ME)).json() == {"name": "", "admin": True, "keys": False}
        answer = await client.post(LOGIN, json={"token": "anything"})
        assert answer.json() == {"name": "", "admin": True} and "set-cookie" not in answer.headers
        assert (await client.get(f"{ME}?token=anything")).status_code == 200


@pytest.mark.parametrize("body", [{}, {"token": ""}, {"token": 5}, {"token": "x" * 257}, {"a": 1}])
async def test_a_login_has_one_field(body, key_file):
    keys.add(key_file, "alice")
    async with client_of(FakePool(), key_file=key_file) as client:
        answer = await client.post(LOGIN, json=body)
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "token"


async def test_who_guesses_a_login_is_told_to_wait(key_file):
    secret = keys.add(key_file, "alice")
    async with client_of(FakePool(), key_file=key_file) as client:
        for guess in range(limits.FAILURES):
            answer = await client.post(LOGIN, json={"token": f"guess {guess}"})
            refusal(answer, 401, "invalid_api_key")
            assert "set-cookie" not in answer.headers
        refusal(await client.post(LOGIN, json={"token": "guess"}), 429, "rate_limit_exceeded")
        refusal(await client.get(f"{ME}?token=guess"), 429, "rate_limit_exceeded")
        await log_in(client, secret)


async def test_a_cookie_that_is_old_is_no_guess(key_file):
    keys.add(key_file, "alice")
    async with client_of(FakePool(), key_file=key_file) as client:
        for _ in range(limits.FAILURES + 1):
            assert await status(client, "x" * 43) == 401


async def test_a_cookie_counts_for_our_own_pages_only(key_file):
    secret = keys.add(key_file, "alice", admin=True)
    reach = guard.Reach(origins=frozenset({"http://localhost:2"}))
    async with client_of(FakePool(), reach, key_file) as client:
        cookie = await log_in(client, secret)
        for headers, right in (
            ((), True),
            (("Origin: http://localhost:1",), True),
            (("Origin: https://localhost:1", "Sec-Fetch-Site: same-origin"), True),
            (("Sec-Fetch-Site: none",), True),
            (("Sec-Fetch-Site: same-site",), False),  # a page of another port
            (("Origin: http://localhost:2",), False),  # one that may use the API, with a key
            (("Origin: http://localhost:2", "Sec-Fetch-Site: same-site"), False),
            (("Origin: http://localhost:2", "Sec-Fetch-Site: same-origin"), False),
        ):
            for method, path in (("GET", ME), ("POST", LINKS), ("GET", OPERATOR)):
                found = await status(client, cookie, *headers, method=method, path=path)
                assert found == (200 if right else 401), (headers, path)


async def test_a_cookie_is_whole_and_alone(key_file):
    secret = keys.add(key_file, "alice")
    async with client_of(FakePool(), key_file=key_file) as client:
        cookie = await log_in(client, secret)
        for header, right in (
            (f"onebox={cookie}", True),
            (f"a=b; onebox={cookie};c=d", True),
            (f"onebox={cookie}; onebox={cookie}", True),
            (f"onebox={cookie}; onebox=!", False),
            (f"onebox={cookie}; onebox=~", False),
            (f"onebox={cookie}x", False),
            (f"onebox={cookie[:-1]}", False),
            (f"Onebox={cookie}", False),
            (f"xonebox={cookie}", False),
            (f'onebox="{cookie}"', False),
            (f"onebox={secret}", False),
            ("onebox=", False),
            ("", False),
        ):
            found, _ = await by_hand(client, "GET", ME, "Host: localhost", f"Cookie: {header}")
            assert found == (200 if right else 401), header


async def test_what_is_shown_on_purpose_comes_before_a_cookie(key_file):
    alice, bob = keys.add(key_file, "alice"), keys.add(key_file, "bob")
    async with client_of(FakePool(), key_file=key_file) as client:
        await log_in(client, alice)
        assert (await client.get(ME, headers={"x-api-key": bob})).json()["name"] == "bob"
        refusal(await client.get(ME, headers={"x-api-key": "wrong"}), 401, "invalid_api_key")
        refusal(await client.get(f"{ME}?token=wrong"), 401, "invalid_api_key")
        token = await link(client, bob)
        assert (await client.get(f"{ME}?token={token}")).json()["name"] == "bob"


async def test_whoever_logs_out_is_out(key_file):
    secret = keys.add(key_file, "alice")
    async with client_of(FakePool(), key_file=key_file) as client:
        cookie = await log_in(client, secret)
        other = await log_in(client, secret)
        answer = await client.post(LOGOUT)
        assert answer.status_code == 204
        assert 'onebox=""' in answer.headers["set-cookie"]
        assert "Max-Age=0" in answer.headers["set-cookie"]
        assert (await status(client, cookie), await status(client, other)) == (200, 401)


@asynccontextmanager
async def kept(path: Path, key_file: Path):
    """A server whose database stays."""
    with closing(Database(path)) as database:
        ring = KeyFile(key_file, itertools.count().__next__)
        async with (
            serving(FakePool(), keys=ring, database=database) as url,
            httpx.AsyncClient(base_url=url) as client,
        ):
            yield client


async def test_a_cookie_outlives_the_server_and_a_token_does_not(key_file, tmp_path):
    secret = keys.add(key_file, "alice")
    path = tmp_path / "onebox.db"
    async with kept(path, key_file) as client:
        cookie, token = await log_in(client, secret), await link(client, secret)
        gone = await log_in(client, secret)
        await client.post(LOGOUT)
    stored = b"".join(file.read_bytes() for file in tmp_path.glob("onebox.db*"))
    assert cookie.encode() not in stored and token.encode() not in stored
    async with kept(path, key_file) as client:
        assert (await status(client, cookie), await status(client, gone)) == (200, 401)
        refusal(await client.get(f"{ME}?token={token}"), 401, "invalid_api_key")


async def test_a_cookie_ends_with_its_key_also_where_the_name_is_given_again(key_file):
    secret = keys.add(key_file, "alice")
    async with client_of(FakePool(), key_file=key_file) as client:
        cookie, token = await log_in(client, secret), await link(client, secret)
        keys.remove(key_file, "alice")
        assert await status(client, cookie) == 401
        again = keys.add(key_file, "alice")
        assert await status(client, cookie) == 401
        client.cookies.clear()
        refusal(await client.get(f"{ME}?token={token}"), 401, "invalid_api_key")
        await log_in(client, again)
        key_file.write_text("damaged")
        refusal(await client.get(ME), 503, "keys_unreadable")
        refusal(await client.post(LOGIN, json={"token": again}), 503, "keys_unreadable")


async def test_a_token_is_good_for_one_request_even_if_many_race(key_file):
    secret = keys.add(key_file, "alice")
    async with client_of(FakePool(), key_file=key_file) as client:
        token = await link(client, secret)
        answers = await asyncio.gather(*(client.get(f"{ME}?token={token}") for _ in range(9)))
        assert sorted(answer.status_code for answer in answers) == [200] + [401] * 8
        refusal(await client.post(LOGIN, json={"token": token}), 401, "invalid_api_key")
        token = await link(client, secret)
        await log_in(client, token)
        client.cookies.clear()
        refusal(await client.get(f"{ME}?token={token}"), 401, "invalid_api_key")


async def test_a_token_opens_the_platform_and_nothing_else(key_file):
    secret = keys.add(key_file, "alice", admin=True)
    async with client_of(FakePool(), key_file=key_file) as client:
        token = await link(client, secret)
        for path in ("/v1/models", "/metrics", "/api/tags", "/openapi.json", "/nothing"):
            refused = await client.get(path, params={"token": token})
            assert refused.status_code == 401
        for path in ("/", "/health", "/ready"):
            await client.get(path, params={"token": token})
        refused = await client.get(ME, params={"token": token}, headers={"x-api-key": secret})
        refusal(refused, 401, "invalid_api_key")  # which of both?
        refusal(await client.get(f"{ME}?token={token}&token={token}"), 401, "invalid_api_key")
        answer = await client.get(f"/api/v1/sessions?limit=1&token={token}")
        assert answer.status_code == 200


async def test_a_link_leads_to_the_page(key_file):
    secret = keys.add(key_file, "alice")
    async with client_of(FakePool(), key_file=key_file) as client:
        refusal(await client.post(LINKS), 401, "invalid_api_key")
        answer = await client.post(LINKS, headers={"x-api-key": secret})
        told = answer.json()
        assert told["path"] == f"/?token={told['token']}" and told["expires_in"] == 600
        page = await client.get(told["path"], headers={"Accept": "text/html"})
        assert page.headers["content-type"].startswith("text/html")
        assert (await log_in(client, told["token"])) != told["token"]


async def test_only_admins_reach_what_is_below_operator(key_file):
    secret = keys.add(key_file, "alice")
    async with client_of(FakePool(), key_file=key_file) as client:
        await log_in(client, secret)
        for path in ("", "/", "//x", "/requests/1/cancel", "/nothing"):
            refusal(await client.get(OPERATOR + path), 403, "admin_only")


async def test_no_cookie_and_no_token_is_in_a_log_or_an_answer(key_file, caplog, capsys):
    secret = keys.add(key_file, "alice", admin=True)
    said = ""
    async with client_of(FakePool(), key_file=key_file) as client:
        cookie, token = await log_in(client, secret), await link(client, secret)
        caplog.set_level(logging.DEBUG)
        for path in (ME, "/api/v1/nothing", "/v1/nothing", "/nothing", CHAT, OPERATOR, "/ws"):
            for shown in (f"Cookie: onebox={cookie}", f"Cookie: onebox={cookie}x", "Cookie:"):
                place = f"{path}?token={token}"
                said += (await by_hand(client, "GET", place, "Host: localhost", shown))[1]
                said += (await by_hand(client, "POST", path, "Host: localhost", shown))[1]
    said += (caplog.text + str(capsys.readouterr())).lower()
    assert "invalid_api_key" in said
    for hidden in (secret, cookie, token):
        assert hidden[3:-1].lower() not in said


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


async def test_a_cookie_ends_after_thirty_days():
    clock = Clock()
    with temporary() as database:
        some = Logins(database, clock)
        secret = await some.add("alice")
        clock.now += DAYS * 24 * 3600 - 1
        assert some.tenant_of(secret.encode()) == "alice"
        clock.now += 1
        assert some.tenant_of(secret.encode()) is None
        await some.add("bob")  # sweeps
        assert await database.read(logins._all) == [
            (digest, "bob", login.expires) for digest, login in some._logins.items()
        ]


async def test_one_key_has_so_many_cookies_and_the_oldest_makes_way(monkeypatch):
    monkeypatch.setattr(logins, "_COOKIES", 3)
    with temporary() as database:
        some = Logins(database)
        bob = await some.add("bob")
        mine = [await some.add("alice") for _ in range(5)]
        again = Logins(database)
        await again.open()
        for those in (some, again):
            assert those.tenant_of(bob.encode()) == "bob"
            known = [those.tenant_of(secret.encode()) for secret in mine]
            assert known == [None, None, "alice", "alice", "alice"]


async def test_cookies_that_come_and_go_at_once_are_those_that_are_stored():
    with temporary() as database:
        some = Logins(database)
        first = [await some.add(f"tenant {n}") for n in range(20)]
        ends = [some.remove(secret.encode()) for secret in first]
        new = await asyncio.gather(*(some.add(f"tenant {n}") for n in range(20)), *ends)
        again = Logins(database)
        await again.open()
        assert again._logins == some._logins
        known = [some.tenant_of(secret.encode()) for secret in (*new[:20], *first)]
        assert known == [*(f"tenant {n}" for n in range(20)), *[None] * 20]


def test_a_token_is_good_for_ten_minutes_and_once():
    clock = Clock()
    tokens = Tokens(clock)
    early, late, used = (tokens.add("alice").encode() for _ in range(3))
    assert (tokens.take(used), tokens.take(used), tokens.take(b"guess")) == ("alice", None, None)
    clock.now += TOKEN_SECONDS - 1
    assert tokens.take(early) == "alice"
    clock.now += 1
    assert tokens.take(late) is None


def test_tokens_that_nobody_uses_fill_no_memory():
    clock = Clock()
    tokens = Tokens(clock)
    bob = tokens.add("bob").encode()
    mine = [tokens.add("alice").encode() for _ in range(100)]
    assert len(tokens._tokens) == 1 + logins._TOKENS
    assert tokens.take(bob) == "bob"
    assert (tokens.take(mine[0]), tokens.take(mine[-1])) == (None, "alice")
    clock.now += TOKEN_SECONDS
    tokens.add("bob")
    assert len(tokens._tokens) == 1
