"""How WebSockets end when the server does: at once where nothing runs, else with their answer."""

import asyncio
import json

import pytest
from websockets.exceptions import ConnectionClosed

from inference import Started, TextDelta
from tests.echo import TEXT, frame, hearing, opened, talk, upgrade
from tests.fake_pool import FakePool, end
from tests.test_connections import unread

JSON = "/ws?protocol=json"


async def rest_of(socket):
    """What still comes, and the code that the server closes with."""
    heard = []
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            heard.append(await asyncio.wait_for(socket.recv(), 10))
    return heard, closed.value.rcvd.code


async def test_idle_connections_hold_no_stop_up_and_are_told(caplog):
    async with hearing(drain=60) as (url, server), talk(url) as idle, talk(url, "/ws") as used:
        await idle.send("Hi")
        assert await idle.recv() == "Hi"
        await used.send('{"message": "Hi"}')
        while await used.recv():
            pass
        server.stop()
        assert await rest_of(idle) == ([], 1012)
        assert await rest_of(used) == ([], 1012)
        assert not caplog.records  # nothing runs that would have to be finished


async def test_an_answer_that_runs_is_finished_first():
    async with hearing(drain=60) as (url, server), talk(url, "/ws/answer") as busy:
        await busy.send("1")
        assert await busy.recv() == "begun"
        server.stop()
        await asyncio.sleep(0.5)
        assert not server.should_exit
        await busy.send("on")
        assert await rest_of(busy) == (["done 1"], 1012)


@pytest.mark.parametrize("stops", [(0,), (60, 60)], ids=["out of time", "told twice"])
async def test_what_still_runs_in_the_end_may_say_so(stops):
    async with hearing(drain=stops[0]) as (url, server), talk(url, "/ws/last") as busy:
        assert await busy.recv() == "begun"
        for _ in stops:
            server.stop()
        assert await rest_of(busy) == (["it has ended"], 1012)


async def test_a_turn_of_the_gateway_is_finished_or_says_why_not():
    for drain, ending in ((60, "end"), (0, "error")):
        going = asyncio.Event()
        pool = FakePool([Started(7), TextDelta(0, "Hel"), going, TextDelta(0, "lo"), end()])
        async with hearing(pool, drain=drain) as (url, server), talk(url, JSON) as socket:
            await socket.send('{"message": "Hi"}')
            assert [json.loads(await socket.recv())["type"] for _ in range(2)] == ["start", "text"]
            server.stop()
            if drain:
                going.set()
            heard, code = await rest_of(socket)
            assert (json.loads(heard[-1])["type"], code) == (ending, 1012)


async def test_who_comes_while_the_server_stops_is_sent_away():
    async with hearing(drain=60) as (url, server), talk(url, "/ws/answer") as busy:
        await busy.send("1")
        assert await busy.recv() == "begun"
        server.stop()
        async with talk(url) as late:
            assert await rest_of(late) == ([], 1012)
        await busy.send("on")
        assert await rest_of(busy) == (["done 1"], 1012)


async def test_neither_who_does_not_read_nor_who_does_not_close_holds_a_server_up():
    async with hearing(drain=60) as (url, server), opened(url):
        with unread(url, upgrade() + frame(TEXT, b"flood")):
            while all(connection.writable.is_set() for connection in server._sockets):
                await asyncio.sleep(0.01)
            async with asyncio.timeout(20):
                server.stop()
                while not server.should_exit:
                    await asyncio.sleep(0.01)
    assert not server.server_state.connections and not server.server_state.tasks
