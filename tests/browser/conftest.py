"""A real Chromium without a window, for the tests of the page: one for all of them."""

import os
from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from setup.debian import where
from tests.browser.person import Person, sitting_down
from tests.fake_pool import FakePool, serving
from tests.programs import missing

AS_ROOT = ["--no-sandbox"] if os.geteuid() == 0 else []


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    missing("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=where("chromium"), args=["--headless=new", *AS_ROOT]
        )
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def person(browser: Browser) -> AsyncIterator[Person]:
    """Somebody in front of a fresh browser, who sees all that goes wrong in it."""
    async with sitting_down(browser) as person:
        yield person
        await person.saw_nothing_wrong()


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def workshop(browser: Browser) -> AsyncIterator[Person]:
    """A document of ours in which nothing runs, for what modules do by themselves."""
    async with serving(FakePool()) as url, sitting_down(browser) as person:
        await person.page.goto(url + "/page/dom.js")
        yield person
