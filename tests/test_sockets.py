"""WebSockets on a connection: what may be sent, how much, how fast, and how they come to an end."""

import asyncio

import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from api.connection import Limits
from api.websocket_connection import MAX_FRAMES, MAX_MESSAGE
from tests.echo import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    answer_to,
    frame,
    hearing,
    opened,
    raw,
    talk,
    upgrade,
)
from tests.test_connections import broken, unread


async def end_of(socket):
    """The code with which the server closes."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            await socket.recv()
    return closed.value.rcvd.code


def frame_of_server(opcode, payload):
    return bytes([0x80 | opcode, len(payload)]) + payload


async def test_what_is_said_is_heard_in_one_piece_or_several():
    async with hearing() as (url, _), talk(url) as socket:
        for text in ("", "Hi", "语" * 50_000, "x" * MAX_MESSAGE):
            await socket.send(text)
            assert await socket.recv() == text
        await socket.send(["He", "", "llo"])
        assert await socket.recv() == "Hello"


async def test_a_character_may_be_split_between_fragments_and_pings_come_between():
    async with hearing() as (url, _), opened(url) as one:
        first, rest = "é".encode()[:1], "é".encode()[1:]
        one.send(frame(TEXT, first, whole=False), frame(PING, b"now"), frame(CONT, rest))
        assert await one.frame() == (PONG, b"now")
        assert await one.frame() == (TEXT, "é".encode())


async def test_frames_that_come_with_the_handshake_are_not_lost():
    async with hearing() as (url, _), raw(url, upgrade(), frame(TEXT, b"early")) as one:
        assert " 101 " in await one.head()
        assert await one.frame() == (TEXT, b"early")


WRONG = [
    (frame(3, b"x"), 1002),
    (frame(TEXT, b"x", whole=False) + frame(TEXT, b"y"), 1002),
    (frame(CONT, b"x"), 1002),
    (b"\x81\x01x", 1002),  # not masked
    (b"\xc1" + frame(TEXT, b"x")[1:], 1002),  # an extension that was not agreed on
    (frame(PING, b"x", whole=False), 1002),
    (frame(PING, b"x" * 126), 1002),
    (frame(CLOSE, b"\x00"), 1002),
    (frame(CLOSE, b"\x03\xec"), 1002),  # 1004 is nothing to say
    (b"GET / HTTP/1.1\r\n\r\n", 1002),
    (frame(BINARY, b"x"), 1003),
    (frame(BINARY, b"x", whole=False), 1003),
    (frame(TEXT, b"\xff"), 1007),
    (frame(TEXT, "\ud800".encode(errors="surrogatepass")), 1007),
    (frame(TEXT, b"\xc3", whole=False) + frame(CONT, b"x"), 1007),
    (frame(TEXT, size=MAX_MESSAGE + 1), 1009),
    (frame(TEXT, size=2**63 - 1), 1009),
    (frame(TEXT, b"x" * 600_000, whole=False) + frame(CONT, b"x" * 600_000), 1009),
]


async def test_what_is_wrong_is_told_by_its_code_and_not_logged(caplog):
    async with hearing() as (url, _):
        for frames, code in WRONG:
            async with opened(url) as one:
                one.send(frames)
                assert await one.code() == code, frames[:9]
    assert not caplog.records


async def test_who_still_sends_is_told_that_it_was_too_much():
    async with hearing() as (url, _), opened(url) as one:
        one.send(frame(TEXT, b"x" * (8 << 20)))
        assert await one.code() == 1009


async def test_frames_without_end_are_not_taken():
    empty = frame(CONT, whole=False)
    async with hearing() as (url, _):
        for first, rest in (
            (b"", frame(PING)),
            (b"", frame(PONG)),
            (frame(TEXT, whole=False), empty),
        ):
            async with opened(url) as one:
                one.send(first, rest * (MAX_FRAMES + 1))
                assert await one.code() == 1002


async def test_who_reads_no_pongs_is_held_back_and_gets_the_last_one():
    async with hearing() as (url, server):
        with unread(url, upgrade()) as sock:
            sock.setblocking(False)
            while not (connections := server._sockets) or not connections[0].handshake_complete:
                await asyncio.sleep(0.01)
            [connection], loop, sent = connections, asyncio.get_running_loop(), 0
            while connection.writable.is_set():
                await loop.sock_sendall(sock, frame(PING, b"x" * 125) * 100)
                await asyncio.sleep(0.01)
                sent += 100
            waiting = connection.transport.get_write_buffer_size()
            await loop.sock_sendall(sock, frame(PING, b"y" * 125) * 500 + frame(PING, b"last"))
            while connection._pong != frame_of_server(PONG, b"last"):
                await asyncio.sleep(0.01)
            assert connection.transport.get_write_buffer_size() == waiting
            heard = b""
            while not heard.endswith(b"last"):
                heard += await asyncio.wait_for(loop.sock_recv(sock, 1 << 16), 10)
    assert heard.count(b"x" * 125) == sent and b"y" not in heard.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("half", [frame(TEXT, b"x", size=9), frame(TEXT, b"x", whole=False)])
async def test_half_a_message_is_waited_for_no_longer_than_its_time(half):
    async with hearing(limits=Limits(body=0.05)) as (url, _), opened(url) as one:
        one.send(half)
        assert await one.code() == 1008


async def test_the_time_of_a_message_is_its_own():
    async with hearing(limits=Limits(body=1)) as (url, _), opened(url) as one:
        half = frame(TEXT, b"x", whole=False)
        one.send(half)
        for _ in range(12):  # there is always half of one
            await asyncio.sleep(0.1)
            one.send(frame(CONT, b"y"), half)
            assert await one.frame() == (TEXT, b"xy")


async def test_halves_of_messages_have_a_bound_together(monkeypatch):
    monkeypatch.setattr("api.connection._MOST_HELD", 1000)
    async with hearing() as (url, server), opened(url) as one, opened(url) as other:
        one.send(frame(TEXT, b"x" * 600, whole=False))
        while not (held := [c._held for c in server._sockets if c._held]):
            await asyncio.sleep(0.01)
        assert held == [601]
        other.send(frame(TEXT, b"x" * 600, whole=False))
        assert await other.code() == 1013
        one.send(frame(CONT, b"x"))
        assert await one.frame() == (TEXT, b"x" * 601)


async def test_who_answers_pings_stays_and_who_does_not_goes():
    limits = Limits(heartbeat=0.5)
    async with hearing(limits=limits) as (url, _), talk(url) as socket, opened(url) as mute:
        assert (await mute.frame())[0] == PING
        assert await mute.code() == 1011
        await socket.send("still here")
        assert await socket.recv() == "still here"


async def test_who_is_not_read_is_not_said_to_be_silent():
    async with hearing(limits=Limits(heartbeat=0.1)) as (url, _), talk(url) as socket:
        await socket.send("sleep")
        await socket.send("after")
        assert [await socket.recv() for _ in range(2)] == ["sleep", "after"]


async def test_who_takes_nothing_is_cut_off():
    async with hearing(limits=Limits(stall=0.3)) as (url, server):
        with unread(url, upgrade() + frame(TEXT, b"flood")) as sock:
            assert await asyncio.to_thread(broken, sock)
        while server.server_state.connections or server.server_state.tasks:
            await asyncio.sleep(0.01)


async def test_a_flood_waits_for_who_reads():
    async with hearing() as (url, server), talk(url, max_queue=1, close_timeout=0) as socket:
        await socket.send("flood")
        for _ in range(100):
            await socket.recv()
        [connection] = server._sockets
        assert connection.transport.get_write_buffer_size() <= 32 << 10


async def test_an_end_of_the_endpoint_is_told():
    async with hearing() as (url, _), talk(url) as socket:
        await socket.send("leave")
        assert await end_of(socket) == 1000


async def test_a_bug_of_the_endpoint_is_told_and_logged(caplog):
    async with hearing() as (url, _), talk(url) as socket:
        await socket.send("break")
        assert await end_of(socket) == 1011
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]


NO_HANDSHAKES = [
    upgrade("/ws/echo", "Sec-WebSocket-Version: 12"),
    upgrade("/ws/echo", "Sec-WebSocket-Key: short"),
    upgrade("/ws/echo", "Connection: Upgrade, Upgrade:"),
    upgrade("/ws/echo", "Content-Length: 5"),
    upgrade("/ws/echo", "Transfer-Encoding: chunked"),
    upgrade().replace(b"GET", b"POST"),
    upgrade().replace(b"HTTP/1.1", b"HTTP/1.0"),
]


async def test_what_is_no_handshake_is_refused(caplog):
    async with hearing() as (url, _):
        for handshake in NO_HANDSHAKES:
            answer = await answer_to(url, handshake)
            assert answer.startswith("http/1.1 400 ") and '"bad_http"' in answer
            assert "content-security-policy" in answer
    assert not caplog.records


async def test_there_is_no_other_websocket(caplog):
    async with hearing() as (url, _):
        for path in ("/", "/health", "/v1/models", "/nothing", "/ws/", "/ws/nothing"):
            answer = await answer_to(url, upgrade(path))
            assert answer.startswith("http/1.1 404 ") and '"unknown_url"' in answer
            assert "content-security-policy" in answer and "nosniff" in answer
    assert not caplog.records


async def test_messages_are_not_compressed():
    async with hearing() as (url, _), talk(url) as socket:
        assert "Sec-WebSocket-Extensions" in socket.request.headers
        assert "Sec-WebSocket-Extensions" not in socket.response.headers


async def test_a_websocket_may_follow_requests_on_a_connection():
    get = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
    limits = Limits(idle=0, header=0.1, pause=0.1, body=0.1)
    async with hearing(limits=limits) as (url, _), raw(url, get, get, upgrade()) as one:
        for _ in range(2):
            assert " 200 " in await one.head()
            await one.reader.readexactly(len('{"status":"ok"}'))
        assert " 101 " in await one.head()
        await asyncio.sleep(0.3)  # longer than HTTP has patience
        one.send(frame(TEXT, b"Hi"))
        assert await one.frame() == (TEXT, b"Hi")


async def test_a_websocket_has_one_place_at_the_door_until_it_is_gone():
    async with hearing(limits=Limits(connections=2)) as (url, _):
        async with talk(url), talk(url):
            with pytest.raises(InvalidStatus) as refusal:
                await talk(url)
            assert refusal.value.response.status_code == 503
        async with asyncio.timeout(20):
            while True:
                try:
                    async with talk(url):
                        break
                except InvalidStatus:
                    pass


async def drop(url, number):
    """One of the ways in which clients leave."""
    match number % 6:
        case 0:
            async with talk(url) as socket:
                await socket.send("Hi")
                await socket.recv()
        case 1:
            async with opened(url) as one:
                one.writer.transport.abort()
        case 2:
            async with opened(url) as one:
                one.send(frame(TEXT, b"half", whole=False))
        case 3:
            async with raw(url, upgrade()):
                pass
        case 4:
            async with opened(url) as one:
                one.send(frame(TEXT, b"Hi") * 9, frame(3))
                one.writer.transport.abort()
        case 5:
            async with raw(url, upgrade("/nothing")) as one:
                await one.head()


async def test_a_thousand_that_come_and_go_leave_nothing_behind():
    async with hearing(limits=Limits(connections=60)) as (url, server):
        await drop(url, 0)
        before = psutil.Process().num_fds()
        for start in range(0, 1000, 50):
            await asyncio.gather(*(drop(url, n) for n in range(start, start + 50)))
            async with asyncio.timeout(20):
                while server.server_state.connections or server.server_state.tasks:
                    await asyncio.sleep(0.001)
        door = server.config.http.keywords["door"]
        assert (door._total, door._held, dict(door._inside)) == (0, 0, {})
        async with asyncio.timeout(20):  # the clients' own
            while psutil.Process().num_fds() > before:
                await asyncio.sleep(0.01)
