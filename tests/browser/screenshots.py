"""Pictures of the page for the documents: `python -m tests.browser.screenshots` writes them to
docs/images, from a real browser. In the conversations the model says what is written here; what the
operator sees is of the bundled model at work."""

import asyncio
from pathlib import Path

import httpx
from playwright.async_api import Browser, async_playwright, expect

from inference import (
    Pool,
    ReasoningDelta,
    Started,
    TextDelta,
    Wishes,
    load_config,
    prepare,
)
from setup.debian import NEEDED, have, where
from tests.browser.conftest import AS_ROOT
from tests.browser.person import sitting_down
from tests.fake_pool import FakePool, end, serving

IMAGES = Path(__file__).parents[2] / "docs" / "images"
MODEL = "qwen3-8b"
BEFORE = ["Plan a weekend in the mountains", "Regular expressions for dates", "早餐食谱"]
QUESTION = "Explain how a hash table works, with an example."
THOUGHT = "A short explanation first, then code, then what it costs."
ANSWER = '''\
A hash table stores pairs of **key and value** so that finding one takes *constant time on \
average*: a function turns each key into a place in an array.

```python
class HashTable:
    """A small table with chaining."""

    def __init__(self, size: int = 8) -> None:
        self.buckets = [[] for _ in range(size)]

    def put(self, key: str, value: object) -> None:
        bucket = self.buckets[hash(key) % len(self.buckets)]
        bucket.append((key, value))  # two keys may meet in one bucket
```

| Operation | On average | At worst |
|:--|:-:|:-:|
| find | `O(1)` | `O(n)` |
| insert | `O(1)` | `O(n)` |

1. A good function spreads keys evenly.
2. When the table gets full, it grows and every pair moves.
'''


def pool() -> FakePool:
    short = [[Started(7), TextDelta(0, "Gladly."), end()] for _ in BEFORE]
    thought = asyncio.Event()
    asyncio.get_running_loop().call_later(3.5, thought.set)
    script = [Started(7), ReasoningDelta(0, THOUGHT), thought, TextDelta(0, ANSWER), end()]
    made = FakePool(*short, script)
    made.now = made.now.__class__(
        **{name: getattr(made.now, name) for name in made.now.__dataclass_fields__}
        | {"name": MODEL, "aliases": ()}
    )
    return made


async def take(browser: Browser, name: str, **how: object) -> None:
    async with serving(pool()) as url, sitting_down(browser, **how) as person:
        await person.open(url)
        for said in (*BEFORE, QUESTION):
            await person.page.evaluate("document.querySelector('.fresh').click()")
            await person.say(said)
            if how.get("is_mobile"):
                await person.button("Send").tap()
            await person.answered()
        await expect(person.see(".session")).to_have_count(len(BEFORE) + 1)
        await person.page.evaluate("document.querySelector('.scroller').scrollTop = 0")
        await person.page.wait_for_timeout(300)
        await person.page.screenshot(path=IMAGES / f"{name}.png")


async def work(client: httpx.AsyncClient, number: int) -> None:
    """Somebody who asks again and again."""
    said = [{"role": "user", "content": f"Tell me a story about the number {number}."}]
    while True:
        await client.post("/v1/chat/completions", json={"messages": said, "ignore_eos": True})


async def take_operator(browser: Browser, **how: object) -> None:
    wishes = Wishes(context=8192, slots=8)
    pool = Pool(prepare(load_config(), "qwen3-demo", wishes, tuned=False))
    async with (
        serving(pool) as url,
        httpx.AsyncClient(base_url=url, timeout=None) as client,
        sitting_down(browser, **how) as person,
    ):
        await pool.until_ready()
        working = [asyncio.create_task(work(client, number)) for number in range(11)]
        await person.open(url)
        await person.button("Operator").click()
        await person.page.wait_for_timeout(40_000)  # for lines to be seen in the charts
        await person.page.screenshot(path=IMAGES / "operator-light.png")
        for task in working:
            task.cancel()
        await asyncio.wait(working)


async def main() -> None:
    if why_not := have("chromium", NEEDED["chromium"]):
        raise SystemExit(why_not)
    IMAGES.mkdir(parents=True, exist_ok=True)
    wide = {"viewport": {"width": 1180, "height": 860}}
    phone = {"viewport": {"width": 390, "height": 780}, "is_mobile": True, "has_touch": True}
    async with async_playwright() as playwright:
        args = ["--headless=new", *AS_ROOT]
        browser = await playwright.chromium.launch(executable_path=where("chromium"), args=args)
        await take(browser, "chat-light", color_scheme="light", **wide)
        await take(browser, "chat-dark", color_scheme="dark", **wide)
        await take(browser, "chat-phone", color_scheme="light", **phone)
        await take_operator(browser, color_scheme="light", **wide)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
