"""The command line: what it prints, and one sentence with the right status when it cannot."""

import asyncio
import signal
import socket
import sys
from types import SimpleNamespace

import pytest
from huggingface_hub import close_session
from typer.testing import CliRunner

from api import cli, terminal
from api.terminal import greeting
from inference import Check, Message, Overloaded, ReasoningDelta, Started, TextDelta, WorkerLost
from tests.fake_pool import FakePool, end, serving
from tests.hub_stand_in import REPO, hub_stand_in

COMMAND = [sys.executable, "-c", "from api.cli import app; app()"]
CONFIG = """
models:
  here: {path: weights.gguf, aliases: [default, mine]}
  gone: {path: nothing.gguf}
  far: {hub: {repo: some/where, quant: Q8_0, files: {Q8_0: far-q8.gguf, Q4_K_M: far-q4.gguf}}}
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "weights.gguf").write_bytes(b"not really")
    path = tmp_path / "models.yaml"
    path.write_text(CONFIG)
    return str(path)


def run(*arguments, **kwargs):
    return CliRunner().invoke(cli.app, arguments, **kwargs)


def test_the_version_is_printed():
    assert run("--version").stdout.startswith("onebox ")


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("serve", "--config", "/nowhere.yaml"), 78, "/nowhere.yaml"),
        (("serve", "here", "--port", "0"), 66, "weights.gguf"),
        (("serve", "no-such-model", "--port", "0"), 66, "no-such-model"),
        (("serve", "far", "--port", "0"), 69, "onebox pull far"),
        (("serve", "--host", "256.0.0.1", "--port", "0"), 69, "256.0.0.1"),
        (("chat", "gone"), 66, "nothing.gguf"),
        (("pull", "no-such-model"), 66, "no-such-model"),
        (("pull", "gone"), 66, "nothing.gguf"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_a_status(arguments, status, says, config):
    if "--config" not in arguments:
        arguments += ("--config", config)
    result = run(*arguments)
    assert result.exit_code == status
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


async def test_a_port_in_use_is_found_before_the_model_is_looked_for():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "serve", "no-such-model", "--port", str(port), stderr=asyncio.subprocess.PIPE
        )
        _, stderr = await process.communicate()
    assert process.returncode == 69
    reason, advice = "address already in use", "choose another with --host or --port"
    assert stderr.decode() == f"Cannot listen on 127.0.0.1:{port}: {reason}; {advice}.\n"


@pytest.mark.parametrize("keyed", [True, False])
def test_the_greeting_says_where_the_page_is_and_how_to_come_in(keyed):
    answering = SimpleNamespace(header=SimpleNamespace(pooling=None))
    said = greeting("http://127.0.0.1:8000", answering, keyed=keyed)
    assert "Open http://127.0.0.1:8000/ in a browser" in said
    assert ("sign in there with an API key" in said) == ("YOUR_KEY" in said) == keyed


def test_models_shows_what_can_be_served_and_what_is_here(config, monkeypatch):
    monkeypatch.setattr(terminal.console, "width", 200)
    lines = run("models", "--config", config).stdout.splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert rows == [
        ["here", "mine", "", "yes", "yes"],
        ["gone", "", "", "no", ""],
        ["far", "", "Q8_0, Q4_K_M", "no", ""],
    ]


def test_pulling_what_needs_no_download_is_done(config):
    assert run("pull", "here", "--config", config).stdout == "here is installed.\n"


def test_what_is_pulled_is_here_afterwards(tmp_path):
    config = tmp_path / "models.yaml"
    hub = f"{{repo: {REPO}, quant: Q8_0, files: {{Q8_0: weights-Q8_0.gguf}}}}"
    config.write_text(f"models: {{far: {{aliases: [default], hub: {hub}}}}}")
    with hub_stand_in(b"weights") as served:
        env = {"HF_ENDPOINT": served.url, "HF_HUB_CACHE": str(tmp_path / "cache")}
        pulled = run("pull", "far", "--config", str(config), env=env)
        listed = run("models", "--config", str(config), env=env)
        close_session()
    assert pulled.exit_code == 0
    assert pulled.stdout.endswith("far is installed.\n") and "7/7 bytes" in pulled.stdout
    assert listed.stdout.count("Q8_0") == 2


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warn", 0), ("fail", 1)])
def test_doctor_fails_exactly_when_a_check_fails(status, code, monkeypatch):
    checks = [Check("port", "ok", "8000 is free"), Check("GPU", status, "[found]", "do this")]
    monkeypatch.setattr(cli, "examine", lambda: checks)
    result = run("doctor")
    assert result.exit_code == code
    assert "[found]" in result.stdout and "do this" in result.stdout


async def chat(pool, lines):
    async with serving(pool) as url:
        arguments = ("chat", "--url", f"{url}/v1")
        return await asyncio.to_thread(run, *arguments, input="\n".join(lines) + "\n")


async def test_a_chat_shows_answers_and_remembers_them():
    thinks = [Started(7), ReasoningDelta(0, "hm"), TextDelta(0, "Hello \x1b[31m"), end()]
    pool = FakePool(thinks)
    result = await chat(pool, ["Hi", "/think off", "And?", "/clear", "/think on", "New", "/exit"])
    assert result.exit_code == 0
    assert "hm\n\nHello [31m\n" in result.stdout
    first, second, third = pool.requests
    assert (first.thinking, second.thinking, third.thinking) == (None, False, True)
    said = Message("assistant", "Hello \x1b[31m")
    assert second.messages == (Message("user", "Hi"), said, Message("user", "And?"))
    assert third.messages == (Message("user", "New"),)


async def test_a_chat_goes_on_after_an_error_and_ends_with_its_input():
    lost = [Started(7), WorkerLost("the worker died")]
    result = await chat(FakePool([Overloaded("the queue is full")], lost), ["One", "Two", "Three"])
    assert result.exit_code == 0
    assert "the queue is full\n" in result.stdout
    assert "the worker died\n" in result.stdout
    assert result.stdout.count("Hello\n") == 1


def test_a_chat_with_nobody_is_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    result = run("chat", "--url", url, input="Hi\n")
    assert f"{url} does not answer" in result.stdout


async def test_ctrl_c_stops_the_answer_and_not_the_chat():
    pool = FakePool([Started(7), TextDelta(0, "Hel"), asyncio.Event()])
    async with serving(pool) as url:
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *("chat", "--url", url),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            process.stdin.write(b"Hi\n")
            await asyncio.wait_for(process.stdout.readuntil(b"Hel"), 60)
            process.send_signal(signal.SIGINT)
            await asyncio.wait_for(pool.cancelled.wait(), 60)
            output, _ = await asyncio.wait_for(process.communicate(b"Again\n/exit\n"), 60)
        finally:
            if process.returncode is None:
                process.kill()
    assert process.returncode == 0
    assert b"(stopped)" in output and b"Hello" in output
    assert pool.requests[1].messages[1] == Message("assistant", "Hel")
