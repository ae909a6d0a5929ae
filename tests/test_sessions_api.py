"""`/api/v1/sessions` on a real server: what every route takes, gives and refuses."""

import json
import sqlite3
from contextlib import asynccontextmanager, closing, suppress
from itertools import product
from urllib.parse import quote

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from api import keys
from api.body import parse_object, validate
from api.document import document
from api.gateway import imports
from api.gateway.sessions import MAX_IMPORT, OPERATIONS, BranchBody, ChangeBody, CreateBody
from api.store import sessions as sessions_module
from inference import BadRequest
from tests.bodies import whole
from tests.conversations import TOOLS, asked, database, running, sessions, turn
from tests.fake_pool import FakePool, serving

__all__ = ["database", "sessions"]  # fixtures
HERE = "/api/v1/sessions"
JSON = {"Content-Type": "application/json"}
SETTINGS = {"system_prompt": "Be brief.", "temperature": 0.5, "thinking": False, "tools": TOOLS}


@asynccontextmanager
async def client(database=None, **how):
    async with (
        serving(FakePool(), database=database, **how) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        yield http


@pytest.fixture
async def http(database):
    async with client(database) as http:
        yield http


async def made(http, **about):
    answer = await http.post(HERE, json=about)
    assert answer.status_code == 201, answer.text
    return answer.json()


def error(answer):
    return answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["param"]


async def test_a_session_from_its_beginning_to_its_end(http):
    session = await made(http, title="Talk", model="fake", settings=SETTINGS)
    assert session.keys() == {"id", "title", "model", "settings", "head", "created", "updated"}
    assert (session["title"], session["model"], session["head"]) == ("Talk", "fake", None)
    assert session["settings"] == SETTINGS
    place = f"{HERE}/{session['id']}"
    whole = (await http.get(place)).json()
    assert whole == session | {"messages": [], "summaries": [], "running": None}
    changed = (await http.patch(place, json={"title": "New", "settings": {"seed": 1}})).json()
    assert changed == session | {
        "title": "New",
        "settings": {"seed": 1},
        "updated": changed["updated"],
    }
    assert (await http.patch(place, json={})).json()["title"] == "New"
    deleted = await http.delete(place)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert error(await http.get(place)) == (404, "session_not_found", "session_id")


async def test_the_whole_tree_is_shown(http, sessions):
    session = await made(http)
    stored = await sessions.find("", session["id"])
    answer = await turn(sessions, stored, "Hi", tenant="")
    said = asked(None, "Hi, edited")
    await sessions.begin(stored, [said], running(said.id))
    whole = (await http.get(f"{HERE}/{session['id']}")).json()
    first, second, third, fourth = whole["messages"]
    assert (first["content"], second["content"], second["parent"]) == ("Hi", "Yes.", first["id"])
    assert second["usage"]["completion_tokens"] == 2 and second["tool_calls"] == []
    assert (third["parent"], third["role"]) == (None, "user")
    assert whole["head"] == fourth["id"]
    assert (whole["running"], fourth["state"]) == (None, "cut")  # nobody writes it
    [listed] = (await http.get(HERE)).json()["sessions"]
    assert listed.keys() == {"id", "title", "model", "created", "updated", "running"}
    assert (listed["title"], listed["running"]) == ("Hi", False)
    await http.patch(f"{HERE}/{session['id']}", json={"head": answer.id})
    assert (await http.get(f"{HERE}/{session['id']}")).json()["head"] == answer.id


async def test_a_server_cuts_what_the_one_before_was_writing(database, sessions):
    session = await sessions.create("")
    said = asked(None, "Hi")
    await sessions.begin(session, [said], running(said.id))
    async with client(database) as http:
        whole = (await http.get(f"{HERE}/{session.id}")).json()
        assert (whole["running"], whole["messages"][1]["state"]) == (None, "cut")
    assert await sessions.find("", session.id)  # a server leaves the database to its owner


async def test_pages_and_what_is_looked_for(http, sessions):
    ids = [(await made(http, title=f"No. {number}"))["id"] for number in range(5)]
    await turn(sessions, await sessions.find("", ids[1]), "Where is the NEEDLE?", tenant="")
    order = [ids[number] for number in (1, 4, 3, 2, 0)]

    async def page(**query):
        answer = (await http.get(HERE, params=query)).json()
        return [one["id"] for one in answer["sessions"]], answer["more"]

    assert await page() == (order, False)
    assert await page(limit=2) == (order[:2], True)
    assert await page(limit=3, before=order[1]) == (order[2:], False)
    assert await page(query=" no. 4 ") == ([ids[4]], False)
    [found] = (await http.get(HERE, params={"query": "needle"})).json()["sessions"]
    assert (found["id"], found["snippet"]) == (ids[1], "Where is the NEEDLE?")
    for query in ({"limit": 0}, {"limit": 101}, {"limit": "x"}, {"query": "x" * 257}):
        [field] = query
        assert error(await http.get(HERE, params=query)) == (400, "invalid_value", field)
    assert error(await http.get(HERE, params={"before": "x"}))[1] == "session_not_found"


async def test_a_branch_is_a_new_session(http, sessions):
    session = await sessions.create("", "Talk")
    first = await turn(sessions, session, "One", tenant="")
    await turn(sessions, session, "Two", tenant="")
    place = f"{HERE}/{session.id}/branch"
    answer = await http.post(place, json={"message_id": first.id})
    assert answer.status_code == 201 and answer.json()["id"] != session.id
    whole = (await http.get(f"{HERE}/{answer.json()['id']}")).json()
    assert [message["content"] for message in whole["messages"]] == ["One", "Yes."]
    refused = await http.post(place, json={"message_id": "msg_none"})
    assert error(refused) == (400, "message_not_found", "message_id")
    assert error(await http.post(place, json={})) == (400, "invalid_value", "message_id")


async def test_what_is_exported_is_a_session_again(http, sessions):
    session = await sessions.create("", "Über/alles\n")
    await turn(sessions, session, "Hi", tenant="")
    file = await http.get(f"{HERE}/{session.id}/export")
    name = quote("Über/alles\n.json", safe="")
    assert file.headers["content-disposition"] == (
        f"attachment; filename=\"conversation.json\"; filename*=UTF-8''{name}"
    )
    read = await http.post(f"{HERE}/import", content=file.content, headers=JSON)
    assert read.status_code == 201
    again = await http.get(f"{HERE}/{read.json()['id']}/export")
    parts = ("title", "model", "settings", "created")
    one, other = (answer.json()["session"] for answer in (file, again))
    assert [one[part] for part in parts] == [other[part] for part in parts]
    markdown = await http.get(f"{HERE}/{session.id}/export", params={"format": "markdown"})
    assert markdown.headers["content-type"] == "text/markdown; charset=utf-8"
    assert "## You\n\nHi\n" in markdown.text
    refused = await http.get(f"{HERE}/{session.id}/export", params={"format": "pdf"})
    assert error(refused) == (400, "invalid_value", "format")


async def test_an_import_has_bounds(http):
    head = '{"format": "onebox.session.1", "session": {}, "messages": [], "x": "'
    room = MAX_IMPORT - len(head) - len('"}')
    deep = '", "deep": ' + "[" * 64 + "]" * 64
    for content, status in (
        ("x" * room, 201),
        ("x" * (room + 1), 413),
        ("\\ud800", 400),
        (deep, 400),
        ('"', 400),
    ):
        body = head + content + ("}" if content.endswith("]") else '"}')
        answer = await http.post(f"{HERE}/import", content=body, headers=JSON)
        assert answer.status_code == status


async def test_those_of_other_keys_are_as_good_as_none(database, tmp_path):
    secrets = {name: keys.add(tmp_path / "keys.json", name) for name in ("ann", "bob")}
    held = {name: {"Authorization": f"Bearer {secret}"} for name, secret in secrets.items()}
    async with client(database, keys=keys.KeyFile(tmp_path / "keys.json")) as http:
        http.headers = held["ann"]
        session = await made(http, title="Hers")
        place = f"{HERE}/{session['id']}"
        export = (await http.get(f"{place}/export")).content
        routes = [
            ("GET", place, {}),
            ("PATCH", place, {"json": {"title": "x"}}),
            ("DELETE", place, {}),
            ("POST", f"{place}/branch", {"json": {"message_id": "x"}}),
            ("GET", f"{place}/export", {}),
            ("POST", f"{place}/stop", {"json": {}}),
            ("GET", f"{HERE}?before={session['id']}", {}),
        ]
        told = {operation.path for operation in OPERATIONS if "{id}" in operation.path}
        assert told == {path.replace(session["id"], "{id}") for _, path, _ in routes[:-1]}
        http.headers = held["bob"]
        assert (await http.get(HERE)).json() == {"sessions": [], "more": False}
        for method, path, about in routes:
            none = path.replace(session["id"], "chat_none")
            foreign, unknown = [await http.request(method, one, **about) for one in (path, none)]
            assert error(foreign)[:2] == (404, "session_not_found")
            assert foreign.content == unknown.content
        read = await http.post(f"{HERE}/import", content=export, headers=JSON)
        assert read.status_code == 201
        http.headers = held["ann"]
        assert (await http.get(HERE)).json()["sessions"][0]["title"] == "Hers"
        http.headers = {}
        for (method, path, about), secret in product(routes, (None, "wrong")):
            shown = {"Authorization": f"Bearer {secret}"} if secret else {}
            answer = await http.request(method, path, headers=shown, **about)
            assert answer.status_code == 401


async def test_there_are_as_many_as_one_key_may_have(http, monkeypatch):
    monkeypatch.setattr(sessions_module, "MOST", 2)
    await made(http), await made(http)
    assert error(await http.post(HERE, json={}))[:2] == (409, "too_many_stored")


async def test_a_database_that_fails_is_a_503_and_no_end(http, database):
    session = await made(http)
    place = f"{HERE}/{session['id']}"
    with closing(sqlite3.connect(database.path)) as other:
        other.execute("ALTER TABLE sessions RENAME TO hidden")
        other.commit()
        for method, path in (("GET", HERE), ("POST", HERE), ("GET", place), ("DELETE", place)):
            answer = await http.request(method, path, json={})
            assert error(answer)[:2] == (503, "not_stored") and answer.headers["retry-after"]
        other.execute("ALTER TABLE hidden RENAME TO sessions")
        other.commit()
    assert (await http.get(place)).json()["id"] == session["id"]


WRONG = [
    (CreateBody, "title", "t" * 201),
    (CreateBody, "title", 5),
    (CreateBody, "model", "m" * 257),
    (CreateBody, "settings", []),
    (CreateBody, "settings.temperature", {"temperature": 2.5}),
    (CreateBody, "settings.top_p", {"top_p": 0}),
    (CreateBody, "settings.min_p", {"min_p": 2}),
    (CreateBody, "settings.top_k", {"top_k": -2}),
    (CreateBody, "settings.max_tokens", {"max_tokens": 0}),
    (CreateBody, "settings.seed", {"seed": 2**63}),
    (CreateBody, "settings.repetition_penalty", {"repetition_penalty": 0}),
    (CreateBody, "settings.presence_penalty", {"presence_penalty": 3}),
    (CreateBody, "settings.frequency_penalty", {"frequency_penalty": -3}),
    (CreateBody, "settings.system_prompt", {"system_prompt": "x" * 65537}),
    (CreateBody, "settings.thinking", {"thinking": "perhaps"}),
    (CreateBody, "settings.compaction", {"compaction": 2}),
    (CreateBody, "settings.tools", {"tools": {}}),
    (CreateBody, "settings.tools", {"tools": TOOLS * 129}),
    (CreateBody, "settings.tools.0.function.name", {"tools": [{"function": {"name": "a b"}}]}),
    (ChangeBody, "head", 5),
    (ChangeBody, "title", "t" * 201),
    (BranchBody, "message_id", None),
    (BranchBody, "message_id", ""),
]


@pytest.mark.parametrize(("model", "field", "value"), WRONG)
def test_what_is_wrong_is_refused_by_name(model, field, value):
    with pytest.raises(BadRequest) as refused:
        validate(model, {field.split(".")[0]: value})
    assert refused.value.field == field


UNDERSTOOD = {
    (HERE, "POST"): lambda raw: validate(CreateBody, raw),
    (f"{HERE}/{{id}}", "PATCH"): lambda raw: validate(ChangeBody, raw),
    (f"{HERE}/{{id}}/branch", "POST"): lambda raw: validate(BranchBody, raw),
    (f"{HERE}/import", "POST"): imports.understand,
}
TREE = ("No message before", "this id", "may not")  # what no schema can say


@pytest.mark.parametrize(("path", "method"), UNDERSTOOD)
def test_what_the_document_allows_is_understood(path, method):
    openapi = schemathesis.openapi.from_dict(document(OPERATIONS))

    @settings(max_examples=25, suppress_health_check=list(HealthCheck))
    @given(openapi[path][method].as_strategy())
    def check(case):
        with suppress(BadRequest):  # for what no schema can say: numbers of over 64 bits
            body = parse_object(json.dumps(whole(case.body)).encode())
            try:
                UNDERSTOOD[path, method](body)
            except BadRequest as error:
                assert any(words in error.message for words in TREE), error.message

    check()
