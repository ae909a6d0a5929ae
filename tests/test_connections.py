"""Clients that send or read slowly, wrongly, too much or not at all, on real sockets."""

import asyncio
import json
import random
import select
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from itertools import chain, repeat
from urllib.parse import urlsplit

import httpx
import pytest

from api.connection import Door, Limits, allowed_by_system
from inference import Started, TextDelta
from tests.fake_pool import FakePool, end, serving

CHAT = "/v1/chat/completions"
BODY = json.dumps({"messages": [{"role": "user", "content": "Hi"}]}).encode()
POST = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n".encode()
GET = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"


def post(body, length=None):
    return POST + b"content-length: %d\r\n\r\n" % (length or len(body)) + body


@asynccontextmanager
async def connected(url):
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def said_to(url, *pieces, trickle=b""):
    """All that the server says until it closes; the pieces are sent a moment apart, and from then
    on `trickle` again and again."""
    async with asyncio.timeout(10), connected(url) as (reader, writer):
        hearing = asyncio.create_task(heard_by(reader))
        for piece in chain(pieces, repeat(trickle)):
            writer.write(piece)
            await asyncio.wait({hearing}, timeout=0.02)
            if hearing.done():
                break
        return await hearing


async def heard_by(reader):
    heard = b""
    with suppress(ConnectionError):  # the server did not wait for the rest
        while piece := await reader.read(1 << 16):
            heard += piece
    return heard


def outcome(answer):
    """Status and code of an answer that says that it is the last."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    return int(head.split()[1]), json.loads(body)["error"]["code"]


@pytest.mark.parametrize("half", [POST, POST[:3]])
async def test_half_a_header_is_waited_for_no_longer_than_its_time(half):
    async with serving(FakePool(), limits=Limits(header=0.05)) as url:
        assert outcome(await said_to(url, half)) == (408, "request_timeout")


async def test_a_header_that_trickles_in_has_no_more_time_than_another():
    async with serving(FakePool(), limits=Limits(header=0.1)) as url:
        answer = await said_to(url, POST, trickle=b"x")
    assert outcome(answer) == (408, "request_timeout")


async def test_who_says_nothing_is_told_nothing():
    async with serving(FakePool(), limits=Limits(header=0.05)) as url:
        assert await said_to(url) == b""


async def test_an_idle_connection_is_closed_and_one_that_goes_on_has_its_time_again():
    async with serving(FakePool(), limits=Limits(idle=0.05, header=0.05)) as url:
        assert (await said_to(url, GET)).endswith(b'{"status":"ok"}')
    async with serving(FakePool(), limits=Limits(header=0.5)) as url:
        first, _, second = (await said_to(url, GET, GET[:9])).partition(b'{"status":"ok"}')
        assert first.startswith(b"HTTP/1.1 200")
        assert outcome(second) == (408, "request_timeout")


async def test_half_a_body_is_waited_for_no_longer_than_its_time():
    pool = FakePool()
    async with serving(pool, limits=Limits(pause=0.05)) as url:
        assert outcome(await said_to(url, post(BODY[:9], 99))) == (408, "request_timeout")
    assert not pool.requests


async def test_a_body_that_trickles_in_has_an_end_to_its_time():
    async with serving(FakePool(), limits=Limits(pause=60, body=0.1)) as url:
        answer = await said_to(url, post(b"", 9999), trickle=b" ")
        assert outcome(answer) == (408, "request_timeout")


async def test_a_body_that_nobody_reads_does_not_hold_the_connection():
    half = GET.replace(b"\r\n\r\n", b"\r\ncontent-length: 99\r\n\r\n")
    async with serving(FakePool(), limits=Limits(pause=0.05)) as url:
        assert (await said_to(url, half)).endswith(b'{"status":"ok"}')


async def test_a_body_that_comes_after_its_answer_leaves_an_idle_connection():
    early = b"PUT /nothing HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n"
    limits = Limits(idle=0.05)
    async with serving(FakePool(), limits=limits) as url, connected(url) as (reader, writer):
        writer.write(early)
        assert (await reader.readline()).startswith(b"HTTP/1.1 404")
        writer.write(b"x" * 9)
        await asyncio.wait_for(reader.read(), 10)


async def test_a_body_longer_than_it_says_is_two_requests_and_both_are_wrong():
    async with serving(FakePool()) as url:
        answers = await said_to(url, post(BODY, len(BODY) - 1) + b"\r\n\r\n")
    first, second = answers.split(b"HTTP/1.1 400")[1:]
    assert b"not valid JSON" in first
    assert outcome(b"HTTP/1.1 400" + second) == (400, "bad_http")


@pytest.mark.parametrize(
    "wrong",
    [
        b"\x16\x03\x01\x00\xa5\x01 hello\r\n\r\n",
        POST + b"content-length: 1\r\ncontent-length: 2\r\n\r\n",
        POST + b"transfer-encoding: chunked\r\n\r\nnot a number\r\n",
    ],
)
async def test_what_is_no_http_is_refused(wrong):
    async with serving(FakePool()) as url:
        assert outcome(await said_to(url, wrong)) == (400, "bad_http")


@pytest.mark.parametrize(("fields", "size"), [(100, 0), (101, 0), (10, 16 << 10), (1, 300 << 10)])
async def test_a_header_has_a_bounded_size_however_it_comes(fields, size):
    names = b"".join(b"x%d: y\r\n" % n for n in range(fields - 2))
    whole = GET[:-2] + names + b"x: " + b"y" * size + b"\r\n\r\n"
    async with serving(FakePool(), limits=Limits(idle=0)) as url:
        for pieces in ([whole], [whole[:999], whole[999:]]):
            answer = await said_to(url, *pieces)
            if (fields, size) == (100, 0):
                assert answer.startswith(b"HTTP/1.1 200")
            else:
                assert outcome(answer) == (431, "header_too_large")


NOISE = [b"\r\n", b"\n", b"\0", b" ", b":", b"\xff", b"0\r\n\r\n", b"content-length: 0\r\n"]
NOISE += [
    b"transfer-encoding: chunked\r\n",
    b"upgrade: x\r\n",
    b"HTTP/1.0",
    b"connection: upgrade\r\n",
]


def damaged(seed):
    """A request or two with some bytes too many, too few or different."""
    dice = random.Random(seed)
    chunked = POST + b'transfer-encoding: chunked\r\n\r\n5\r\n{"a":\r\n2\r\n1}\r\n0\r\n\r\n'
    text = bytearray(dice.choice([post(BODY), GET, chunked, post(BODY) + GET, chunked + GET]))
    for _ in range(dice.randint(1, 4)):
        at, length = dice.randrange(len(text)), dice.choice([0, 0, 1, 9])
        text[at : at + length] = dice.choice(NOISE)
    return bytes(text)


async def test_whatever_is_sent_is_answered_or_closed_and_never_breaks_the_server(caplog):
    limits = Limits(header=0.05, idle=0.05, pause=0.05, body=0.1)
    async with serving(FakePool(), limits=limits) as url:
        for start in range(0, 300, 30):
            seeds = range(start, start + 30)
            answers = await asyncio.gather(*(said_to(url, damaged(seed)) for seed in seeds))
            assert not [answer for answer in answers if answer.startswith(b"HTTP/1.1 5")]
    assert not caplog.records


async def test_requests_in_one_piece_are_answered_in_turn():
    async with serving(FakePool(), limits=Limits(idle=0.05)) as url:
        answers = await said_to(url, post(BODY) + GET + GET)
    assert answers.count(b"HTTP/1.1 200") == 3
    assert answers.index(b"Hello") < answers.index(b'"status"')


async def test_one_connection_too_many_is_told_so_until_another_leaves():
    last = GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    async with serving(FakePool(), limits=Limits(connections=1)) as url:
        async with connected(url) as (reader, writer):
            writer.write(GET)
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
            answer = await said_to(url)
            assert outcome(answer) == (503, "too_many_connections")
            assert b"retry-after" in answer
        async with asyncio.timeout(10):
            while b" 503 " in await said_to(url, last):
                pass


def test_one_address_does_not_take_the_place_of_all_others():
    door = Door(Limits(connections=9, per_address=2))
    assert [door.enter("10.0.0.1") for _ in range(3)] == [True, True, False]
    assert [door.enter("::ffff:127.0.0.1") for _ in range(3)] == [True] * 3
    door.leave("10.0.0.1")
    assert door.enter("10.0.0.1") and door.enter("fe80::1%eth0")
    assert [door.enter("127.0.0.1") for _ in range(4)] == [True, True, True, False]


def test_there_are_never_more_connections_than_descriptors():
    code = (
        "import resource as r; from api.connection import *\n"
        "r.setrlimit(r.RLIMIT_NOFILE, (128, 512)); print(allowed_by_system(Limits()))\n"
        "print(r.getrlimit(r.RLIMIT_NOFILE)[0])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["448", "512"]
    assert allowed_by_system(Limits(connections=1)) == 1


async def test_a_crowd_that_does_nothing_leaves_no_trace():
    pool = FakePool()
    async with serving(pool, limits=Limits(header=1.0, pause=1.0)) as url:
        openings = [b"", POST, post(BODY[:9], 99)] * 70
        crowd = asyncio.gather(*(said_to(url, opening) for opening in openings))
        async with httpx.AsyncClient() as client:
            json = {"Content-Type": "application/json"}
            assert (await client.post(url + CHAT, content=BODY, headers=json)).status_code == 200
        answers = await crowd
    assert [answer[9:12] for answer in answers] == [b"", b"408", b"408"] * 70
    assert len(pool.requests) == 1


def unread(url, request, room=4096):
    """A socket with `room` for bytes, on which `request` was sent and nothing is read."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    parts = urlsplit(url)
    sock.connect((parts.hostname, parts.port))
    sock.sendall(request)
    return sock


def broken(sock):
    """Wait until the other side breaks off, without reading."""
    poll = select.poll()
    poll.register(sock, 0)
    return poll.poll(10_000)


class Talker(FakePool):
    """Tells without end, and counts."""

    told = 0

    async def generate(self, request):
        yield Started(7)
        try:
            while True:
                await asyncio.sleep(0)
                self.told += 1
                yield TextDelta(0, "x" * (16 << 10))
        finally:
            self.cancelled.set()


async def test_a_stream_that_nobody_reads_is_held_back_and_then_cut_off():
    pool = Talker()
    body = BODY[:-1] + b', "stream": true}'
    async with serving(pool, limits=Limits(stall=0.3)) as url:
        with unread(url, post(body)) as sock:
            await asyncio.wait_for(pool.cancelled.wait(), 10)
            assert await asyncio.to_thread(broken, sock)
    assert pool.told * (16 << 10) <= 256 << 10


async def test_an_answer_that_nobody_reads_does_not_hold_its_connection():
    pool = FakePool([Started(7), TextDelta(0, "x" * (4 << 20)), end()])
    async with serving(pool, limits=Limits(stall=0.2)) as url:
        with unread(url, post(BODY)) as sock:
            assert await asyncio.to_thread(broken, sock)


async def test_who_reads_slowly_but_steadily_gets_everything():
    pool = FakePool([Started(7), TextDelta(0, "x" * (2 << 20)), end()])
    body = BODY[:-1] + b', "stream": true}'
    async with serving(pool, limits=Limits(stall=1.5)) as url:
        with unread(url, post(body), room=32 << 10) as sock:
            sock.setblocking(False)
            answer = b""
            while not answer.endswith(b"[DONE]\n\n\r\n0\r\n\r\n"):
                answer += await asyncio.get_running_loop().sock_recv(sock, 32 << 10)
                await asyncio.sleep(0.05)
    assert answer.count(b"x") >= 2 << 20
