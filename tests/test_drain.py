"""How a server stops: what it still answers, what it finishes, how the rest ends, what is left."""

import asyncio
import json
import re
import signal
import sys
from contextlib import asynccontextmanager

import httpx
import psutil
import pytest

from inference import Started, TextDelta
from tests.fake_pool import FakePool, end, post_head, served

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "Hi"}]}
STREAM = {**BODY, "stream": True}
STREAMS = 32
COMMAND = [sys.executable, "-c", "from api.cli import app; app()", "serve", "--port", "0"]
CONFIG = """
server: {drain_seconds: 2}
models: {demo: {bundled: qwen3-demo, aliases: [default], slots: 8, context: 8192}}
"""


def ending(text):
    """The code of the error that a stream ended with, or why it finished."""
    *_, last, done = (frame.removeprefix("data: ") for frame in text.strip().split("\n\n"))
    assert done == "[DONE]"
    chunk = json.loads(last)
    return chunk["error"]["code"] if "error" in chunk else chunk["choices"][0]["finish_reason"]


@asynccontextmanager
async def busy(body, drain, *rest):
    """A server, a client and its request, which waits for an event; then `rest` is played."""
    going = asyncio.Event()
    pool = FakePool([Started(7), TextDelta(0, "Hel"), going, *rest])
    async with served(pool, drain) as (url, server), httpx.AsyncClient(base_url=url) as client:
        request = asyncio.create_task(client.post(CHAT, json=body))
        await asyncio.wait_for(pool.waiting.wait(), 10)
        yield server, client, request, going


async def test_a_server_that_stops_says_so_and_finishes_what_runs():
    rest = TextDelta(0, "lo"), end()
    async with busy(STREAM, 60, *rest) as (server, client, request, going):
        before = (await client.get("/ready")).status_code
        server.stop()
        ready, metrics = await client.get("/ready"), await client.get("/metrics")
        assert (before, ready.status_code, ready.json()["status"]) == (200, 503, "draining")
        assert "onebox_ready 0.0" in metrics.text
        assert (await client.get("/health")).status_code == 200
        refused = await client.post(CHAT, json=BODY)
        assert refused.status_code == 503
        assert refused.headers["connection"] == "close"
        assert int(refused.headers["retry-after"]) > 1
        going.set()
        answer = (await request).text
        assert "lo" in answer and ending(answer) == "stop"


@pytest.mark.parametrize("stops", [(0,), (60, 60)], ids=["out of time", "told twice"])
async def test_what_still_runs_in_the_end_ends_with_an_error(stops):
    for body in (STREAM, BODY):
        async with busy(body, stops[0]) as (server, _, request, _):
            for _ in stops:
                server.stop()
            answer = await request
        if body is STREAM:
            assert ending(answer.text) == "not_ready"
        else:
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")


async def test_a_request_that_is_still_being_sent_is_refused_in_the_end():
    async with served(FakePool(), drain=0) as (url, server):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[-1]))
        writer.write(post_head(CHAT, "Content-Length: 9") + b"{")
        while not server.server_state.tasks:
            await asyncio.sleep(0)
        server.stop()
        assert (await reader.read()).startswith(b"HTTP/1.1 503")
        writer.close()


async def test_neither_idle_clients_nor_those_that_do_not_read_hold_a_server_up():
    whole = [Started(7), TextDelta(0, "x" * (8 << 20)), end()]
    async with served(FakePool(whole), drain=60) as (url, server):
        body = json.dumps(BODY).encode()
        head = post_head(CHAT, f"Content-Length: {len(body)}")
        openings = b"", b"GET", b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n", head + body
        opened = []
        for opening in openings:
            _, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[-1]), limit=1)
            writer.write(opening)
            opened.append(writer)
        while not any(c.flow.write_paused for c in server.server_state.connections):
            await asyncio.sleep(0.01)
        server.stop()
        server.stop()
    assert not server.server_state.connections
    for writer in opened:
        writer.close()


@asynccontextmanager
async def onebox(tmp_path):
    """The address of a real server on the bundled model, drained in 2 seconds, and its process."""
    config = tmp_path / "models.yaml"
    config.write_text(CONFIG)
    pipe = asyncio.subprocess.PIPE
    command = [*COMMAND, "--config", str(config)]
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    try:
        printed = await asyncio.wait_for(process.stdout.readuntil(b"curl "), 60)
        yield re.search(rb"http://[\d.:]+", printed).group().decode(), process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def streams_of(url, count):
    """So many requests for long answers, once all of them have begun."""
    begun = asyncio.Semaphore(0)
    body = {**STREAM, "ignore_eos": True, "max_tokens": 1000}

    async def read():
        text = ""
        client = httpx.AsyncClient(base_url=url, timeout=120)
        async with client, client.stream("POST", CHAT, json=body) as answer:
            begun.release()
            async for piece in answer.aiter_text():
                text += piece
        return text

    tasks = [asyncio.create_task(read()) for _ in range(count)]
    async with asyncio.timeout(120):
        for _ in tasks:
            await begun.acquire()
    return tasks


async def test_sigterm_under_load_ends_every_stream_and_leaves_no_process(tmp_path):
    async with onebox(tmp_path) as (url, process):
        workers = psutil.Process(process.pid).children(recursive=True)
        tasks = await streams_of(url, STREAMS)
        process.send_signal(signal.SIGTERM)
        endings = [ending(await task) for task in tasks]
        assert await asyncio.wait_for(process.wait(), 120) == 0
        assert workers and not any(worker.is_running() for worker in workers)
    assert set(endings) <= {"length", "not_ready"} and len(endings) == STREAMS


async def test_a_worker_that_dies_while_the_server_stops_holds_nothing_up(tmp_path):
    async with onebox(tmp_path) as (url, process):
        [worker] = psutil.Process(process.pid).children()
        tasks = await streams_of(url, 4)
        process.send_signal(signal.SIGTERM)
        worker.kill()
        endings = {ending(await task) for task in tasks}
        assert await asyncio.wait_for(process.wait(), 30) == 0
    assert endings <= {"length", "not_ready"}


async def test_no_worker_outlives_a_server_that_is_killed(tmp_path):
    async with onebox(tmp_path) as (_, process):
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        _, left = await asyncio.to_thread(psutil.wait_procs, workers, 30)
        assert workers and not left


async def test_a_server_that_is_stopped_while_it_loads_ends_well():
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*COMMAND, "qwen3-demo", stdout=pipe, stderr=pipe)
    async with asyncio.timeout(60):
        while not psutil.Process(process.pid).children():
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, stderr = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, stderr) == (0, b"")
