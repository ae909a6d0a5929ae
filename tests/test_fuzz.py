"""A real server under requests that nobody would send, and the judge of them under bad answers."""

import asyncio
import json
import random
from collections.abc import Iterator
from itertools import islice

import httpx
import pytest
import schemathesis
import schemathesis.specs.openapi.schemas  # not on a thread, while tracebacks are written beside it
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from api.openai import chat, completions
from benchmarks import barrage
from benchmarks.barrage import Plan, Tally
from benchmarks.body_mutants import BODIES, CHAT, COMPLETIONS, RESPONSES, Mutants
from benchmarks.contract import Contract, fault
from benchmarks.exchange import Reply, Shot, exchange, post
from benchmarks.fuzz import Verdict, attack, restarts, serving
from benchmarks.generated import modest
from benchmarks.raw_mutants import raw_mutants
from tests.bodies import UNDERSTAND_RESPONSE
from tests.fake_pool import FakePool, hello
from tests.fake_pool import serving as serving_a_fake

UNDERSTAND = {
    CHAT: chat.understand,
    COMPLETIONS: completions.understand,
    RESPONSES: UNDERSTAND_RESPONSE,
}
PATIENCE = 60  # seconds


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`onebox serve` on the bundled model, with a worker process; it never restarts one."""
    with serving(None, tmp_path_factory.mktemp("fuzz") / "onebox.log") as address:
        yield address
        with httpx.Client(base_url=address) as http:
            http.post("/api/chat", json={})  # loads what a request may have had unloaded
            assert restarts(http) == 0


@pytest.fixture(scope="module")
def contract(url) -> Contract:
    return Contract(httpx.get(f"{url}/openapi.json").json())


def test_the_server_minds_nothing_that_is_sent_to_it(url):
    verdict = attack(url, Plan(requests=300, seed=1))
    assert verdict.tally.problems == {}
    assert verdict.passed
    assert verdict.tally.shots == 300
    assert {"200", "400"} <= {status for _, status in verdict.tally.statuses}


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("path", UNDERSTAND)
def test_schemathesis_finds_nothing(url, path, mode):
    rng = random.Random(1)
    # A body may fit the schema and not the model: its name, its vocabulary, its context.
    strict = [positive_data_acceptance]
    operation = schemathesis.openapi.from_url(f"{url}/openapi.json")[path]["POST"]

    @seed(1)
    @settings(
        max_examples=40,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def check(case):
        case.body = modest(case.body, rng)
        case.headers.pop("Last-Event-ID", None)  # with one, the body does not count
        case.call_and_validate(base_url=url, timeout=PATIENCE, excluded_checks=strict)

    check()


def test_the_bodies_that_are_changed_are_right_ones():
    for path, body in BODIES:
        assert UNDERSTAND[path](body, "m").requests


def test_the_same_seed_sends_the_same(contract):
    def some(number: int) -> list[Shot]:
        mutants = Mutants(contract, "localhost:1", number)
        return [*islice(mutants, 50), *islice(raw_mutants("localhost:1", number), 50)]

    assert some(1) == some(1) != some(2)


def test_a_fault_of_its_own_ends_it(url, monkeypatch):
    def broken(*_):
        yield Shot("raw", "", (b"",))
        raise ZeroDivisionError

    monkeypatch.setattr(barrage, "raw_mutants", broken)
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        attack(url, Plan(requests=400, seed=1))


# Hypothesis does not like others to draw random numbers meanwhile, as the server here does.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
async def test_a_server_with_a_fault_does_not_pass(capsys):
    pool = FakePool(hello(), *[[ZeroDivisionError("a bug")]] * 5)
    async with serving_a_fake(pool) as url:
        verdict = await asyncio.to_thread(attack, url, Plan(requests=60, seed=1))
    assert len(verdict.tally.problems["status 500"]) == 5
    assert not verdict.passed
    assert "a bug" in capsys.readouterr().err


def test_a_server_that_changed_or_lost_its_worker_does_not_pass():
    assert Verdict(Tally(), restarts=0, same=True, seconds=1).passed
    assert not Verdict(Tally(), restarts=1, same=True, seconds=1).passed
    assert not Verdict(Tally(), restarts=0, same=False, seconds=1).passed


INTERIM = b"HTTP/1.1 100 \r\nA: b\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        (OK, ""),
        (INTERIM + OK, ""),
        (INTERIM, "0 answers to one request"),
        (OK * 2, "2 answers to one request"),
        (b"", "0 answers to one request"),
        (OK[:-1], "no HTTP: peer closed connection without sending complete message body"),
        (b"garbage\r\n\r\n", "no HTTP: illegal status line"),
        (None, "hang"),
    ],
    ids=["one", "at last one", "none at last", "two", "none", "half", "garbage", "silence"],
)
async def test_what_is_no_answer_is_told(answer, trouble):
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await reader.read()
        writer.write(answer or b"")
        writer.close()
        await writer.wait_closed()
        ended.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        shot = Shot("json", "", (post("/", "localhost", b""),), "/", whole=True)
        found = await exchange("127.0.0.1", port, shot, 1 if answer is None else PATIENCE)
        await asyncio.wait_for(ended.wait(), PATIENCE)
    assert found.trouble.startswith(trouble) and bool(found.trouble) == bool(trouble)


EVENTS = {"content-type": "text/event-stream; charset=utf-8"}
JSON = {"content-type": "application/json"}


def error(status: int, message: str = "no", **headers: str) -> Reply:
    body = {"error": {"message": message, "type": "t", "param": None, "code": "c"}}
    return Reply(status, JSON | headers, json.dumps(body).encode())


def stream(*events: bytes) -> Reply:
    body = b"".join(b"data: %b\n\n" % event for event in events)
    return Reply(200, EVENTS, body)


BROKEN = b'{"error":{"message":"m","type":"t","param":null,"code":"worker_lost"}}'
LATE = BROKEN.replace(b"worker_lost", b"deadline_exceeded")
BREACHES = [
    (error(400), ""),
    (error(503, **{"retry-after": "1"}), "status 503"),
    (error(500), "status 500"),
    (error(418), "status 418 is not in the document"),
    (error(400, "x" * 5000), "an error of more than 4 KiB"),
    (error(400, "at 0x7f00deadbeef"), "an error that tells of the inside"),
    (Reply(400, {"content-type": "text/html"}, b""), "text/html is not in the document"),
    (Reply(400, JSON, b"{}"), "a body that is not as its schema says"),
    (Reply(200, JSON, b"{"), "a body that is no JSON"),
    (stream(LATE, b"[DONE]"), ""),
    (Reply(200, EVENTS, b"id: a:1\ndata: %b\n\n: ping\n\ndata: [DONE]\n\n" % LATE), ""),
    (stream(BROKEN, b"[DONE]"), "a stream that broke"),
    (stream(LATE), "a stream without an end"),
    (stream(b"{}", b"[DONE]"), "a body that is not as its schema says"),
]


@pytest.mark.parametrize(("reply", "breach"), BREACHES)
def test_what_is_not_as_the_document_says_is_told(contract, reply, breach):
    assert (fault(reply) or contract.breach(reply, CHAT)) == breach
