"""The last lines of the log: which, how long, and who else gets them."""

import logging
import subprocess
import sys

import httpx
import pytest

from api.log_tail import MAX_TEXT, MOST, LogTail
from tests.fake_pool import FakePool, served

OURS = ("api.somewhere", "inference.elsewhere", "uvicorn.error")


@pytest.fixture
def tail():
    tail = LogTail()
    with tail.attached():
        yield tail


@pytest.mark.parametrize("name", OURS)
def test_it_has_what_we_log(tail, name, caplog):
    with caplog.at_level(logging.WARNING, name):  # a server of another test may have set it
        logging.getLogger(name).warning("%s of %d", "one", 2)
    [line] = tail.lines()
    assert (line.level, line.logger, line.text) == ("WARNING", name, "one of 2")
    assert line.time > 1.7e9


def test_it_has_nothing_of_others_and_nothing_once_it_is_detached():
    tail = LogTail()
    with tail.attached():
        logging.getLogger("httpx").error("theirs")
    logging.getLogger("api.somewhere").error("ours, and nobody listens")
    assert tail.lines() == []


def test_it_keeps_the_last_ones(tail):
    for number in range(MOST + 3):
        logging.getLogger("api").error("%d", number)
    assert [line.text for line in tail.lines()] == [str(n) for n in range(3, MOST + 3)]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("one\n two\r\n\tthree ", "one two three"),
        ("a\x1b[31mb\x00c\u202e", "a?[31mb?c?"),
        ("é" * MAX_TEXT, "é" * MAX_TEXT),
        ("é" * (MAX_TEXT + 1), "é" * (MAX_TEXT - 3) + "..."),
    ],
)
def test_a_record_is_one_line_of_bounded_length(tail, said, kept):
    logging.getLogger("api").error("%s", said)
    assert [line.text for line in tail.lines()] == [kept]


def test_of_an_exception_it_has_the_name_only(tail):
    try:
        raise ValueError("what a client wrote")
    except ValueError:
        logging.getLogger("api").exception("It failed.")
    assert [line.text for line in tail.lines()] == ["It failed. (ValueError)"]


def test_a_record_that_cannot_be_written_harms_nobody(tail, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logging.getLogger("api").error("%d", "no number")
    logging.getLogger("api").error("next")
    assert [line.text for line in tail.lines()] == ["next"]


async def test_every_app_has_a_tail_of_its_own_while_it_runs():
    before = [list(logging.getLogger(name).handlers) for name in ("api", "inference")]
    async with (
        served(FakePool()) as (one, first),
        served(FakePool()) as (other, second),
        httpx.AsyncClient() as client,
    ):
        for url in (one, other):  # once it answers it listens
            await client.get(f"{url}/health")
        logging.getLogger("api").error("to both")
        tails = [server.config.app.state.log for server in (first, second)]
        assert [[line.text for line in tail.lines()] for tail in tails] == [["to both"]] * 2
    assert before == [list(logging.getLogger(name).handlers) for name in ("api", "inference")]


STDERR = """
import logging
from api.log_tail import LogTail
{more}
with LogTail().attached():
    logging.getLogger("api.guard").info("quiet")
    logging.getLogger("api.guard").error("loud")
"""


@pytest.mark.parametrize(
    ("more", "written"),
    [
        ("", "loud\n"),
        ("logging.getLogger('api').setLevel('INFO')", "loud\n"),
        ("logging.basicConfig(format='- %(message)s')", "- loud\n"),
        ("logging.getLogger('api').addHandler(logging.NullHandler())", ""),
    ],
)
def test_stderr_gets_what_it_would_get_without_it(more, written):
    code = STDERR.format(more=more)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr == written
