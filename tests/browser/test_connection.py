"""The page while the way to its server, or the server itself, comes and goes."""

import asyncio
import json
import signal

import httpx
import psutil
import pytest
from playwright.async_api import expect

from inference import Started, TextDelta, WorkerLost
from tests.browser.cable import cable_to
from tests.fake_pool import FakePool, end, serving
from tests.talking import session, talking
from tests.test_restart import config, started  # noqa: F401 - a fixture

pytestmark = pytest.mark.asyncio(loop_scope="session")

EXPECTED = ("WebSocket connection", "Failed to load resource")


async def test_a_lost_connection_is_told_and_the_answer_taken_up_again(person):
    gate, last = asyncio.Event(), asyncio.Event()
    script = [Started(7), TextDelta(0, "One "), gate, TextDelta(0, "two "), last, end()]
    async with serving(FakePool(script)) as server, cable_to(server) as (url, cable):
        person.forgive(*EXPECTED)
        await person.open(url)
        await person.say("Count")
        await expect(person.answers).to_contain_text("One")
        cable.cut()
        await expect(person.see("#banner")).to_contain_text("The answer goes on at the server")
        gate.set()
        cable.mend()
        await expect(person.answers).to_contain_text("One two")
        await expect(person.see("#banner .banner")).to_have_count(0)
        last.set()
        await person.answered("One two")
        assert await person.answers.locator(".answer > .markdown").inner_text() == "One two"


async def test_an_answer_that_ended_meanwhile_is_there(person):
    gate = asyncio.Event()
    pool = FakePool([Started(7), TextDelta(0, "One "), gate, TextDelta(0, "two"), end()])
    async with serving(pool) as server, cable_to(server) as (url, cable):
        person.forgive(*EXPECTED)
        await person.open(url)
        await person.say("Count")
        await expect(person.answers).to_contain_text("One")
        cable.cut()
        gate.set()
        [listed] = (await _sessions(server))["sessions"]
        while (await session(server, listed["id"]))["running"]:
            await asyncio.sleep(0)
        cable.mend()
        await person.answered("One two")


async def test_a_message_waits_for_the_connection(person):
    pool = FakePool()
    async with serving(pool) as server, cable_to(server) as (url, cable):
        person.forgive(*EXPECTED)
        await person.open(url)
        await person.say("First")
        await person.answered("Hello")
        await person.page.reload()
        await person.answered("Hello")
        cable.cut()
        lost = person.see("#banner", "The connection to the server is lost")
        await expect(lost).to_be_visible()
        await person.button("Try now").click()
        await expect(lost).to_be_visible()
        await person.say("Not this")
        await person.button("Stop").click()
        await expect(person.page.locator("#message")).to_have_value("Not this")
        await expect(person.answers).to_have_count(1)
        await person.say("Second")
        await expect(person.answers).to_have_count(2)
        cable.mend()
        await person.answered("Hello", 2)
        assert [asked.messages[-1].content for asked in pool.requests] == ["First", "Second"]


async def test_a_message_that_was_on_its_way_is_given_back(person):
    gate = asyncio.Event()
    pool = FakePool([gate, Started(7), end()])
    async with serving(pool) as server, cable_to(server) as (url, cable):
        person.forgive(*EXPECTED)
        await person.open(url)
        await person.say("Did you hear me?")
        await pool.waiting.wait()
        cable.cut()
        await pool.cancelled.wait()
        cable.mend()
        await expect(person.see("#banner")).to_contain_text("It was not sent")
        await expect(person.page.locator("#message")).to_have_value("Did you hear me?")
        await person.button("Try again").click()
        await person.answered("Hello")
        await expect(person.page.locator("#message")).to_have_value("")


async def test_what_is_said_after_a_failed_answer_is_followed(person):
    looked, late, gate = asyncio.Event(), asyncio.Event(), asyncio.Event()
    script = [Started(7), TextDelta(0, "One "), gate, TextDelta(0, "two"), end()]
    pool = FakePool([Started(7), WorkerLost("it died.")], script)

    async def slow(route):
        answer = await route.fetch()
        looked.set()
        await late.wait()
        await route.fulfill(response=answer)

    async with serving(pool) as server, cable_to(server) as (url, cable):
        person.forgive(*EXPECTED)
        await person.open(url)
        await person.say("Go")
        await expect(person.answers.locator(".mark.failed")).to_be_visible()
        await person.page.route("**/api/v1/sessions/*", slow)
        cable.cut()
        cable.mend()
        await looked.wait()
        await person.say("And now?")
        await expect(person.answers.last).to_contain_text("One")
        async with person.page.expect_response("**/api/v1/sessions/*"):
            late.set()
        await person.caught_up()
        gate.set()
        await person.answered("One two", 2)


async def test_the_connection_is_tried_when_somebody_looks_at_the_page_again(person):
    async with person.at(FakePool()) as url:
        async with person.page.expect_websocket() as opening:
            await person.open(url)
        await person.say("Hi")
        await person.answered("Hello")
        sent = []
        (await opening.value).on("framesent", lambda frame: sent.append(json.loads(frame)))
        await person.look_again()
        await person.say("Again")
        await person.answered("Hello", 2)
        assert sent[0] == {"ping": True}


async def test_another_tab_finds_the_answer_that_runs(person):
    gate = asyncio.Event()
    script = [Started(7), TextDelta(0, "One "), gate, TextDelta(0, "two"), end()]
    async with person.at(FakePool(script)) as url:
        await person.open(url)
        await person.say("Count")
        await expect(person.answers).to_contain_text("One")
        await person.button("New chat").first.click()
        await expect(person.see(".sessions .dot")).to_be_visible()
        await person.see(".session").click()
        await expect(person.answers).to_contain_text("One")
        await expect(person.button("Stop")).to_be_visible()
        figures = person.answers.locator(".figures")
        await expect(figures).to_contain_text("tokens/s")
        await expect(figures).not_to_contain_text("first token")  # nobody here saw it
        gate.set()
        await person.answered("One two")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_server_that_ends_in_the_middle_of_an_answer(person, config, how):  # noqa: F811
    person.forgive(*EXPECTED)
    async with cable_to("") as (url, cable):
        async with started(config) as (server, process):
            cable.mend(server)
            await person.open(url)
            await person.say("Hello")
            await person.answered()
            [listed] = (await _sessions(server))["sessions"]
            async with talking(server) as talk:  # for the page cannot ask for so long an answer
                long = {"message": "Count.", "ignore_eos": True, "max_tokens": 1900}
                await talk.say(session_id=listed["id"], **long)
                while (await talk.event())["type"] != "text":
                    pass
            [worker] = psutil.Process(process.pid).children()
            worker.suspend()  # in the middle of it, however fast it is
            await person.page.reload()
            await expect(person.answers.last.locator("p").first).not_to_be_empty()
            await expect(person.button("Stop")).to_be_visible()
            process.send_signal(how)
            await process.wait()
            await expect(person.see("#banner .banner")).to_be_visible()
        async with started(config) as (server, _):
            cable.mend(server)
            await expect(person.answers.last.locator(".mark.cut")).to_be_visible()
            await person.say("What is the capital of France?")
            await person.answered("Paris", 3)


async def _sessions(url: str) -> dict:
    async with httpx.AsyncClient(base_url=url) as client:
        return (await client.get("/api/v1/sessions")).json()
