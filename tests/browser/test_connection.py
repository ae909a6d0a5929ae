"""The page while the way to its server, or the server itself, comes and goes."""

import asyncio
import signal

import pytest
from playwright.async_api import expect

from inference import Started, TextDelta
from tests.browser.cable import cable_to
from tests.fake_pool import FakePool, end, serving
from tests.talking import session
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


async def test_a_message_that_never_arrived_is_given_back(person):
    async with serving(FakePool()) as server, cable_to(server) as (url, cable):
        person.forgive(*EXPECTED)
        await person.open(url)
        await person.say("First")
        await person.answered("Hello")
        await person.page.reload()
        await person.answered("Hello")
        cable.cut()
        await expect(person.see("#banner")).to_contain_text("The connection to the server is lost")
        await person.say("Second")
        await expect(person.answers).to_have_count(2)
        cable.mend()
        await person.answered("Hello", 2)


async def test_another_tab_finds_the_answer_that_runs(person):
    gate = asyncio.Event()
    script = [Started(7), TextDelta(0, "One "), gate, TextDelta(0, "two"), end()]
    async with serving(FakePool(script)) as url:
        await person.open(url)
        await person.say("Count")
        await expect(person.answers).to_contain_text("One")
        await person.button("New chat").first.click()
        await expect(person.see(".sessions .dot")).to_be_visible()
        await person.see(".session").click()
        await expect(person.answers).to_contain_text("One")
        await expect(person.button("Stop")).to_be_visible()
        gate.set()
        await person.answered("One two")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_server_that_ends_in_the_middle_of_an_answer(person, config, how):  # noqa: F811
    person.forgive(*EXPECTED)
    async with cable_to("") as (url, cable):
        async with started(config) as (server, process):
            cable.mend(server)
            await person.open(url)
            await person.page.get_by_role("button", name="Settings of this chat").click()
            await person.page.get_by_label("Longest answer").fill("1900")
            await person.button("Save").click()
            await person.say("Count from one to one thousand.")
            await expect(person.answers.locator("p").first).not_to_be_empty()
            process.send_signal(how)
            await process.wait()
            await expect(person.see("#banner .banner")).to_be_visible()
        async with started(config) as (server, _):
            cable.mend(server)
            await expect(person.answers.locator(".mark.cut")).to_be_visible(timeout=15_000)
            await person.say("What is the capital of France?")
            await person.answered("Paris", 2)


async def _sessions(url: str) -> dict:
    import httpx

    async with httpx.AsyncClient(base_url=url) as client:
        return (await client.get("/api/v1/sessions")).json()
