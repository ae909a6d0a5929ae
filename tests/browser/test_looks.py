"""How the page is used: on a phone, in Chinese, in the dark, by keys alone; settings and agents."""

import pytest
from playwright.async_api import expect

from inference import Started, TextDelta
from tests.browser.person import sitting_down
from tests.fake_pool import FakePool, end, serving

pytestmark = pytest.mark.asyncio(loop_scope="session")

WIDE = "a" * 400 + "\n\n```\n" + "b" * 400 + "\n```\n\n| " + "long cell here | " * 20
WIDE += "\n|" + "---|" * 20 + "\n\n" + "$" + "c" * 400
OVER = """() => {
  const over = document.documentElement.scrollWidth - innerWidth;
  const scroller = document.querySelector('.scroller');
  return [over, scroller.scrollWidth - scroller.clientWidth];
}"""
BACKGROUND = "() => getComputedStyle(document.body).backgroundColor"


async def test_a_phone(browser):
    script = [Started(7), TextDelta(0, WIDE), end()]
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    async with serving(FakePool(script)) as url, sitting_down(browser, **phone) as person:
        await person.open(url)
        assert await person.run(OVER) == [0, 0]
        await expect(person.see(".sidebar")).not_to_be_in_viewport()
        await person.page.fill("#message", "a\n" + "w" * 300)
        await person.button("Send").tap()
        await person.answered("aaaa")
        assert await person.run(OVER) == [0, 0]
        await person.page.get_by_role("button", name="Sidebar").tap()
        await expect(person.see(".session")).to_be_in_viewport()
        await person.see(".session").tap()
        await expect(person.see(".sidebar")).not_to_be_in_viewport()
        await person.button("Settings of this chat").tap()
        await expect(person.button("Save")).to_be_attached()
        assert await person.run(OVER) == [0, 0]
        await person.saw_nothing_wrong()


async def test_chinese(browser):
    script = [Started(7), TextDelta(0, "**你好：**世界"), end()]
    async with serving(FakePool(script)) as url, sitting_down(browser, locale="zh-CN") as person:
        await person.open(url)
        assert await person.run("() => document.documentElement.lang") == "zh-CN"
        await expect(person.see(".greeting h2")).to_have_text("有什么可以帮你的？")
        # What an input method composes with Enter is not sent.
        box = person.page.locator("#message")
        await box.fill("你好")
        composed = {"key": "Enter", "isComposing": True, "bubbles": True}
        await box.dispatch_event("keydown", composed)
        await expect(box).to_have_value("你好")
        await box.press("Enter")
        await person.answered("你好：世界")
        await expect(person.answers.locator("strong")).to_have_text("你好：")
        await person.button("English").click()
        await expect(person.button("中文")).to_be_visible()
        await person.answered("你好")
        await person.page.reload()
        await expect(person.button("中文")).to_be_visible()
        await person.saw_nothing_wrong()


async def test_what_is_written_from_right_to_left(person):
    text = "مرحبا **بك**\n\n- واحد\n\n> اقتباس\n\nEnglish"
    directions = """() => [...document.querySelectorAll('.answer .markdown > *')]
      .map((node) => [node.localName, getComputedStyle(node).direction])"""
    async with person.at(FakePool([Started(7), TextDelta(0, text), end()])) as url:
        await person.open(url)
        await person.say("مرحبا")
        await person.answered("English")
        assert await person.run(directions) == [
            ["p", "rtl"],
            ["ul", "rtl"],
            ["blockquote", "rtl"],
            ["p", "ltr"],
        ]


async def test_both_languages_say_everything(workshop):
    missing = """async () => {
      const { en } = await import('/page/words_en.js');
      const { zh } = await import('/page/words_zh.js');
      const holes = (word) => [...word.matchAll(/\\{\\w+\\}/g)].map(String).sort().join();
      const both = (key) => key in en && key in zh && holes(en[key]) === holes(zh[key]);
      return Object.keys({ ...en, ...zh }).filter((key) => !both(key));
    }"""
    assert await workshop.run(missing) == []


async def test_light_and_dark(person):
    async with person.at(FakePool()) as url:
        await person.page.emulate_media(color_scheme="light")
        await person.open(url)
        light = await person.run(BACKGROUND)
        await person.page.emulate_media(color_scheme="dark")
        dark = await person.run(BACKGROUND)
        assert light != dark
        switch = person.see(".theme-switch")
        await switch.click()
        await expect(switch).to_have_accessible_name("Theme: light")
        assert await person.run(BACKGROUND) == light
        await person.page.reload()
        await person.ready()
        assert await person.run(BACKGROUND) == light
        await switch.click()
        await person.page.emulate_media(color_scheme="light")
        assert await person.run(BACKGROUND) == dark
        await switch.click()
        assert await person.run(BACKGROUND) == light


async def test_by_keys_alone(person):
    async with person.at(FakePool()) as url:
        await person.open(url)
        keys = person.page.keyboard
        await expect(person.page.locator("#message")).to_be_focused()
        await keys.type("one")
        await keys.press("Shift+Enter")
        await keys.type("two")
        await keys.press("Enter")
        await person.answered("Hello")
        assert await person.see(".bubble").inner_text() == "one\ntwo"
        await keys.press("Control+Shift+o")
        await expect(person.see(".greeting")).to_be_visible()
        await person.page.locator("#message").blur()
        await keys.press("?")
        await expect(person.page.get_by_role("dialog")).to_contain_text("Keyboard shortcuts")
        await keys.press("Escape")
        await expect(person.page.get_by_role("dialog")).to_have_count(0)
        await keys.press("/")
        await expect(person.page.locator("#message")).to_be_focused()
        await keys.press("Control+k")
        await keys.press("Tab")
        await expect(person.see(".session")).to_be_focused()
        await keys.press("Enter")
        await person.answered("Hello")
        await keys.press("Control+Shift+s")
        await expect(person.see(".sidebar")).not_to_be_visible()
        await person.page.reload()
        await person.ready()
        await expect(person.see(".sidebar")).not_to_be_visible()


async def test_every_control_has_a_name(person):
    nameless = """() => [...document.querySelectorAll('button, input, select, textarea, a')]
      .filter((node) => !(node.ariaLabel || node.textContent.trim() || node.labels?.length))
      .map((node) => node.outerHTML)"""
    async with person.at(FakePool()) as url:
        await person.open(url)
        await person.say("Hi")
        await person.answered("Hello")
        assert await person.run(nameless) == []
        await person.button("Settings of this chat").click()
        assert await person.run(nameless) == []


async def test_settings_are_of_one_conversation(person):
    pool = FakePool()
    async with person.at(pool) as url:
        await person.open(url)
        await person.button("Settings of this chat").click()
        await person.page.get_by_label("Instructions").fill("Be brief.")
        await person.page.get_by_label("Temperature").fill("9")
        await person.button("Save").click()
        await expect(person.page.get_by_role("dialog")).to_be_visible()  # no temperature is so high
        await person.page.get_by_label("Temperature").fill("0.5")
        await person.page.get_by_label("Thinking").select_option("Off")
        await person.button("Save").click()
        await person.say("Hi")
        await person.answered("Hello")
        asked = pool.requests[-1]
        assert asked.sampling.temperature == 0.5
        assert (asked.messages[0].role, asked.messages[0].content) == ("system", "Be brief.")
        await person.page.reload()
        await person.ready()
        await person.button("Settings of this chat").click()
        await expect(person.page.get_by_label("Temperature")).to_have_value("0.5")
        await person.button("Reset").click()
        await person.button("Save").click()
        await person.say("Again")
        await person.answered("Hello", 2)
        assert pool.requests[-1].messages[0].role == "user"


async def test_an_agent_is_made_used_changed_and_deleted(person):
    pool = FakePool()
    async with person.at(pool) as url:
        await person.open(url)
        await person.button("Agents").click()
        await person.button("New agent").click()
        await person.page.get_by_label("Name", exact=True).fill("Pirate")
        await person.page.get_by_label("Instructions").fill("Talk like a pirate.")
        await person.page.get_by_label("Tools").fill("{")
        await person.button("Save").click()
        await expect(person.button("Use")).to_have_count(0)
        await person.page.get_by_label("Tools").fill("")
        await person.button("Save").click()
        await person.button("Use").click()
        await expect(person.page.locator("#model")).to_have_value("Pirate")
        await person.say("Hi")
        await person.answered("Hello")
        assert pool.requests[-1].messages[0].content == "Talk like a pirate."
        await person.button("Agents").click()
        await person.button("Edit Pirate").click()
        await person.page.get_by_label("Description").fill("Arr")
        await person.button("Save").click()
        await expect(person.see(".card")).to_contain_text("Arr")
        await person.button("Delete Pirate").click()
        await person.button("Delete").click()
        await expect(person.see(".card")).to_have_count(0)


async def test_the_operators_part_comes_and_goes(person):
    async with person.at(FakePool()) as url:
        await person.open(url)
        await person.button("Operator").click()
        await expect(person.see(".operator")).to_contain_text("fake")
        await expect(person.page.locator("#message")).to_be_hidden()
        await person.button("New chat").first.click()
        await expect(person.see(".operator")).to_have_count(0)
        await expect(person.page.locator("#message")).to_be_visible()
