"""The collection for Postman: every request of it runs, in its order, and gets the status it says.

Of the scripts in it, this understands what they use: a status that is tested, a value that is kept.
"""

import json
import re
from pathlib import Path

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from api import keys
from api.app import create_app
from api.page.files import PATHS
from inference import Models, Pool, load_config, prepare
from tests import embedding_model
from tests.fake_pool import FakePool, serving
from tests.several import DEMO

FILE = Path(__file__).parents[1] / "docs" / "onebox.postman_collection.json"
STATUS = re.compile(r'pm\.test\("Status (\d+)", \(\) => pm\.response\.to\.have\.status\(\1\)\);')
KEPT = re.compile(r'pm\.collectionVariables\.set\("(\w+)", pm\.response\.(\S+)\);')
VALUES = {
    r"json\(\)\.(\w+)": lambda answer, name: answer.json()[name],
    r"text\(\)": lambda answer: answer.text,
    r'headers\.get\("([\w-]+)"\)': lambda answer, name: answer.headers[name],
}
CONFIG = """
models:
  qwen3-demo: {{aliases: [default], path: {demo}, context: 2048, slots: 2, thinking: false}}
  qwen3-embedding-0.6b: {{path: {embedder}, context: 2048, slots: 2}}
"""
# Not done here, or in no need of an example.
LEFT_OUT = {
    *(("GET", path) for path in PATHS),
    *(("POST", f"/api/{what}") for what in ("create", "push", "copy", "blobs/{}")),
    ("DELETE", "/api/delete"),
    ("POST", "/v1/responses/{}/cancel"),
}


class Collection:
    """The file, and what its variables are at the moment."""

    def __init__(self) -> None:
        self.file = json.loads(FILE.read_text())
        self.variables = {one["key"]: one["value"] for one in self.file["variable"]}
        self.items = [*_leaves(self.file["item"])]

    def filled(self, text: str) -> str:
        return re.sub(r"\{\{(\w+)\}\}", lambda found: self.variables[found[1]], text)

    def request(self, item: dict) -> httpx.Request:
        asked = item["request"]
        headers = {one["key"]: self.filled(one["value"]) for one in asked["header"]}
        auth = asked.get("auth", self.file["auth"])
        if auth["type"] == "bearer":
            headers["Authorization"] = f"Bearer {self.filled(auth['bearer'][0]['value'])}"
        body = self.filled(asked["body"]["raw"]) if "body" in asked else None
        url = self.filled(asked["url"]["raw"])
        return httpx.Request(asked["method"], url, headers=headers, content=body)

    def heard(self, item: dict, answer: httpx.Response) -> None:
        """What its script does with an answer."""
        status, *kept = item["event"][0]["script"]["exec"]
        expected = int(STATUS.fullmatch(status)[1])
        assert answer.status_code == expected, f"{item['name']}: {answer.text}"
        for name, value in (KEPT.fullmatch(line).groups() for line in kept):
            self.variables[name] = _value(value, answer)


def _leaves(items):
    for item in items:
        yield from _leaves(item["item"]) if "item" in item else [item]


def _value(script: str, answer: httpx.Response) -> str:
    for pattern, read in VALUES.items():
        if found := re.fullmatch(pattern, script):
            return read(answer, *found.groups())
    raise AssertionError(f"{script} is not understood here")


@pytest.fixture
def models(tmp_path) -> Models:
    embedder = embedding_model.write(tmp_path / "embedder.gguf", "last")
    (tmp_path / "models.yaml").write_text(CONFIG.format(demo=DEMO, embedder=embedder))
    config = load_config(tmp_path / "models.yaml")
    plan = prepare(config, "qwen3-demo", tuned=False)
    return Models(Pool(plan), config, lambda: plan, tuned=False)


@pytest.mark.parametrize("keyed", [True, False])
async def test_every_request_runs_in_its_order(models, key_file, keyed):
    collection = Collection()
    if keyed:
        collection.variables["api_key"] = keys.add(key_file, "alice", admin=True)
    async with (
        serving(models, keys=keys.KeyFile(key_file)) as url,
        httpx.AsyncClient(timeout=60) as client,
    ):
        await models.until_ready()
        collection.variables["base_url"] = url
        for item in collection.items:
            collection.heard(item, await client.send(collection.request(item)))
        listing = next(one for one in collection.items if one["name"] == "Conversations")
        left = await client.send(collection.request(listing))
    assert left.json() == {"sessions": [], "more": False}


def test_every_address_is_in_it():
    asked = set()
    for item in Collection().items:
        path = item["request"]["url"]["raw"].removeprefix("{{base_url}}").partition("?")[0]
        asked.add((item["request"]["method"], path))
    missing = {
        (method, path)
        for method, path, pattern in _routes()
        if not any(verb == method and pattern.fullmatch(way) for verb, way in asked)
    }
    assert missing == LEFT_OUT


def _routes():
    for route in iter_route_contexts(create_app(Models(FakePool())).routes):
        path = re.sub(r"\{.*?\}", "{}", route.path_format)
        pattern = re.compile(re.escape(path).replace(r"\{\}", "[^/]+"))
        for method in (route.methods or set()) - {"HEAD"}:  # a WebSocket has none
            yield method, path, pattern


def test_an_address_is_spelled_in_one_way():
    for item in Collection().items:
        url = item["request"]["url"]
        query = "&".join(f"{one['key']}={one['value']}" for one in url.get("query", ()))
        raw = "/".join((url["host"][0], *url["path"])) + (f"?{query}" if query else "")
        assert raw.removesuffix("/") == url["raw"].removesuffix("/")


def test_its_variables_are_empty_but_for_those_that_are_to_be_set():
    set_by_people = {"base_url", "api_key", "model", "embedding_model"}
    told = {one["key"]: one["value"] for one in Collection().file["variable"]}
    assert {name for name, value in told.items() if value} == set_by_people
    used = set(re.findall(r"\{\{(\w+)\}\}", FILE.read_text()))
    assert used == told.keys()
