"""Nothing that is shown is ever run, fetched or followed, whoever wrote it and wherever it stands.

The watch over each browser (`Person.wrong`) sees dialogs, refusals of the policy, errors of scripts
and requests to other hosts.
"""

import httpx
import pytest
from playwright.async_api import expect

from inference import BadRequest, Started, TextDelta, WorkerLost
from tests.browser.payloads import CANARY, LONG, short
from tests.fake_pool import FakePool, end

pytestmark = pytest.mark.asyncio(loop_scope="session")

SHORT = short()
# What of all elements is not there, or is where it should not be.
INTRUDERS = """() => {
  const bad = 'script, iframe, object, embed, form, style, link, meta, base, video, audio, img';
  const found = [...document.body.querySelectorAll(bad)].map((node) => node.outerHTML);
  const leading = ['href', 'src', 'action', 'formaction', 'xlink:href', 'data'];
  const ours = /^(https?:|mailto:|\\/api\\/v1\\/sessions\\/)/;
  const wrong = ({ name, value }) => name.startsWith('on') || name === 'style'
    || name === 'srcdoc' || (leading.includes(name) && !ours.test(value));
  for (const node of document.body.querySelectorAll('*')) {
    if ([...node.attributes].some(wrong)) found.push(node.outerHTML);
  }
  return [...found, ...(window.__ran ? ['it ran'] : [])];
}"""


def conversation(texts: list[str], title: str) -> dict:
    """An export in which the texts are in every place that is shown."""
    messages, parent = [], None
    for number, text in enumerate(texts):
        for role in ("user", "assistant", "tool"):
            id = f"{role}{number}"
            message = {"id": id, "parent": parent, "role": role, "content": text}
            if role == "assistant":
                call = {"id": "c", "name": text[:200], "arguments": text}
                message |= {"reasoning": text, "model": text[:200], "tool_calls": [call]}
                message |= {"state": "failed", "error": text}
            messages.append(message)
            parent = id
    about = {"title": title[:200], "model": title[:200], "head": parent}
    summaries = [{"upto": "user0", "content": title, "facts": [title], "messages": 1}]
    return {
        "format": "onebox.session.1",
        "session": about,
        "messages": messages,
        "summaries": summaries,
    }


async def imported(url: str, conversations: list[dict]) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        for one in conversations:
            answer = await client.post("/api/v1/sessions/import", json=one)
            assert answer.status_code == 201, answer.text


async def test_there_are_enough_of_them():
    assert len({*SHORT, *LONG}) >= 200
    assert sum(CANARY in text for text in SHORT) > 150


async def test_answers_that_would_like_to_be_scripts(person):
    script = [Started(7)]
    for text in SHORT:
        half = len(text) // 2
        script += [TextDelta(0, "\n\n" + text[:half]), TextDelta(0, text[half:])]
    async with person.at(FakePool([*script, TextDelta(0, "\n\nthe end"), end()])) as url:
        await person.open(url)
        await person.say("Show me")
        await person.answered("the end")
        assert await person.run(INTRUDERS) == []


async def test_what_was_stored_in_every_place_that_is_shown(person):
    thirds = [SHORT[start::3] for start in range(3)]
    sessions = [conversation(texts, texts[0]) for texts in thirds]
    sessions += [conversation([title], title) for title in SHORT[::4]]
    async with person.at(FakePool()) as url:
        await imported(url, sessions)
        await person.open(url)
        await person.button("Show more").click()
        await expect(person.see(".session")).to_have_count(len(sessions))
        assert await person.run(INTRUDERS) == []
        for place in (-1, -2, -3):  # the first that came in are the last of the list
            await person.see(".session").nth(place).click()
            await expect(person.answers.last).to_be_visible()
            while await person.button("Show earlier messages").count():
                await person.button("Show earlier messages").click()
            await expect(person.answers).to_have_count(len(thirds[-1 - place]))
            assert await person.run(INTRUDERS) == []


async def test_names_of_models_and_what_errors_say(person):
    pool = FakePool(
        [BadRequest(SHORT[2], "message")],
        [Started(7), WorkerLost(SHORT[0])],
    )
    pool.now = pool.now.__class__(**{**_fields(pool.now), "name": SHORT[2]})
    async with person.at(pool) as url:
        await person.open(url, "/?x=<img src=x onerror=alert(1)>#<script>alert(1)</script>")
        await expect(person.page.locator("#model option").first).to_have_text(SHORT[2])
        await person.say(SHORT[4])
        await expect(person.see("#banner")).to_contain_text("onerror")
        await person.say(SHORT[4])
        failed = await person.answered()
        await expect(failed.locator(".mark")).to_contain_text("<script>")
        assert await person.run(INTRUDERS) == []


def _fields(status) -> dict:
    return {name: getattr(status, name) for name in status.__dataclass_fields__}


@pytest.mark.parametrize("text", LONG, ids=range(len(LONG)))
async def test_no_text_costs_more_than_its_length(workshop, text):
    """What a text becomes is bounded; that it becomes so at all within a call's limit of time says
    that nothing is tried again and again."""
    depth, nodes, shown = await workshop.run(
        """async (text) => {
          const { StreamingMarkdown } = await import('/page/stream.js');
          const box = document.createElement('div');
          new StreamingMarkdown(box).update(text, true);
          let depth = 0;
          for (const node of box.querySelectorAll('*')) {
            let at = 0;
            for (let up = node; up !== box; up = up.parentNode) at += 1;
            depth = Math.max(depth, at);
          }
          return [depth, box.querySelectorAll('*').length, box.textContent.length];
        }""",
        text,
    )
    assert depth <= 60
    assert nodes <= 2 * len(text) + 10
    assert shown <= 2 * len(text) + 100
