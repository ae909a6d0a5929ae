"""Who uses the page: a key that is typed in, a link that is good once, and who is let out again."""

import httpx
import pytest
from playwright.async_api import expect

from api import keys
from api.keys import KeyFile
from tests.fake_pool import FakePool

pytestmark = pytest.mark.asyncio(loop_scope="session")

REFUSED = "Failed to load resource"


async def link_of(url: str, secret: str) -> str:
    headers = {"Authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(base_url=url, headers=headers) as client:
        return (await client.post("/api/v1/links", json={})).json()["path"]


async def test_a_key_opens_the_page_and_stays_nowhere(person, key_file):
    secret = keys.add(key_file, "alice")
    person.forgive(REFUSED, "WebSocket connection")
    async with person.at(FakePool(), keys=KeyFile(key_file)) as url:
        await person.page.goto(url)
        box = person.page.get_by_label("API key")
        await box.fill("onebox-wrong")
        await person.button("Sign in").click()
        await expect(person.see(".login-error")).to_have_text("This key is not valid here.")
        await person.page.keyboard.press("Escape")
        await person.page.keyboard.press("Escape")
        await expect(box).to_be_visible()
        await box.fill(secret)
        await person.page.keyboard.press("Enter")
        await person.ready()
        await person.say("Hi")
        await person.answered("Hello")
        kept = "() => JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
        assert secret not in await person.run(kept)
        assert "onebox=" not in await person.run("() => document.cookie")
        await expect(person.button("Operator")).to_have_count(0)
        await person.button("Settings of this chat").click()
        await person.page.get_by_label("Instructions").fill("For Alice")
        await person.page.get_by_label("Use these for new chats").check()
        await person.button("Save").click()
        await person.page.fill("#message", "By Alice")
        await person.button("New chat").first.click()
        await person.page.fill("#message", "Also by Alice")
        await person.button("More").click()
        await person.page.get_by_role("menuitem", name="Sign out").click()
        await expect(person.page.get_by_label("API key")).to_be_visible()
        assert "Alice" not in await person.run(kept)


async def test_a_link_opens_the_page_once_and_leaves_the_address(person, key_file):
    secret = keys.add(key_file, "root", admin=True)
    person.forgive(REFUSED)
    async with person.at(FakePool(), keys=KeyFile(key_file)) as url:
        path = await link_of(url, secret)
        await person.open(url, path)
        assert person.page.url == f"{url}/"
        assert "token" not in await person.run("() => location.href")
        await expect(person.button("Operator")).to_be_visible()
        await person.page.reload()
        await person.ready()
        await person.page.context.clear_cookies()
        await person.page.goto(url + path)
        await expect(person.see(".login-error")).to_contain_text("no longer valid")
        assert person.page.url == f"{url}/"


async def test_a_key_that_is_taken_away_ends_the_visit(person, key_file):
    secret = keys.add(key_file, "alice")
    keys.add(key_file, "bob")
    person.forgive(REFUSED, "WebSocket connection")
    async with person.at(FakePool(), keys=KeyFile(key_file)) as url:
        await person.open(url, await link_of(url, secret))
        await person.say("Hi")
        await person.answered("Hello")
        keys.remove(key_file, "alice")
        await expect(person.page.get_by_label("API key")).to_be_visible()


async def test_sessions_of_others_are_not_there(person, key_file, browser):
    alice, bob = keys.add(key_file, "alice"), keys.add(key_file, "bob")
    person.forgive(REFUSED)
    async with person.at(FakePool(), keys=KeyFile(key_file)) as url:
        await person.open(url, await link_of(url, alice))
        await person.say("A secret")
        await person.answered("Hello")
        await person.page.context.clear_cookies()
        await person.open(url, await link_of(url, bob))
        await expect(person.see("#banner")).to_contain_text("session")
        await expect(person.see(".session")).to_have_count(0)
