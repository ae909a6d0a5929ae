"""Somebody in front of the page: what they do, what they see, and what must never happen."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from playwright.async_api import Browser, ConsoleMessage, Locator, Page, Request, Route, expect

from tests.fake_pool import FakePool, serving

PATIENCE = 20_000  # ms, in which a machine that does much else gets everything done
expect.set_options(timeout=PATIENCE)
# Written down by the browser itself, whatever the page does afterwards.
_WATCH = """
window.__violations = [];
document.addEventListener('securitypolicyviolation', (event) => {
  window.__violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
});
"""


class Person:
    """`wrong` collects dialogs, errors of scripts and what the page asks of other hosts."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.wrong: list[str] = []
        self.forgiven: tuple[str, ...] = ()
        self._host = ""
        page.on("dialog", self._dialog)
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("console", self._console)
        page.on("request", self._request)

    async def _dialog(self, dialog: Any) -> None:
        self.wrong.append(f"dialog: {dialog.message}")
        await dialog.dismiss()

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not any(said in message.text for said in self.forgiven):
            self.wrong.append(f"console: {message.text}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self._host, "blob:", "data:")):
            self.wrong.append(f"request: {request.url}")

    def forgive(self, *texts: str) -> None:
        """What the browser's console will say of what a test does on purpose."""
        self.forgiven += texts

    async def saw_nothing_wrong(self) -> None:
        violations = await self.page.evaluate("window.__violations")
        assert [*self.wrong, *violations] == []

    @asynccontextmanager
    async def at(self, pool: FakePool, **how: Any) -> AsyncIterator[str]:
        """The address of a server around `pool`, which stays until they have left the page."""
        async with serving(pool, **how) as url:
            yield url
            await self.saw_nothing_wrong()
            await self.page.goto("about:blank")

    async def open(self, url: str, path: str = "/") -> None:
        self._host = url
        await self.page.goto(url + path)
        await self.ready()

    async def ready(self) -> None:
        await expect(self.page.locator(".composer:not([inert]) #message")).to_be_visible()

    async def look_again(self) -> None:
        """As after they were at another page for a while."""
        await self.run("() => document.dispatchEvent(new Event('visibilitychange'))")

    async def caught_up(self) -> None:
        """The page has dealt with all that came before this."""
        await self.run("async () => { await (await fetch('/page/dom.js')).text(); }")

    async def another_renames(self, url: str, title: str) -> None:
        """Somebody else gives the latest conversation this title; they look at the page again."""
        async with httpx.AsyncClient(base_url=url) as client:
            listed = (await client.get("/api/v1/sessions")).json()["sessions"][0]
            await client.patch(f"/api/v1/sessions/{listed['id']}", json={"title": title})
        await self.look_again()

    async def say(self, text: str) -> None:
        await self.page.fill("#message", text)
        await self.page.press("#message", "Enter")

    def see(self, selector: str, text: str | None = None) -> Locator:
        found = self.page.locator(selector)
        return found.filter(has_text=text) if text else found

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    @property
    def answers(self) -> Locator:
        return self.page.locator(".message.assistant")

    async def answered(self, text: str = "", number: int = 1) -> Locator:
        """The answer, once `number` of them are there and the last is whole."""
        await expect(self.answers).to_have_count(number)
        await expect(self.page.locator(".app:not(.running)")).to_be_attached()
        if text:
            await expect(self.answers.last.locator(".answer > .markdown")).to_contain_text(text)
        return self.answers.last

    async def run(self, script: str, *arguments: Any) -> Any:
        """What a function of JavaScript gives for `arguments`."""
        return await self.page.evaluate(f"async (given) => ({script})(...given)", list(arguments))


def after(event: asyncio.Event) -> Callable[[Route], Awaitable[None]]:
    """A way for requests that is open from an event on."""

    async def way(route: Route) -> None:
        await event.wait()
        await route.continue_()

    return way


@asynccontextmanager
async def sitting_down(browser: Browser, **how: Any) -> AsyncIterator[Person]:
    """Somebody with a browser that knows nothing yet; `how` are options of its context."""
    context = await browser.new_context(**({"locale": "en-GB"} | how))
    try:
        await context.add_init_script(_WATCH)
        page = await context.new_page()
        page.set_default_timeout(PATIENCE)
        yield Person(page)
    finally:
        await context.close()
