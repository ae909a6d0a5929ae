"""The nginx file that is shipped, in a real nginx, between real clients and a real server."""

import asyncio
from contextlib import asynccontextmanager

import httpx
import ollama
import pytest
from openai import AsyncOpenAI
from websockets.asyncio.client import connect

from api.origins import LOOPBACK, Reach
from inference import BadRequest, Started, TextDelta
from tests.bodies import HI
from tests.fake_pool import FakePool, end, serving
from tests.nginx import NAME, proxied

CHAT = {"model": "fake", "messages": HI}


def gated() -> tuple[FakePool, asyncio.Event]:
    """A model that says "Hel", and "lo" only once the gate is open."""
    gate = asyncio.Event()
    return FakePool([Started(7), TextDelta(0, "Hel"), gate, TextDelta(0, "lo"), end()]), gate


@asynccontextmanager
async def behind_nginx(pool, **how):
    reach = Reach(hosts=LOOPBACK | {NAME})
    async with serving(pool, reach=reach) as url, asyncio.timeout(60):
        with proxied(url, **how) as proxy:
            yield proxy


@asynccontextmanager
async def http_through(proxy, **how):
    async with httpx.AsyncClient(base_url=proxy.url, verify=proxy.tls, **how) as client:
        yield client


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"beside": "proxy_ignore_headers X-Accel-Buffering;"},  # the file alone is enough
        {"without": "proxy_buffering off;"},  # and so is what Onebox says
    ],
)
async def test_lines_of_ollamas_chat_come_one_by_one(how):
    pool, gate = gated()
    async with (
        behind_nginx(pool, **how) as proxy,
        ollama.AsyncClient(host=proxy.url, verify=proxy.tls) as client,
    ):
        said = []
        async for part in await client.chat("fake", HI, stream=True):
            said.append(part.message.content)
            gate.set()  # nobody else does: a line that is held back is never followed by another
        assert "".join(said) == "Hello" and said[0] == "Hel"


async def test_events_of_openais_chat_come_one_by_one():
    pool, gate = gated()
    async with behind_nginx(pool) as proxy, http_through(proxy) as http:
        client = AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="unused", http_client=http)
        said = ""
        async for chunk in await client.chat.completions.create(stream=True, **CHAT):
            said += chunk.choices[0].delta.content or ""
            if said == "Hel":
                gate.set()
        assert said == "Hello"


async def test_frames_of_a_websocket_come_one_by_one_and_a_page_of_the_site_may_open_one():
    pool, gate = gated()
    async with (
        behind_nginx(pool) as proxy,
        connect(proxy.url.replace("https", "wss") + "/ws", ssl=proxy.tls, origin=proxy.url) as ws,
    ):
        await ws.send('{"message": "Hi"}')
        assert await ws.recv() == "Hel"
        gate.set()
        assert [await ws.recv(), await ws.recv()] == ["lo", ""]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_hang_up_ends_the_answer_in_the_model(stream):
    pool, _ = gated()
    async with behind_nginx(pool) as proxy:
        async with http_through(proxy) as client:
            asking = client.post("/v1/chat/completions", json=CHAT | {"stream": stream}, timeout=60)
            task = asyncio.create_task(asking)
            await asyncio.wait_for(pool.waiting.wait(), 30)
            task.cancel()
        await asyncio.wait_for(pool.cancelled.wait(), 30)


async def test_a_websocket_that_is_closed_ends_the_answer_in_the_model():
    pool, _ = gated()
    async with behind_nginx(pool) as proxy:
        async with connect(proxy.url.replace("https", "wss") + "/ws", ssl=proxy.tls) as ws:
            await ws.send('{"message": "Hi"}')
            await asyncio.wait_for(pool.waiting.wait(), 30)
        await asyncio.wait_for(pool.cancelled.wait(), 30)


async def test_the_name_a_client_used_is_the_one_that_is_checked():
    async with behind_nginx(FakePool()) as proxy, http_through(proxy) as client:
        here = proxy.url.removeprefix("https://")
        for host, origin, status in (
            (here, proxy.url, 200),
            (NAME, f"https://{NAME}", 200),
            (NAME, "https://other.example", 403),
            ("other.example", "https://other.example", 421),
        ):
            answer = await client.get("/v1/models", headers={"Host": host, "Origin": origin})
            assert answer.status_code == status


async def test_what_onebox_refuses_passes_as_it_is():
    pool = FakePool([BadRequest("top_k: no", "top_k")])
    async with behind_nginx(pool) as proxy, http_through(proxy) as client:
        answer = await client.post("/v1/chat/completions", json=CHAT)
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "top_k"
        assert (await client.get("/nothing")).json()["error"]["code"] == "unknown_url"


async def test_what_nginx_refuses_has_the_shape_of_the_api():
    async with behind_nginx(FakePool()) as proxy, http_through(proxy) as client:
        most = 4 << 20
        answer = await client.post("/v1/chat/completions", content=b" " * (most + 1))
        assert answer.status_code == 413 and answer.json()["error"]["code"] == "body_too_large"
        just = b'{"messages": [{"role": "user", "content": "Hi"}]}'.ljust(most)
        json = {"Content-Type": "application/json"}
        answer = await client.post("/v1/chat/completions", content=just, headers=json)
        assert answer.status_code == 200
        exported = b"{}".ljust(16 << 20)
        answer = await client.post("/api/v1/sessions/import", content=exported, headers=json)
        assert answer.status_code == 400  # by Onebox, which has read it


async def test_while_onebox_is_away_clients_are_told_to_come_again():
    async with serving(FakePool()) as url:
        pass
    with proxied(url) as proxy:
        async with http_through(proxy) as client:
            answer = await client.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 503 and answer.headers["retry-after"] == "5"
    assert answer.json()["error"]["code"] == "not_ready"


async def test_tokens_of_links_are_not_in_the_log():
    async with behind_nginx(FakePool()) as proxy:
        async with http_through(proxy) as client:
            assert (await client.get("/health?token=secret")).status_code == 200
        while not (log := proxy.log.read_text()):  # it is written after the answer
            await asyncio.sleep(0)
    assert '"GET /health" 200' in log and "secret" not in log
