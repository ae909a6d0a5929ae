"""The files of the page as any client gets them."""

import re
from email.message import Message
from pathlib import Path

import httpx
import pytest

from api.page.files import PATHS
from tests.fake_pool import FakePool, serving

STATIC = Path(__file__).parents[1] / "api" / "page" / "static"
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
async def client():
    async with serving(FakePool()) as url, httpx.AsyncClient(base_url=url) as client:
        yield client


async def test_a_browser_gets_the_page_and_ollamas_clients_their_line(client):
    page = await client.get("/", headers=HTML)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text.startswith("<!doctype html>")
    for accept in ("*/*", "application/json"):
        line = await client.get("/", headers={"Accept": accept})
        assert (line.text, line.headers["vary"]) == ("Ollama is running", "Accept")
    assert page.headers["vary"] == "Accept"


async def test_every_file_is_there_with_its_type(client):
    types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    assert {f"/page/{path.name}" for path in STATIC.iterdir()} - {"/page/index.html"} == PATHS
    for path in sorted(PATHS):
        got, asked = await client.get(path), await client.head(path)
        media = Message()
        media["content-type"] = got.headers["content-type"]
        assert media.get_content_type() == types[Path(path).suffix]
        assert got.content == (STATIC / Path(path).name).read_bytes()
        assert got.headers["cache-control"] == "no-cache"
        assert (asked.status_code, asked.content) == (200, b"")
        assert asked.headers["etag"] == got.headers["etag"]


async def test_what_has_not_changed_is_not_sent_again(client):
    tag = (await client.get("/page/main.js")).headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}'):
        again = await client.get("/page/main.js", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    other = await client.get("/page/main.js", headers={"If-None-Match": '"other"'})
    assert other.status_code == 200


@pytest.mark.parametrize(
    "path", ["/page/", "/page", "/page/index.html", "/page/../app.py", "/page/%2e%2e/app.py"]
)
async def test_nothing_else_is_there(client, path):
    assert (await client.get(path, headers=HTML)).status_code == 404


def test_the_page_asks_for_all_of_its_modules_at_once():
    """Else a browser learns of each only from the one that imports it."""
    needed, todo = set(), ["main.js"]
    while todo:
        found = re.findall(r'from "\./(\w+\.js)"', (STATIC / todo.pop()).read_text())
        todo += {*found} - needed
        needed |= {*found}
    listed = re.findall(r'rel="modulepreload" href="/page/(\w+\.js)"', _index())
    assert sorted(needed) == listed


def _index() -> str:
    return (STATIC / "index.html").read_text()


# What would make text a program, or an element out of text.
NEVER = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser"
    r"|createContextualFragment|setHTML|srcdoc|[\"'`]javascript:|setAttribute\(\"style"
    r"|<style|<script(?! )"
)
ELSEWHERE = re.compile(r"[\"'(]\s*(?:https?:)?//(?!www\.w3\.org/2000/svg)[a-z0-9]")


@pytest.mark.parametrize("path", sorted(STATIC.iterdir()), ids=lambda path: path.name)
def test_the_source_makes_no_program_of_text_and_asks_nobody_else(path):
    source = path.read_text()
    assert not NEVER.findall(source)
    assert not ELSEWHERE.findall(source)
    assert len(source.splitlines()) <= 350


@pytest.mark.parametrize(
    "source",
    ["node.innerHTML = x", "eval(x)", 'el.setAttribute("style", x)', "<script>x</script>"],
)
def test_what_is_never_written_is_seen(source):
    assert NEVER.search(source)


@pytest.mark.parametrize("source", ["url(//host/x)", "from 'https://host/x.js'"])
def test_what_is_elsewhere_is_seen(source):
    assert ELSEWHERE.search(source)
