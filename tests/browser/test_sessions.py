"""The list of conversations: found, renamed, removed, taken out and in."""

import asyncio
import json

import httpx
import pytest
from playwright.async_api import expect

from inference import Started, TextDelta
from tests.fake_pool import FakePool, end

pytestmark = pytest.mark.asyncio(loop_scope="session")


def pool(*answers: str) -> FakePool:
    return FakePool(*([Started(7), TextDelta(0, text), end()] for text in answers))


async def talked(person, url: str, *said: str) -> None:
    """A conversation about each."""
    await person.open(url)
    for place, text in enumerate(said):
        if place:
            await person.button("New chat").first.click()
        await person.say(text)
        await person.answered()
        await expect(person.see(".sessions li")).to_have_count(place + 1)


async def menu_of(person, title: str) -> None:
    row = person.see(".sessions li", title)
    await row.hover()
    await row.get_by_role("button", name="Actions for").click()


async def test_the_list_is_grouped_by_day_and_opens_what_is_chosen(person):
    async with person.at(pool("about apples", "about pears")) as url:
        await talked(person, url, "Apples?", "Pears?")
        await expect(person.see(".sessions h3")).to_have_text(["Today"])
        await expect(person.see(".sessions li").first).to_contain_text("Pears?")
        await person.see(".session", "Apples?").click()
        await person.answered("about apples")
        await expect(person.see(".session[aria-current=page]")).to_contain_text("Apples?")
        await person.page.go_back()
        await person.answered("about pears")
        await person.button("New chat").first.click()
        await expect(person.see(".greeting")).to_be_visible()
        await person.page.go_back()
        await person.answered("about pears")


async def test_it_is_searched_by_what_was_said(person):
    async with person.at(pool("they grow on trees", "they swim")) as url:
        await talked(person, url, "Apples?", "Fish?")
        await person.page.keyboard.press("Control+k")
        await expect(person.page.locator("#search")).to_be_focused()
        await person.page.keyboard.type("trees")
        await expect(person.see(".session")).to_have_count(1)
        await expect(person.see(".session .snippet")).to_contain_text("trees")
        await person.page.fill("#search", "nothing at all")
        await expect(person.see(".sessions .none")).to_have_text("Nothing was found.")
        await person.page.fill("#search", "")
        await expect(person.see(".session")).to_have_count(2)


async def test_a_conversation_gets_another_name(person):
    async with person.at(pool("yes")) as url:
        await talked(person, url, "Apples?")
        await menu_of(person, "Apples?")
        await person.page.get_by_role("menuitem", name="Rename").click()
        await person.page.get_by_role("textbox", name="Rename").fill("Fruit")
        await person.page.keyboard.press("Enter")
        await expect(person.see(".session")).to_have_text("Fruit")
        await expect(person.see(".session")).to_be_focused()
        await expect(person.see(".title")).to_have_text("Fruit")
        await person.page.reload()
        await expect(person.see(".session")).to_have_text("Fruit")


async def test_nobody_is_disturbed_by_what_becomes_of_the_list(person):
    async with person.at(pool("yes")) as url:
        await talked(person, url, "Apples?")
        await menu_of(person, "Apples?")
        rename = person.page.get_by_role("menuitem", name="Rename")
        await person.another_renames(url, "Pears")
        await expect(person.see(".title")).to_have_text("Pears")
        assert await rename.is_visible()
        await rename.click()
        await person.page.keyboard.type("Half a na")
        await person.another_renames(url, "Plums")
        await expect(person.see(".title")).to_have_text("Plums")
        await expect(person.page.get_by_role("textbox", name="Rename")).to_have_value("Half a na")
        await person.page.keyboard.press("Escape")
        await expect(person.see(".session")).to_have_text("Plums")
        await person.button("New chat").first.click()
        await person.caught_up()
        await person.see(".session").hover()
        await person.page.mouse.down()
        async with person.page.expect_response("**/api/v1/sessions?*"):
            await person.another_renames(url, "Grapes")
        await person.caught_up()
        await person.page.mouse.up()
        await person.answered("yes")


async def test_a_button_opens_its_menu_and_closes_it(person):
    async with person.at(FakePool()) as url:
        await person.open(url)
        button, entries = person.button("More"), person.page.get_by_role("menuitem")
        for _ in range(2):
            await button.click()
            await expect(entries.first).to_be_focused()
            assert await button.get_attribute("aria-expanded") == "true"
            await button.click()
            await expect(entries).to_have_count(0)
            await expect(button).to_have_attribute("aria-expanded", "false")


async def test_what_is_deleted_can_be_had_back_for_a_while(person):
    async with person.at(pool("a", "b")) as url:
        await talked(person, url, "Apples?", "Pears?")
        await menu_of(person, "Pears?")
        await person.page.get_by_role("menuitem", name="Delete").click()
        await expect(person.see(".session")).to_have_text(["Apples?"])
        await expect(person.see(".greeting")).to_be_visible()
        note, box = [await person.see(it).bounding_box() for it in (".note", ".composer-box")]
        assert note["y"] + note["height"] <= box["y"]
        await person.button("Undo").click()
        await expect(person.see(".session")).to_have_count(2)
        await menu_of(person, "Apples?")
        await person.page.get_by_role("menuitem", name="Delete").click()
        gone = person.page.expect_response(lambda answer: answer.request.method == "DELETE")
        async with gone:
            await person.see("#notes").get_by_role("button", name="Close").click()
        await person.page.reload()
        await expect(person.see(".session")).to_have_text(["Pears?"])


async def test_what_was_deleted_elsewhere_stays_so(person):
    person.forgive("status of 404")
    async with person.at(pool("a")) as url:
        await talked(person, url, "Apples?")
        await menu_of(person, "Apples?")
        await person.page.get_by_role("menuitem", name="Delete").click()
        async with httpx.AsyncClient(base_url=url) as client:
            [listed] = (await client.get("/api/v1/sessions")).json()["sessions"]
            await client.delete(f"/api/v1/sessions/{listed['id']}")
        async with person.page.expect_response(lambda answer: answer.status == 404):
            await person.see("#notes").get_by_role("button", name="Close").click()
        await person.caught_up()
        await expect(person.see(".sessions .none")).to_be_visible()


async def test_what_is_deleted_is_gone_when_the_page_is_left(person):
    async with person.at(pool("a")) as url:
        await talked(person, url, "Apples?")
        await menu_of(person, "Apples?")
        await person.page.get_by_role("menuitem", name="Delete").click()
        await expect(person.see(".session")).to_have_count(0)
        await person.page.reload()
        async with httpx.AsyncClient(base_url=url) as client:
            while (await client.get("/api/v1/sessions")).json()["sessions"]:
                await asyncio.sleep(0.01)


async def test_a_conversation_goes_out_and_comes_back_in(person, tmp_path):
    async with person.at(pool("they **grow**")) as url:
        await talked(person, url, "Apples?")
        files = {}
        for kind in ("JSON", "Markdown"):
            await menu_of(person, "Apples?")
            async with person.page.expect_download() as coming:
                await person.page.get_by_role("menuitem", name=f"Export as {kind}").click()
            files[kind] = tmp_path / kind
            await (await coming.value).save_as(files[kind])
        assert "they **grow**" in files["Markdown"].read_text()
        assert json.loads(files["JSON"].read_text())["messages"][1]["content"] == "they **grow**"
        await person.button("More").click()
        async with person.page.expect_file_chooser() as choosing:
            await person.page.get_by_role("menuitem", name="Import a conversation").click()
        await (await choosing.value).set_files(files["JSON"])
        await expect(person.see(".session")).to_have_count(2)
        await person.answered("they grow")


async def test_what_nobody_has_answered_can_be_answered(person):
    message = {"id": "1", "parent": None, "role": "user", "content": "Are you there?"}
    about = {"title": "Open", "head": "1"}
    whole = {"format": "onebox.session.1", "session": about, "messages": [message]}
    async with person.at(pool("Yes.")) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            await client.post("/api/v1/sessions/import", json=whole)
        await person.open(url)
        await person.see(".session").click()
        await person.button("Answer this").click()
        await person.answered("Yes.")


async def test_a_file_that_is_no_conversation_is_refused(person, tmp_path):
    person.forgive("Failed to load resource")
    async with person.at(FakePool()) as url:
        await person.open(url)
        for content, told in (("not json", "not JSON"), ("{}", "format")):
            (file := tmp_path / "file.json").write_text(content)
            await person.button("More").click()
            async with person.page.expect_file_chooser() as choosing:
                await person.page.get_by_role("menuitem", name="Import a conversation").click()
            await (await choosing.value).set_files(file)
            await expect(person.see("#banner")).to_contain_text(told)


async def test_a_long_list_comes_in_parts(person):
    message = {"id": "1", "parent": None, "role": "user", "content": "Hi"}
    async with person.at(FakePool()) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            for number in range(60):
                about = {"title": f"Number {number}", "head": "1", "created": 1e9 + number}
                whole = {"format": "onebox.session.1", "session": about, "messages": [message]}
                await client.post("/api/v1/sessions/import", json=whole)
        await person.open(url)
        await expect(person.see(".session")).to_have_count(50)
        await person.button("Show more").click()
        await expect(person.see(".session")).to_have_count(60)
        await expect(person.button("Show more")).to_have_count(0)
