"""How the page is used: on a phone, in Chinese, in the dark, by keys alone; settings and agents."""

import asyncio

import httpx
import pytest
from playwright.async_api import expect

from api.gateway.settings import SettingsBody
from inference import Started, TextDelta
from tests.browser.person import after, sitting_down
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
        await person.button("Edit").tap()
        editor = person.page.get_by_role("textbox", name="Edit")
        await editor.fill("one")
        await editor.press("Enter")  # begins a line, as in the box below
        await expect(editor).to_have_value("one\n")
        await person.button("Cancel").tap()
        await person.page.get_by_role("button", name="Sidebar").tap()
        await expect(person.see(".session")).to_be_in_viewport()
        for count in (2, 0):
            await person.button("More").tap()
            await expect(person.page.get_by_role("menuitem")).to_have_count(count)
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
        # Safari says so by its code alone.
        composed = {"key": "Enter", "keyCode": 229, "bubbles": True}
        await person.button("编辑").click()
        editor = person.page.get_by_role("textbox", name="编辑")
        await editor.dispatch_event("keydown", composed)
        await expect(editor).to_be_visible()
        await person.button("取消").click()
        await person.button("“你好”的操作").click()
        await person.page.get_by_role("menuitem", name="重命名").click()
        name = person.page.get_by_role("textbox", name="重命名")
        await name.dispatch_event("keydown", composed)
        await expect(name).to_be_visible()
        await name.press("Escape")
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
        await person.page.get_by_label("Temperature").fill("0.72")
        await person.page.get_by_label("Presence").fill("0.25")
        await person.page.get_by_label("Thinking").select_option("Off")
        await person.button("Save").click()
        await person.say("Hi")
        await person.answered("Hello")
        asked = pool.requests[-1]
        assert (asked.sampling.temperature, asked.sampling.presence_penalty) == (0.72, 0.25)
        assert (asked.messages[0].role, asked.messages[0].content) == ("system", "Be brief.")
        await person.page.reload()
        await person.ready()
        await person.button("Settings of this chat").click()
        await expect(person.page.get_by_label("Temperature")).to_have_value("0.72")
        await person.button("Reset").click()
        async with person.page.expect_response(lambda answer: answer.request.method == "PATCH"):
            await person.button("Save").click()
        await person.say("Again")
        await person.answered("Hello", 2)
        assert pool.requests[-1].messages[0].role == "user"


async def test_nothing_is_said_or_set_before_the_conversation_is_there(person):
    async with person.at(FakePool()) as url:
        await person.open(url)
        await person.say("Hi")
        await person.answered("Hello")
        await person.button("Settings of this chat").click()
        await person.page.get_by_label("Temperature").fill("0.72")
        await person.button("Save").click()
        gate = asyncio.Event()
        await person.page.route("**/api/v1/sessions/*", after(gate))
        await person.page.reload()
        await expect(person.see(".thread", "Loading")).to_be_visible()
        for part in (".composer", ".picker-box", "[title='Settings of this chat']"):
            await expect(person.see(f"{part}[inert]")).to_have_count(1)
        gate.set()
        await person.ready()
        await expect(person.see("[inert]")).to_have_count(0)
        await person.button("Settings of this chat").click()
        await expect(person.page.get_by_label("Temperature")).to_have_value("0.72")


async def test_settings_are_closed_when_their_conversation_is_left(person):
    async with person.at(FakePool()) as url:
        await person.open(url)
        await person.say("Hi")
        await person.answered("Hello")
        await person.button("New chat").first.click()
        await person.button("Settings of this chat").click()
        await person.page.go_back()
        await person.answered("Hello")
        await expect(person.page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.parametrize("bound", ["minimum", "maximum"])
async def test_all_that_the_server_takes_can_be_set(workshop, bound):
    refused = """async (values) => {
      const { settingsFields } = await import('/page/fields.js');
      const controls = [...settingsFields(values).node.querySelectorAll('[type=number]')];
      return controls.filter((control) => !control.value || !control.checkValidity())
        .map((control) => `${control.name} ${control.value}`);
    }"""
    assert await workshop.run(refused, bounds(bound)) == []


def bounds(which: str) -> dict[str, float]:
    """The least, or the most, that each number may be."""
    found = {}
    for name, about in SettingsBody.model_json_schema()["properties"].items():
        for kind in about["anyOf"]:
            if which in kind or f"exclusiveM{which[1:]}" in kind:
                found[name] = min(kind.get(which, 1e-6), 2**63 - 1024)  # no number there is greater
    return found


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


async def test_an_agent_is_of_the_chat_that_it_was_chosen_for(person):
    gate = asyncio.Event()
    async with person.at(FakePool()) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            await client.post("/api/v1/agents", json={"name": "Pirate"})
        await person.open(url)
        await person.say("Hi")
        await person.answered("Hello")
        await person.page.route("**/api/v1/models", after(gate))
        await person.button("Agents").click()
        await person.button("Use").click()
        await person.see(".session").click()
        await person.answered("Hello")
        async with person.page.expect_response("**/api/v1/models"):
            gate.set()
        await person.caught_up()
        await expect(person.page.locator("#model")).to_have_value("")


async def test_the_operators_part_comes_and_goes(person):
    async with person.at(FakePool()) as url:
        await person.open(url)
        await person.button("Operator").click()
        await expect(person.see(".operator")).to_contain_text("fake")
        await expect(person.page.locator("#message")).to_be_hidden()
        await person.button("New chat").first.click()
        await expect(person.see(".operator")).to_have_count(0)
        await expect(person.page.locator("#message")).to_be_visible()


async def test_the_operators_part_is_there_alone_and_once(person):
    gate = asyncio.Event()
    async with person.at(FakePool()) as url:
        await person.open(url)
        await person.say("Apples?")
        await person.answered("Hello")
        asked = []
        person.page.on("request", lambda request: asked.append(request.url))
        await person.page.route("**/page/operator.js", after(gate))
        await person.button("Operator").click()
        await person.see(".session").click()
        await person.answered("Hello")
        gate.set()
        await person.run("() => import('/page/operator.js').then(() => null)")
        await person.caught_up()
        assert f"{url}/api/v1/operator" not in asked
        await person.button("Operator").evaluate("(button) => { button.click(); button.click(); }")
        await expect(person.see(".op-view")).to_have_count(1)
        await person.another_renames(url, "Pears")
        await expect(person.see(".session")).to_have_text("Pears")
        await expect(person.see(".title")).to_have_text("Operator")
