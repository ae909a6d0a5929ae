"""What the documentation shows to people who come from elsewhere: examples run, links lead on."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from setup.debian import where
from tests.nginx import missing

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs" / "coming").glob("*.md")), ROOT / "docs" / "chat.md"]
LINKED = [*PAGES, ROOT / "docs" / "deployment.md"]
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)")
SHELL = 'set -e; curl() { command curl --fail-with-body --silent --show-error "$@"; }\n'

pytestmark = pytest.mark.asyncio(loop_scope="module")


def examples():
    """Those that ask a server: programs, and lines of curl."""
    for page in PAGES:
        for number, (kind, text) in enumerate(BLOCK.findall(page.read_text())):
            if kind == "python" or "curl" in text:
                yield pytest.param(kind, text, id=f"{page.stem}-{number}")


@pytest.mark.parametrize(("kind", "text"), [*examples()])
async def test_an_example_runs_as_it_is_written(url, kind, text):
    if kind == "sh":
        missing("curl")
    host = url.removeprefix("http://")
    text, times = re.subn(r"127\.0\.0\.1:8000", host, text)
    assert times
    command = [sys.executable, "-c", text] if kind == "python" else ["bash", "-c", SHELL + text]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": f"{Path(where('curl') or '/').parent}:/usr/bin:/bin", "KEY": "unused"},
    )
    output, _ = await process.communicate()
    assert process.returncode == 0 and output.strip(), output.decode()
    assert b'"error"' not in output


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.stem)
async def test_links_lead_somewhere(page):
    for place, heading in LINK.findall(page.read_text()):
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), f"{place} is not there"
        assert not heading or heading[1:] in anchors(target), f"{place} has no {heading}"


def anchors(page: Path) -> set[str]:
    """Of its headings, as they are made of their words."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings}
