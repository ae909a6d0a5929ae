"""A page of another site, written by the documentation alone, in a real browser."""

import asyncio
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import pytest_asyncio
from playwright.async_api import expect

from api import keys
from api.keys import KeyFile
from api.origins import Reach
from inference import Started, TextDelta
from tests.fake_pool import FakePool, end, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")

FOLDER = Path(__file__).parents[1] / "newcomers"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


@contextmanager
def other_site():
    """The address of a site that serves the page."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=FOLDER)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser):
    page = await browser.new_page()
    yield page
    await page.close()


async def connect(page, site, url, key=""):
    await page.goto(f"{site}/websocket.html")
    await page.fill("[name=url]", url)
    await page.fill("[name=key]", key)
    await page.click("text=Connect")


async def say(page, text):
    await page.fill("[name=message]", text)
    await page.click("text=Send")


async def test_it_asks_follows_and_asks_again(page, key_file):
    gate = asyncio.Event()
    pool = FakePool([Started(7), TextDelta(0, "Hel"), gate, TextDelta(0, "lo"), end()])
    secret = keys.add(key_file, "newcomer")
    with other_site() as site:
        reach = Reach(origins=frozenset({site}))
        async with serving(pool, reach=reach, keys=KeyFile(key_file)) as url:
            await connect(page, site, url, secret)
            await expect(page.locator("#state")).to_have_text("connected")
            await say(page, "Hi")
            await expect(page.locator("li")).to_have_text("Hel")
            gate.set()
            await expect(page.locator("li")).to_have_text("Hello")
            await expect(page.locator("#state")).to_have_text("connected")
            await say(page, "And?")
            await expect(page.locator("li").nth(1)).to_have_text("Hello")
    said = [(message.role, message.content) for message in pool.requests[1].messages]
    assert said == [("user", "Hi"), ("assistant", "Hello"), ("user", "And?")]


async def test_it_stops_an_answer(page):
    pool = FakePool([Started(7), TextDelta(0, "Hel"), asyncio.Event()])
    with other_site() as site:
        async with serving(pool, reach=Reach(origins=frozenset({site}))) as url:
            await connect(page, site, url)
            await say(page, "Hi")
            await expect(page.locator("li")).to_have_text("Hel")
            await page.click("text=Stop")
            await expect(page.locator("#state")).to_have_text("connected")
            await pool.cancelled.wait()


async def test_a_site_that_is_not_listed_is_not_let_in(page):
    with other_site() as site:
        async with serving(FakePool()) as url:
            await connect(page, site, url)
            await expect(page.locator("#state")).to_have_text("not connected")
            await expect(page.locator("#chat")).to_be_hidden()
