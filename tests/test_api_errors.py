"""Nothing a client sends gives a 500, and every refusal says which field and why."""

import asyncio
import json
import re
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api import errors
from api.body import MAX_BODY, MAX_DRAINED, parse_object
from api.openai import chat, completions, embeddings
from api.openai.responses import create
from inference import (
    BadRequest,
    ContextTooLong,
    DeadlineExceeded,
    InferenceError,
    NotReady,
    NumericalError,
    Overloaded,
    Poisonous,
    UnknownModel,
    WorkerLost,
)
from tests.bodies import BODIES, CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, WRONG
from tests.fake_pool import FakePool, post_head, serving
from tests.understanding import requests

JSON_TYPE = {"Content-Type": "application/json"}
MODELS = {
    CHAT: chat.ChatBody,
    COMPLETIONS: completions.CompletionBody,
    RESPONSES: create.ResponsesBody,
    EMBEDDINGS: embeddings.EmbeddingBody,
}
HUGE = 2**70


def plain(schema):
    """The part of a field's schema that is not null."""
    return next((s for s in schema.get("anyOf", ()) if s.get("type") != "null"), schema)


def numeric_fields():
    for path, model in MODELS.items():
        for name, schema in model.model_json_schema()["properties"].items():
            if plain(schema).get("type") in ("integer", "number"):
                yield path, name, plain(schema)


def bad_numbers(bounds):
    """JSON texts that are wrong for a number within `bounds`, its neighbours outside included."""
    low, high = bounds["least"], bounds["most"]
    return ["NaN", "-Infinity", "1e999", str(HUGE), str(-HUGE), '"text"', "[]", "{}", "true"] + [
        str(value) for value in (low, high) if abs(value) < 2**63
    ]


def bounds_of(schema):
    least = schema["minimum"] - 1 if "minimum" in schema else schema["exclusiveMinimum"]
    return {"least": least, "most": schema["maximum"] + 1}


NUMERIC = [
    pytest.param(path, name, bad_numbers(bounds_of(schema)), id=f"{path} {name}")
    for path, name, schema in numeric_fields()
]
BROKEN = [
    b"",
    b"{",
    b"[]",
    b'"text"',
    b"null",
    b'{"messages": NaN}',
    b'{"x": "\xff"}',
    b'{"x": "\\ud800"}',
    b'{"\\udfff": 1}',
    b'{"x": ' + b"[" * 64 + b"]" * 64 + b"}",
    b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"x": ' + b"1" * 5000 + b"}",
    b'{"x": [{"y": 18446744073709551616}]}',
]


def error_of(response, status):
    assert response.status_code == status
    assert len(response.content) <= 4096
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error


def understand(path, body):
    return requests(path, parse_object(json.dumps(body).encode()))


@pytest.mark.parametrize(("path", "name", "texts"), NUMERIC)
def test_a_number_that_cannot_be_is_refused_by_name(path, name, texts):
    for text in texts:
        body = {**BODIES[path], name: json.loads(text)}
        with pytest.raises(BadRequest) as refusal:
            understand(path, body)
        assert refusal.value.field == name
        assert name in refusal.value.message


@pytest.mark.parametrize(("path", "field", "value"), WRONG)
def test_a_wrong_or_unsupported_value_is_refused_by_name(path, field, value):
    with pytest.raises(BadRequest) as refusal:
        understand(path, {**BODIES[path], field.split(".")[0]: value})
    assert refusal.value.field == field
    assert refusal.value.message.startswith(field)


@pytest.mark.parametrize("body", BROKEN, ids=range(len(BROKEN)))
def test_a_body_that_is_no_plain_json_object_is_refused(body):
    with pytest.raises(BadRequest):
        parse_object(body)


def test_the_deepest_nesting_allowed_is_accepted():
    assert parse_object(b'{"x": ' + b"[" * 63 + b"]" * 63 + b"}")


@given(st.binary())
def test_any_bytes_are_an_object_or_a_refusal(body):
    with suppress(BadRequest):
        assert isinstance(parse_object(body), dict)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
KEYS = st.sampled_from(["role", "content", "type", "text", "function", "name", "arguments", "id"])
SHAPED = JSON | st.lists(st.dictionaries(KEYS, JSON), max_size=3)


@pytest.mark.parametrize("path", MODELS)
@settings(max_examples=60)
@given(st.data())
def test_any_json_in_any_field_is_a_request_or_a_refusal(path, data):
    fields = st.sampled_from(sorted(MODELS[path].model_fields))
    body = BODIES[path] | data.draw(st.dictionaries(fields, SHAPED, max_size=4))
    try:
        understood = understand(path, body)
    except BadRequest:
        return
    for request in understood:
        assert msgspec.msgpack.encode(asdict(request))


async def test_refusals_reach_the_client_in_openais_shape_without_its_input():
    async with serving(FakePool()) as url, httpx.AsyncClient(base_url=url) as client:
        error_of(await client.post(CHAT, content=b'{"messages": NaN}', headers=JSON_TYPE), 400)
        secret = {**BODIES[CHAT], "temperature": "secret" * 9999}
        response = await client.post(CHAT, json=secret)
        error = error_of(response, 400)
        assert (error["type"], error["param"]) == ("invalid_request_error", "temperature")
        assert "secret" not in response.text


async def test_a_body_over_the_limit_is_refused():
    async with serving(FakePool()) as url, httpx.AsyncClient(base_url=url) as client:
        refused = await client.post(CHAT, content=b" " * (MAX_BODY + 1), headers=JSON_TYPE)
        assert error_of(refused, 413)["code"] == "body_too_large"
        error_of(await client.post(CHAT, content=b" " * MAX_BODY, headers=JSON_TYPE), 400)


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("content-length: 99999999999", b""),
        ("transfer-encoding: chunked", b"%x\r\n" % (MAX_DRAINED + 1) + b" " * (MAX_DRAINED + 1)),
    ],
    ids=["declared", "chunked"],
)
async def test_a_body_without_end_is_refused_before_its_end(header, body):
    async with serving(FakePool()) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[-1]))
        writer.write(post_head(CHAT, header) + body)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_unknown_routes_and_methods_are_refused_in_the_same_shape():
    async with serving(FakePool()) as url, httpx.AsyncClient(base_url=url) as client:
        error_of(await client.get("/v2/nothing"), 404)
        wrong = await client.get(CHAT)
        error_of(wrong, 405)
        assert wrong.headers["allow"] == "POST"


REFUSALS = [
    (BadRequest("top_k: too large", "top_k"), 400, "invalid_value", None),
    (ContextTooLong("maximum context length"), 400, "context_length_exceeded", None),
    (UnknownModel("no such model", "model"), 404, "model_not_found", None),
    (Overloaded("queue full", retry_after=7), 429, "queue_full", "7"),
    (NotReady("loading"), 503, "not_ready", "1"),
    (WorkerLost("worker died"), 503, "worker_lost", "1"),
    (DeadlineExceeded("too late"), 408, "deadline_exceeded", None),
    (InferenceError("odd"), 500, "internal_error", None),
    (Poisonous("it kills"), 500, "request_quarantined", None),
    (NumericalError("no number"), 500, "numerical_error", None),
]


async def test_each_refusal_of_the_pool_has_its_status():
    cases = [(*case, stream) for case in REFUSALS for stream in (False, True)]
    pool = FakePool(*([error] for error, *_ in cases))
    async with serving(pool) as url, httpx.AsyncClient(base_url=url) as client:
        for error, status, code, retry, stream in cases:
            response = await client.post(CHAT, json=BODIES[CHAT] | {"stream": stream})
            body = error_of(response, status)
            assert (body["message"], body["param"]) == (error.message, error.field)
            assert (body["code"], response.headers.get("retry-after")) == (code, retry)
            hopeless = isinstance(error, Poisonous | NumericalError)
            assert response.headers.get("x-should-retry") == ("false" if hopeless else None)


async def test_a_bug_is_a_500_that_tells_the_log_and_not_the_client(capsys):
    pool = FakePool([ZeroDivisionError("secret")])
    async with serving(pool) as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.post(CHAT, json=BODIES[CHAT])
    assert error_of(response, 500)["code"] == "internal_error"
    assert "secret" not in response.text
    assert "ZeroDivisionError: secret" in capsys.readouterr().err


async def test_however_long_the_cause_the_answer_stays_small():
    long = "\U0001f600\x01" * 5000
    pool = FakePool([BadRequest(long, long)])
    async with serving(pool) as url, httpx.AsyncClient(base_url=url) as client:
        refused = [
            await client.post(CHAT, json=BODIES[CHAT]),
            await client.post(CHAT, content=json.dumps({long: float("nan")}), headers=JSON_TYPE),
        ]
    assert all(error_of(response, 400)["message"] for response in refused)
    assert all(len(response.content) <= 4096 for response in refused)


def test_the_table_in_the_docs_has_every_code_under_its_status():
    docs = (Path(__file__).parents[1] / "docs" / "api.md").read_text()
    table = docs.partition("## Errors")[2].partition("\n## ")[0]
    told = {
        (int(status), code)
        for status, codes in re.findall(r"^\| ([0-9]{3}) \| ([^|]*)\|", table, re.MULTILINE)
        for code in re.findall(r"`(\w+)`", codes)
    }
    known = {
        (status, error.code)
        for error, status in errors._STATUS.items()
        if error is not errors.ClientGone  # nobody reads it
    }
    assert known <= told
