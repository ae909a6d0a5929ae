"""A conversation on the page: asked, answered, stopped, changed, gone on with."""

import asyncio

import pytest
from playwright.async_api import expect

from api.gateway import turn as turn_module
from api.store.errors import StoreFailed
from api.store.sessions import Sessions
from inference import (
    ArgumentsDelta,
    Overloaded,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    WorkerLost,
)
from tests.browser.person import after
from tests.fake_pool import FakePool, end
from tests.scripted_pool import ScriptedPool

pytestmark = pytest.mark.asyncio(loop_scope="session")


def answer(*texts: str, reason: str = "stop") -> list:
    return [Started(7), *(TextDelta(0, text) for text in texts), end(reason=reason)]


async def test_an_answer_is_seen_while_it_is_written(person):
    gate = asyncio.Event()
    script = [Started(7), TextDelta(0, "Here is **the"), gate, TextDelta(0, " answer**."), end()]
    async with person.at(FakePool(script)) as url:
        await person.open(url)
        await expect(person.see(".greeting")).to_be_visible()
        await person.say("What is it?")
        await expect(person.see(".message.user .bubble")).to_have_text("What is it?")
        await expect(person.answers.locator("strong")).to_have_text("the")
        await expect(person.button("Stop")).to_be_enabled()
        await expect(person.page.locator("#message")).to_have_value("")
        gate.set()
        whole = await person.answered()
        await expect(whole.locator("p > strong")).to_have_text("the answer")
        await expect(whole.locator(".figures")).to_contain_text("tokens/s")
        await expect(person.see(".sessions li")).to_have_count(1)
        await expect(person.see(".sessions li")).to_contain_text("What is it?")
        assert "What is it?" in await person.page.title()
        await expect(person.see("#live")).to_have_text("The answer is complete.")


async def test_a_suggestion_is_a_beginning(person):
    async with person.at(FakePool()) as url:
        await person.open(url)
        await person.see(".suggestion").first.click()
        await expect(person.page.locator("#message")).to_have_value(
            "Explain how a hash table works, with an example."
        )
        await person.page.keyboard.press("Enter")
        await person.answered("Hello")


async def test_a_stopped_answer_says_so_and_can_be_gone_on_with(person):
    gate = asyncio.Event()
    pool = FakePool([Started(7), TextDelta(0, "One, two"), gate, end()], answer("three"))
    async with person.at(pool) as url:
        await person.open(url)
        await person.say("Count")
        await expect(person.answers).to_contain_text("One, two")
        await person.page.keyboard.press("Escape")
        stopped = await person.answered("One, two")
        await expect(stopped.locator(".mark.stopped")).to_have_text("You stopped this answer.")
        await person.button("Continue").click()
        await person.answered("three", 2)
        assert pool.requests[-1].messages[-1].content == "Continue exactly where you stopped."
        await person.page.reload()
        await expect(person.answers.first.locator(".mark.stopped")).to_be_visible()


async def test_an_edited_message_makes_a_branch_and_both_can_be_read(person):
    pool = FakePool(answer("to A"), answer("to B"), answer("more of A"))
    async with person.at(pool) as url:
        await person.open(url)
        await person.say("A")
        await person.answered("to A")
        await person.see(".message.user").hover()
        await person.see(".message.user").get_by_role("button", name="Edit").click()
        await person.page.get_by_role("textbox", name="Edit").fill("B")
        await person.page.keyboard.press("Enter")
        await person.answered("to B")
        user = person.see(".message.user")
        await expect(user.locator(".switcher")).to_have_text("2/2")
        await user.get_by_role("button", name="Previous version").click()
        await expect(user.locator(".bubble")).to_have_text("A")
        await person.answered("to A")
        await expect(user.locator(".switcher")).to_have_text("1/2")
        await expect(user.get_by_role("button", name="Next version")).to_be_focused()
        await user.get_by_role("button", name="Edit").click()
        await person.page.keyboard.press("Escape")
        await expect(user.get_by_role("button", name="Edit")).to_be_focused()
        await person.say("More")
        await person.answered("more of A", 2)
        assert [m.content for m in pool.requests[-1].messages] == ["A", "to A", "More"]
        await user.first.get_by_role("button", name="Next version").click()
        await person.answered("to B")
        await person.page.reload()
        await person.answered("to B")


async def test_an_answer_can_be_made_again(person):
    pool = FakePool(answer("first"), answer("second"))
    async with person.at(pool) as url:
        await person.open(url)
        await person.say("Hi")
        await person.answered("first")
        await person.button("Answer again").click()
        again = await person.answered("second")
        await expect(again.locator(".switcher")).to_have_text("2/2")
        await again.get_by_role("button", name="Previous version").click()
        await person.answered("first")
        assert [m.content for m in pool.requests[-1].messages] == ["Hi"]


async def test_a_new_conversation_begins_at_an_answer(person):
    pool = FakePool(answer("one"), answer("two"), answer("three"))
    async with person.at(pool) as url:
        await person.open(url)
        await person.say("First")
        await person.answered("one")
        await person.say("Second")
        await person.answered("two", 2)
        await person.answers.first.hover()
        await person.answers.first.get_by_role("button", name="Go on from here").click()
        await person.answered("one")
        await expect(person.see(".sessions li")).to_have_count(2)
        await person.say("Third")
        await person.answered("three", 2)
        said = [message.content for message in pool.requests[-1].messages]
        assert said == ["First", "one", "Third"]


async def test_thoughts_are_folded_and_timed(person):
    script = [Started(7), ReasoningDelta(0, "Let me *see*"), TextDelta(0, "Done"), end()]
    async with person.at(FakePool(script)) as url:
        await person.open(url)
        await person.say("Think")
        whole = await person.answered("Done")
        fold = whole.locator(".thinking")
        await expect(fold.locator("summary")).to_contain_text("Thought for")
        await expect(fold.locator(".thoughts")).to_be_hidden()
        await fold.locator("summary").click()
        await expect(fold.locator(".thoughts em")).to_have_text("see")


async def test_the_arguments_of_a_call_are_laid_out_as_they_come(person):
    gate = asyncio.Event()
    script = [
        Started(7),
        ToolCallDelta(0, 0, ToolCall("call_1", "weather", '{"city": "Os')),
        gate,
        ArgumentsDelta(0, 0, 'lo", "days": [1]}'),
        end(reason="tool_calls"),
    ]
    async with person.at(FakePool(script)) as url:
        await person.open(url)
        await person.say("Weather?")
        call = person.answers.locator(".tool")
        await expect(call.locator("summary code")).to_have_text("weather")
        await expect(call.locator("pre")).to_have_text('{\n  "city": "Os')
        gate.set()
        await person.answered()
        expected = '{\n  "city": "Oslo",\n  "days": [\n    1\n  ]\n}'
        await expect(call.locator("pre")).to_have_text(expected)


async def test_an_answer_that_fails_says_why_and_is_tried_again(person):
    failing = [Started(7), TextDelta(0, "Half"), WorkerLost("the worker died.")]
    async with person.at(FakePool(failing, answer("whole"))) as url:
        await person.open(url)
        await person.say("Go")
        half = await person.answered("Half")
        await expect(half.locator(".mark")).to_contain_text("the worker died.")
        await person.button("Try again").click()
        whole = await person.answered("whole")
        await expect(whole.locator(".switcher")).to_have_text("2/2")


async def test_what_is_refused_is_not_lost(person):
    pool = FakePool([Overloaded("too many wait.", retry_after=7)], answer("now"))
    async with person.at(pool) as url:
        await person.open(url)
        await person.say("Please")
        await expect(person.see("#banner .banner")).to_contain_text("too many wait.")
        await expect(person.page.locator("#message")).to_have_value("Please")
        await expect(person.answers).to_have_count(0)
        await person.button("Try again").click()
        await person.answered("now")
        await expect(person.see("#banner .banner")).to_have_count(0)
        await expect(person.page.locator("#message")).to_have_value("")


async def test_what_is_given_back_takes_the_place_of_nothing(person):
    first, second = asyncio.Event(), asyncio.Event()
    refusal = Overloaded("too many wait.", retry_after=7)
    pool = FakePool([first, refusal], [second, refusal], answer("now"))
    async with person.at(pool) as url:
        await person.open(url)
        box = person.page.locator("#message")
        await person.say("One")
        await box.fill("Two")
        first.set()
        await expect(box).to_have_value("One\n\nTwo")
        await person.button("Try again").click()
        await expect(box).to_have_value("Two")
        second.set()
        await expect(box).to_have_value("One\n\nTwo")
        await box.fill("One, in better words")
        await person.button("Try again").click()
        await person.answered("now")
        await expect(person.see(".bubble")).to_have_text("One")
        await expect(box).to_have_value("One, in better words")


async def test_what_the_server_has_not_taken_is_kept(person):
    pool = FakePool([asyncio.Event()], [asyncio.Event()])
    async with person.at(pool) as url:
        await person.open(url)
        box = person.page.locator("#message")
        await person.say("Wait for me")
        await pool.waiting.wait()
        await person.button("New chat").first.click()
        await expect(box).to_have_value("")
        await person.see(".session").click()
        await expect(box).to_have_value("Wait for me")
        await expect(person.see(".message")).to_have_count(0)
        pool.waiting.clear()
        await box.press("Enter")
        await pool.waiting.wait()
        await person.page.reload()
        await expect(box).to_have_value("Wait for me")


async def test_a_conversation_that_is_stopped_before_it_exists_does_not_stay(person):
    gate = asyncio.Event()
    async with person.at(FakePool()) as url:
        await person.open(url)
        box = person.page.locator("#message")
        await person.page.route("**/api/v1/sessions", after(gate))
        await person.say("Hi")
        await person.button("Stop").click()
        await expect(box).to_have_value("Hi")
        await box.press("Enter")
        await expect(box).to_have_value("")
        await person.button("New chat").first.click()
        await expect(box).to_have_value("Hi")
        gate.set()
        await box.press("Enter")
        await person.answered("Hello")
        await expect(person.see(".session")).to_have_text(["Hi"])


async def test_an_answer_that_could_not_be_stored_says_so(person, monkeypatch):
    async def full(self, message):
        raise StoreFailed

    monkeypatch.setattr(turn_module, "_PATIENCE", (0,))
    monkeypatch.setattr(Sessions, "save", full)
    async with person.at(FakePool()) as url:
        await person.open(url)
        await person.say("Hi")
        whole = await person.answered("Hello")
        await expect(whole.locator(".mark")).to_contain_text("could not store this answer")
        await expect(person.see("#live")).to_contain_text("could not store this answer")


async def test_a_cut_by_length_is_marked(person):
    async with person.at(FakePool(answer("Long", reason="length"))) as url:
        await person.open(url)
        await person.say("Go")
        whole = await person.answered("Long")
        await expect(whole.locator(".mark")).to_contain_text("greatest length")


async def test_earlier_messages_that_were_summed_up_are_told_of(person):
    async with person.at(ScriptedPool(512)) as url:
        await person.open(url)
        for number in range(4):
            await person.say(f"The {number}th word is w{number}. " + "so it goes " * 40)
            await person.answered("I do not know", number + 1)
        notice = person.see(".summary")
        await expect(notice.first).to_contain_text("Earlier messages were summed up")
        await notice.first.locator("summary").click()
        await person.page.reload()
        await expect(person.see(".summary").first).to_be_attached()


async def test_a_large_answer_leaves_the_page_usable(person):
    gate, part = asyncio.Event(), "Some **words** of it, `code`, and more of them.\n\n"
    block = "```python\n" + "x = 'a long line of code'  # here\n" * 20 + "```\n\n"
    half = [TextDelta(0, text) for text in ([part] * 9 + [block]) * 45]
    script = [Started(7), *half, gate, *half, TextDelta(0, "the end"), end()]
    assert sum(len(step.text) for step in script if isinstance(step, TextDelta)) > 100_000
    async with person.at(FakePool(script)) as url:
        await person.open(url)
        await person.say("Everything")
        await expect(person.answers.locator(".code")).to_have_count(45)
        await person.page.locator("#message").press_sequentially("I can write")
        await expect(person.page.locator("#message")).to_have_value("I can write")
        gate.set()
        whole = await person.answered("the end")
        await expect(whole.locator(".code")).to_have_count(90)
        await expect(whole.get_by_text("the end")).to_be_in_viewport()


async def test_what_was_not_sent_is_kept(person):
    async with person.at(FakePool()) as url:
        await person.open(url)
        await person.say("One")
        await person.answered("Hello")
        await person.page.fill("#message", "later")
        await person.button("New chat").first.click()
        await expect(person.page.locator("#message")).to_have_value("")
        await person.page.fill("#message", "new one")
        await person.page.reload()
        await person.ready()
        await expect(person.page.locator("#message")).to_have_value("new one")
        await person.see(".session").click()
        await person.answered("Hello")
        await expect(person.page.locator("#message")).to_have_value("later")


async def test_who_is_at_a_button_stays_there_when_an_answer_ends(person):
    gate = asyncio.Event()
    pool = FakePool(answer("one"), [Started(7), TextDelta(0, "two"), gate, end()])
    async with person.at(pool) as url:
        await person.open(url)
        await person.say("First")
        await person.answered("one")
        await person.say("Second")
        await expect(person.answers.last).to_contain_text("two")
        buttons = await person.see(".actions button").element_handles()
        copy = person.see(".message.user").first.get_by_role("button", name="Copy")
        await copy.focus()
        for waits in ("Edit", "Answer again"):
            await expect(person.button(waits)).to_have_count(0)
        gate.set()
        await person.answered("two", 2)
        await expect(person.button("Answer again")).to_have_count(2)
        await expect(copy).to_be_focused()
        assert all([await button.evaluate("(node) => node.isConnected") for button in buttons])


async def test_the_reader_may_stay_where_they_read(person):
    gate, more = asyncio.Event(), asyncio.Event()
    lines = "\n\n".join(f"Line {number}" for number in range(80))
    script = [Started(7), TextDelta(0, lines), gate, TextDelta(0, f"\n\n{lines}"), more, end()]
    top = "() => document.querySelector('.scroller').scrollTop"
    async with person.at(FakePool(script)) as url:
        await person.open(url)
        await person.say("Go")
        await expect(person.answers.get_by_text("Line 79")).to_be_in_viewport()
        await person.run("() => { document.querySelector('.scroller').scrollTop -= 900; }")
        await expect(person.button("Go to the end")).to_be_visible()
        before = await person.run(top)
        gate.set()
        await expect(person.answers.get_by_text("Line 79")).to_have_count(2)
        assert await person.run(top) == before
        await person.button("Go to the end").click()
        await expect(person.answers.get_by_text("Line 79").last).to_be_in_viewport()
        more.set()
        await person.answered()
