"""Requests to a real server as strangers send them: any header, any route, no library between."""

import asyncio
import itertools
import json
from contextlib import asynccontextmanager

import httpx
from fastapi.routing import iter_route_contexts

from api.app import create_app
from api.keys import KeyFile
from inference import Models
from tests.fake_pool import FakePool, serving

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "Hi"}]}
ROUTES = sorted(
    (method, route.path.replace("{name:path}", "fake"))
    for route in iter_route_contexts(create_app(Models(FakePool())).routes)
    for method in route.methods or ()  # a WebSocket has none
)
# What an address that does not exist needs, it must not tell.
EVERYWHERE = [*ROUTES, ("GET", "/v1/nothing"), ("POST", "/secret"), ("OPTIONS", CHAT), ("PUT", "/")]
LOCAL_JSON = "Host: localhost", "Content-Type: application/json"


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
