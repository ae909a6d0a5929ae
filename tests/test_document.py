"""The OpenAPI document says of every route what is true of it."""

import asyncio
import json
from collections import Counter
from contextlib import suppress
from itertools import islice

import httpx
import pytest
import schemathesis
from fastapi.routing import iter_route_contexts
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error

from api import keys, limits
from api.app import create_app
from api.body import number, parse_object
from api.errors import UnknownItem, UnknownPrevious
from api.guard import PUBLIC
from benchmarks.body_mutants import Mutants
from benchmarks.contract import Contract
from benchmarks.exchange import Reply
from inference import (
    BadRequest,
    DeadlineExceeded,
    Models,
    Overloaded,
    ReasoningDelta,
    Started,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    UnknownModel,
    WorkerLost,
)
from tests.bodies import BODIES, WRONG, whole
from tests.fake_pool import FakePool, end, hello, serving
from tests.understanding import UNDERSTAND

CALL = ToolCallDelta(0, 0, ToolCall("call_1", "add", '{"a": 1}'))
LIKELY = TokenLogprob(b"so", -0.5, ((b"so", -0.5), (b"\xff", -2.0)), 0, 2)
FIRST = TokenLogprob(b"On", None)
SCRIPTS = [
    hello(),
    [Started(7), ReasoningDelta(0, "hm"), TextDelta(0, "so"), CALL, end(reason="tool_calls")],
    [Started(7), TextDelta(0, "so", (LIKELY, FIRST)), end()],
    [Started(7), end(reason="length")],
    [BadRequest("n: too large", "n")],
    [UnknownModel("no such model", "model")],
    [Overloaded("queue full", retry_after=7)],
    [WorkerLost("it died")],
    [DeadlineExceeded("too late")],
    [Started(7), TextDelta(0, "Hel"), DeadlineExceeded("too late")],
]


@pytest.fixture(scope="module")
def document() -> dict:
    async def fetch() -> dict:
        async with serving(FakePool()) as url, httpx.AsyncClient(base_url=url) as client:
            return (await client.get("/openapi.json")).json()

    return asyncio.run(fetch())


@pytest.fixture(scope="module")
def contract(document) -> Contract:
    return Contract(document)


@pytest.fixture(scope="module")
def openapi(document):
    return schemathesis.openapi.from_dict(document)


def test_it_is_openapi(openapi):
    openapi.validate()


def test_every_route_is_in_it_with_its_methods(document):
    routes = iter_route_contexts(create_app(Models(FakePool())).routes)
    assert {(route.path_format, method) for route in routes for method in route.methods or ()} == {
        (path, method.upper()) for path, item in document["paths"].items() for method in item
    }


async def test_the_pages_that_fastapi_would_make_are_off():
    async with serving(FakePool()) as url, httpx.AsyncClient(base_url=url) as client:
        for path in ("/docs", "/redoc"):
            assert (await client.get(path)).status_code == 404


def unspelled(schema, body):
    """Numbers may be spelled out, within bounds that no schema can say of a text."""
    kinds = {name: about.get("anyOf", [about]) for name, about in schema["properties"].items()}
    types = {name: {one.get("type") for one in kinds[name]} for name in kinds.keys() & body.keys()}
    return body | {n: number(body[n]) for n, of in types.items() if of & {"integer", "number"}}


@pytest.mark.parametrize("path", UNDERSTAND)
def test_what_it_allows_is_understood(openapi, path):
    @settings(max_examples=25, suppress_health_check=list(HealthCheck))
    @given(openapi[path]["POST"].as_strategy())
    def check(case):
        with suppress(BadRequest):  # for what no schema can say: numbers of over 64 bits
            body = parse_object(json.dumps(whole(case.body)).encode())
            refusal = understood(path, body)
            assert not refusal or "may not be the assistant's" in refusal  # no schema says that

    check()


def test_a_changed_body_is_understood_exactly_if_the_document_allows_it(contract):
    outcomes = Counter()
    for shot in islice(Mutants(contract, "localhost:1", 1), 3000):
        with suppress(BadRequest):
            body = whole(parse_object(shot.pieces[0].partition(b"\r\n\r\n")[2]))
            allowed = contract.allows(shot.path, unspelled(contract.body(shot.path), body))
            why_not = understood(shot.path, body)
            assert allowed == (not why_not), why_not
            outcomes[allowed] += 1
    assert min(outcomes[True], outcomes[False]) > 500


@pytest.mark.parametrize(("path", "field", "value"), WRONG)
def test_what_is_refused_by_name_it_forbids(contract, path, field, value):
    assert contract.allows(path, BODIES[path])
    assert not contract.allows(path, BODIES[path] | {field.split(".")[0]: value})


def understood(path, body):
    """Empty, or why it is refused."""
    try:
        UNDERSTAND[path](body)
    except (UnknownModel, UnknownPrevious, UnknownItem):
        return ""  # is said of no body but of what is there
    except BadRequest as error:
        return error.message
    return ""


@pytest.mark.parametrize("path", UNDERSTAND)
async def test_every_answer_is_as_it_says(contract, path):
    asks = [{}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}]
    pool = FakePool(*(script for script in SCRIPTS for _ in asks))
    async with serving(pool) as url, httpx.AsyncClient(base_url=url) as client:
        for _ in SCRIPTS:
            for fields in asks:
                answer = await client.post(path, json=BODIES[path] | fields)
                reply = Reply(answer.status_code, dict(answer.headers), answer.content)
                assert contract.breach(reply, path) == ""
    assert len(pool.requests) == len(SCRIPTS) * len(asks)


REFUSED = [
    ({"Host": "other.example"}, 421),
    ({"Origin": "https://other.example"}, 403),
    ({"Authorization": "Bearer wrong"}, 401),
]


@pytest.mark.parametrize(("headers", "status"), REFUSED)
async def test_what_the_guard_refuses_is_in_it(document, tmp_path, headers, status, monkeypatch):
    monkeypatch.setattr(limits, "FAILURES", 10**6)
    keys.add(tmp_path / "keys.json", "alice")
    routes = [(path, *what) for path, item in document["paths"].items() for what in item.items()]
    async with (
        serving(FakePool(), keys=keys.KeyFile(tmp_path / "keys.json")) as url,
        httpx.AsyncClient(base_url=url, headers=headers) as client,
    ):
        for path, method, operation in routes:
            answer = await client.request(method, path, json={})
            assert str(answer.status_code) in operation["responses"]
            assert answer.status_code == status or path in PUBLIC


@pytest.mark.parametrize("state", ["ready", "restarting"])
async def test_service_routes_answer_as_it_says(openapi, state):
    routes = [found.ok() for found in openapi.get_all_operations()]
    plain = [r.Case() for r in routes if r.method in ("get", "head") and "{" not in r.path]
    model = openapi["/v1/models/{name}"]["GET"]
    named = [model.Case(path_parameters={"name": name}) for name in ("fake", "other")]
    pool = FakePool()
    pool.become(state, "")
    meant = [not_a_server_error]  # of /ready
    async with serving(pool) as url:
        for case in plain + named:
            await asyncio.to_thread(case.call_and_validate, base_url=url, excluded_checks=meant)
    assert {"/ready", "/metrics", "/api/tags", "/api/v1/sessions"} <= {one.path for one in plain}
