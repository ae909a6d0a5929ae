"""Streams that go on after their connection was lost."""

import asyncio
import json
import random

import httpx
import pytest

from api.errors import StreamGone, UnknownStream
from api.tape import Archive
from inference import Overloaded, Pool, Started, TextDelta
from tests.fake_pool import FakePool, end, serving

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "Tell me a story."}], "stream": True}
RESUMABLE = BODY | {"resumable": True}
LONG = {"max_tokens": 600, "ignore_eos": True, "temperature": 0, "enable_thinking": False}


def parsed(text: str) -> list[tuple[str, str]]:
    """Id and data of every whole event."""
    events = []
    for frame in text.split("\n\n")[:-1]:
        lines = dict(line.split(": ", 1) for line in frame.split("\n") if not line.startswith(":"))
        if lines:
            events.append((lines["id"], lines["data"]))
    return events


def said(events: list[tuple[str, str]]) -> str:
    chunks = [json.loads(data) for _, data in events if data != "[DONE]"]
    return "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])


async def cut(client, method, url, size=None, **kwargs) -> list[tuple[str, str]]:
    """The events of a stream whose connection is closed after about so many bytes."""
    text = ""
    async with client.stream(method, url, **kwargs) as response:
        assert response.status_code == 200, await response.aread()
        async for part in response.aiter_raw():
            text += part.decode()
            if size is not None and len(text) >= size:
                break
    return parsed(text[:size])


async def test_a_stream_cut_fifty_times_is_whole(deployment):
    rng, pool = random.Random(1), Pool(deployment)
    async with serving(pool) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        await pool.until_ready()
        events = await cut(client, "POST", CHAT, 700, json=RESUMABLE | LONG)
        cuts = 1
        while events[-1][1] != "[DONE]":
            headers = {"Last-Event-ID": events[-1][0]}
            size = rng.randrange(100, 500) if cuts < 55 else None
            if cuts % 2:
                events += await cut(client, "POST", CHAT, size, json={}, headers=headers)
            else:
                stream = events[-1][0].partition(":")[0]
                path = f"/v1/streams/{stream}"
                events += await cut(client, "GET", path, size, headers=headers)
            cuts += 1
        again = await client.get(f"/v1/streams/{stream}")
    assert cuts > 50
    assert events == parsed(again.text)
    assert [id for id, _ in events] == [f"{stream}:{n + 1}" for n in range(len(events))]
    assert json.loads(events[-2][1])["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    "asked", [{"json": RESUMABLE}, {"json": BODY, "headers": {"X-Resumable": "true"}}]
)
async def test_it_is_asked_for_in_the_body_or_by_a_header_and_read_again_from_anywhere(asked):
    async with serving(FakePool()) as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.post(CHAT, **asked)
        events = parsed(response.text)
        stream = response.headers["x-stream-id"]
        assert [id for id, _ in events] == [f"{stream}:{n}" for n in range(1, len(events) + 1)]
        path = f"/v1/streams/{stream}"
        for after in range(len(events) + 1):
            again = await client.get(path, params={"starting_after": after})
            assert parsed(again.text) == events[after:]


async def test_hanging_up_cancels_only_what_is_not_resumable():
    for body, cancelled in ((BODY, True), (RESUMABLE, False)):
        going = asyncio.Event()
        pool = FakePool([Started(7), TextDelta(0, "Hel"), going, TextDelta(0, "lo"), end()])
        async with serving(pool) as url, httpx.AsyncClient(base_url=url) as client:
            async with client.stream("POST", CHAT, json=body) as response:
                await pool.waiting.wait()
                stream = response.headers.get("x-stream-id")
            if cancelled:
                assert await asyncio.wait_for(pool.cancelled.wait(), 10)
                assert stream is None
                continue
            going.set()
            events = parsed((await client.get(f"/v1/streams/{stream}")).text)
            assert said(events) == "Hello" and events[-1][1] == "[DONE]"
            assert not pool.cancelled.is_set()


async def test_a_stream_can_be_cancelled_and_its_reader_is_told():
    pool = FakePool([Started(7), TextDelta(0, "Hel"), asyncio.Event()])
    async with serving(pool) as url, httpx.AsyncClient(base_url=url) as client:
        async with client.stream("POST", CHAT, json=RESUMABLE) as response:
            await pool.waiting.wait()
            path = f"/v1/streams/{response.headers['x-stream-id']}"
            assert (await client.delete(path)).status_code == 204
            *_, failure, done = parsed((await response.aread()).decode())
        assert await asyncio.wait_for(pool.cancelled.wait(), 10)
        assert (json.loads(failure[1])["error"]["code"], done[1]) == ("not_ready", "[DONE]")
        assert (await client.get(path)).status_code == 404
        assert (await client.delete(path)).status_code == 404


@pytest.mark.parametrize(
    ("id", "status"),
    [("chatcmpl-0:1", 404), ("chatcmpl-0:x", 400), ("", 200), ("nonsense", 400), (":", 400)],
)
async def test_the_id_of_no_event_is_refused(id, status):
    async with serving(FakePool()) as url, httpx.AsyncClient(base_url=url) as client:
        assert (
            await client.post(CHAT, json=BODY, headers={"Last-Event-ID": id})
        ).status_code == status


async def test_an_event_that_is_still_to_come_is_refused():
    async with serving(FakePool()) as url, httpx.AsyncClient(base_url=url) as client:
        events = parsed((await client.post(CHAT, json=RESUMABLE)).text)
        id, _, number = events[-1][0].partition(":")
        late = {"Last-Event-ID": f"{id}:{int(number) + 1}"}
        assert (await client.get(f"/v1/streams/{id}", headers=late)).status_code == 400


class Telling:
    """A source of frames that a test hands out."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[bytes] = asyncio.Queue()
        self.closed = asyncio.Event()

    async def frames(self):
        while (data := await self.told.get()) != b"[DONE]":
            yield [b"data: %b\n\n" % data]
        yield [b"data: %b\n\n" % data]

    def cut_off(self):
        return [b"data: cut off\n\n"]

    async def aclose(self):
        self.closed.set()


async def heard(archive, tape, after=0):
    return b"".join([events async for events in archive.read(tape, after)])


async def test_what_nobody_reads_is_cancelled_and_forgotten():
    archive, source = Archive(keep=0), Telling()
    archive.record("one", "", source)
    await source.closed.wait()
    with pytest.raises(UnknownStream):
        archive.find("one", "")


async def test_what_somebody_reads_is_kept():
    archive, source = Archive(keep=0), Telling()
    tape = archive.record("one", "", source)
    reader = archive.read(tape, 0)
    source.told.put_nowait(b"a")
    assert await anext(reader) == b"id: one:1\ndata: a\n\n"
    for _ in range(5):
        await asyncio.sleep(0)
    assert archive.find("one", "") is tape and not source.closed.is_set()
    await reader.aclose()
    await source.closed.wait()


async def test_tapes_are_bounded_in_number_and_size(monkeypatch):
    monkeypatch.setattr("api.tape.MAX_BYTES", 100)
    archive, sources = Archive(most=2), [Telling() for _ in range(2)]
    first, _ = (archive.record(str(i), "", source) for i, source in enumerate(sources))
    reader = archive.read(first, 0)
    for chunk in [b"%d" % i for i in range(20)] + [b"[DONE]"]:
        sources[0].told.put_nowait(chunk)
    await first.recording
    with pytest.raises(StreamGone):
        await anext(reader)
    assert await heard(archive, first, 20) == b"id: 0:21\ndata: [DONE]\n\n"
    reading = archive.read(first, 20)
    await anext(reading)
    archive.make_room()  # forgets the one that nobody reads
    await sources[1].closed.wait()
    with pytest.raises(UnknownStream):
        archive.find("1", "")
    archive.record("2", "", Telling())
    reading_too = archive.read(archive.find("2", ""), 0)
    waiting = asyncio.create_task(anext(reading_too))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        archive.make_room()
    archive.close()
    assert await waiting == b"id: 2:1\ndata: cut off\n\n"
    await reading.aclose()


async def test_a_stream_belongs_to_who_asked_for_it():
    archive = Archive()
    tape = archive.record("one", "ada", Telling())
    assert archive.find("one", "ada") is tape
    for other in ("", "bob"):
        with pytest.raises(UnknownStream):
            archive.find("one", other)
    archive.close()
    await asyncio.wait({tape.recording})
