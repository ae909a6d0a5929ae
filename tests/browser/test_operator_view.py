"""The operator's view, in a browser: its figures, its tables and buttons, its log."""

import asyncio
import logging
import re

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import expect

from inference import Started, TextDelta
from tests.browser.person import sitting_down
from tests.fake_pool import FakePool, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
MOUNT = """async () => {
  const [view, { el }, { addWords }] = await Promise.all(
    ['operator', 'dom', 'i18n'].map((name) => import(`/page/${name}.js`)));
  addWords(view.words);
  for (const name of ['theme', 'operator']) {
    const link = el('link', { rel: 'stylesheet', href: `/page/${name}.css` });
    await new Promise((done) => { link.onload = done; document.head.append(link); });
  }
  const root = el('section', { class: 'operator' });
  document.body.replaceChildren(root);
  window.unmount = view.mount(root);
}"""
HISTORY = """async (views) => {
  const { History, quantile } = await import('/page/operator_figures.js');
  const history = new History();
  for (const [at, view] of views) history.add(view, at);
  const { last, ever } = history.spread('ttft');
  return { span: history.span, made: history.made, speeds: history.speeds,
    last: last.count, ever: ever.count, counts: last.buckets.map(([, , count]) => count),
    quantiles: [0.5, 0.9, 0.99].map((share) => String(quantile(last, share))) };
}"""
WRITTEN = """async (name, value, longest) =>
  (await import('/page/operator_figures.js'))[name](value, longest)"""
KEYS = """async () => {
  const { words } = await import('/page/operator_words.js');
  return [Object.keys(words.en), Object.keys(words.zh)];
}"""


@pytest.fixture
def pool():
    return FakePool()


@pytest_asyncio.fixture(loop_scope="session")
async def person(browser):
    """Somebody who sees all that goes wrong, but for requests: they are not at the page itself."""
    async with sitting_down(browser) as person:
        person.forgive("status of 404")  # it has no icon
        yield person
        assert await person.run("() => __violations") == []
        assert [wrong for wrong in person.wrong if not wrong.startswith("request:")] == []


async def at(person, url):
    """A document of ours, in which nothing runs."""
    await person.page.goto(f"{url}/page/dom.js")


async def mounted(person, url):
    await at(person, url)
    await person.run(MOUNT)
    await expect(person.see(".op-about")).to_contain_text("Version")


def view(uptime, tokens, *counts, over=0):
    """`counts` of first tokens that took up to 1, 2 and 4 seconds, each with those before."""
    ttft = {"buckets": list(zip((1, 2, 4), counts, strict=True)), "count": counts[-1] + over}
    models = [{"name": name, "completion_tokens": made} for name, made in tokens.items()]
    return {"uptime": uptime, "models": models, "ttft": ttft}


async def test_figures_are_of_the_last_minute(person, pool):
    views = [
        (0, view(1, {"a": 9}, 50, 50, 50)),
        (30, view(31, {"a": 100}, 50, 60, 60)),
        (62, view(63, {"a": 110}, 50, 60, 60)),
        (90, view(91, {"a": 130, "b": 7}, 50, 65, 69, over=1)),
    ]
    async with serving(pool) as url:
        await at(person, url)
        seen = await person.run(HISTORY, views)
    assert (seen["span"], seen["made"], seen["ever"]) == (60, 37, 70)
    assert (seen["last"], seen["counts"]) == (10, [0, 5, 4, 1])
    assert seen["quantiles"] == ["2", "4", "Infinity"]
    assert seen["speeds"][0] == 10 / 32


async def test_a_worker_that_is_new_begins_at_nothing_and_a_new_server_as_well(person, pool):
    worker = [(0, view(1, {"a": 100}, 5, 5, 5)), (1, view(2, {"a": 4}, 6, 6, 6))]
    server = [(0, view(50, {"a": 100}, 5, 5, 5)), (1, view(2, {"a": 4}, 1, 1, 1))]
    async with serving(pool) as url:
        await at(person, url)
        seen = await person.run(HISTORY, worker)
        assert (seen["made"], seen["last"], seen["quantiles"][0]) == (4, 1, "0.5")
        seen = await person.run(HISTORY, server)
        assert (seen["made"], seen["last"], seen["ever"]) == (0, 0, 1)
        assert seen["quantiles"] == ["null"] * 3


@pytest.mark.parametrize(
    ("how", "value", "written"),
    [
        ("latency", None, "–"),
        ("latency", 0.0042, "4.2 ms"),
        ("latency", 0.25, "250 ms"),
        ("latency", 1.24, "1.2 s"),
        ("bound", 0.0025, "2.5 ms"),
        ("bound", 120, "2 min"),
        ("duration", 0.4, "0 s"),
        ("duration", 59.9, "59 s"),
        ("duration", 200, "3 min 20 s"),
        ("duration", 3600, "1 h"),
        ("duration", 93_600, "1 d 2 h"),
        ("bytes", 5 * 2**20, "5 MiB"),
        ("bytes", 3 * 2**29, "1.5 GiB"),
        ("short", 9_999, "9,999"),
        ("short", 12_345, "12.3k"),
        ("short", 4_560_000, "4.56M"),
    ],
)
async def test_figures_are_written_for_people(person, pool, how, value, written):
    async with serving(pool) as url:
        await at(person, url)
        assert await person.run(WRITTEN, how, value, 0) == written


async def test_both_languages_have_all_words(person, pool):
    async with serving(pool) as url:
        await at(person, url)
        english, chinese = await person.run(KEYS)
    assert sorted(english) == sorted(chinese) and len(english) > 50


async def test_an_operator_sees_requests_and_ends_one(person):
    stuck = [Started(7), TextDelta(0, "Hel"), asyncio.Event()]
    async with (
        serving(FakePool(stuck, list(stuck))) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        asks = [
            asyncio.create_task(client.post("/v1/chat/completions", json=CHAT)) for _ in range(2)
        ]
        await mounted(person, url)
        rows = person.see(".op-rows tr", "chatcmpl-")
        await expect(rows).to_have_count(2)
        await expect(rows.first).to_contain_text("running")
        await rows.first.get_by_role("button").click()
        await person.button("Keep").click()
        await expect(rows).to_have_count(2)
        await rows.first.get_by_role("button").click()
        await person.see("dialog").get_by_role("button", name="End").click()
        await expect(rows).to_have_count(1)
        done, _ = await asyncio.wait(asks, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result().json()["error"]["code"] for task in done] == ["cancelled"]
        await expect(person.see(".op-entry")).to_contain_text("An operator ended the request")
        await rows.first.get_by_role("button").click()
        await person.see("dialog").get_by_role("button", name="End").click()
        await expect(person.see(".op-rows", "Nobody waits for an answer.")).to_be_visible()
        await asyncio.gather(*asks)


async def test_models_and_the_box_are_shown(person, pool):
    async with serving(pool) as url:
        await mounted(person, url)
        row = person.see(".op-rows tr", "fake")
        for text in ("ready", "3 / 4", "43 %", "stays"):
            await expect(row).to_contain_text(text)
        await expect(person.see(".op-card", "KV cache")).to_contain_text("100 of 4,096 tokens")
        memory = person.see(".op-card", "Memory")
        await expect(memory).to_contain_text(re.compile("[MG]iB of .* GiB"))
        await row.get_by_role("button", name="Unload").click()
        asked = person.page.expect_response("**/models/fake/unload")
        async with asked as answer:
            await person.see("dialog").get_by_role("button", name="Unload").click()
        assert (await answer.value).status == 204


async def test_the_log_waits_for_who_reads_it(person, pool):
    log = logging.getLogger("inference.replica")
    async with serving(pool) as url:
        await mounted(person, url)
        for number in range(40):
            log.warning("Line %d, which is long enough to be seen.", number)
        lines, list_ = person.see(".op-entry"), person.see(".op-log")
        await expect(lines).to_have_count(40)
        assert await list_.evaluate("(list) => list.scrollTop > 0")
        await list_.evaluate("(list) => { list.scrollTop = 0; }")
        log.error("The last one.")
        await person.button("Paused: 1 newer").click()
        await expect(lines.last).to_contain_text("The last one.")
        await person.page.get_by_label("Level").select_option("Errors")
        await expect(lines).to_have_count(1)
        log.warning("Not shown.")
        log.error("Shown.")
        await expect(lines).to_have_text([re.compile("The last one"), re.compile("Shown")])


async def test_a_server_that_is_gone_is_said_to_be(person, pool):
    person.forgive("ERR_CONNECTION_REFUSED")
    async with serving(pool) as url:
        await mounted(person, url)
    await expect(person.see(".banner", "The server does not answer")).to_be_visible()


async def test_it_looks_once_a_second_until_it_is_left(person, pool):
    asked = []
    async with serving(pool) as url:
        await person.page.clock.install()
        await mounted(person, url)
        person.page.on("request", lambda request: asked.append(request.url))
        async with person.page.expect_response("**/api/v1/operator"):
            await person.page.clock.run_for(1100)
        await person.run("() => window.unmount()")
        asked.clear()
        await person.page.clock.run_for(10_000)
        assert asked == []
