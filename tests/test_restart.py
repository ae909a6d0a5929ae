"""A server that ends in the middle of stored answers, and the one that comes after it."""

import asyncio
import re
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from websockets.exceptions import ConnectionClosed

from tests.talking import new_session, said, session, talking

COMMAND = [sys.executable, "-c", "from api.cli import app; app()", "serve", "--port", "0"]
CONFIG = """
server: {{drain_seconds: 0, database: {database}}}
models:
  demo:
    {{bundled: qwen3-demo, aliases: [default], slots: 8, context: 16384, thinking: false,
     sampling: {{plain: {{temperature: 0}}}}}}
"""
ANSWERS = 8


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "models.yaml"
    path.write_text(CONFIG.format(database=tmp_path / "chats.db"))
    return str(path)


@asynccontextmanager
async def started(config):
    """The address of a real server on the bundled model, and its process, ended in any case."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*COMMAND, "--config", config, stdout=pipe)
    try:
        lines = b""
        while not (found := re.search(rb"Ready at (http://\S+)", lines)):
            line = await asyncio.wait_for(process.stdout.readline(), 60)
            assert line, lines
            lines += line
        yield found[1].decode(), process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_eight_answers_in_the_middle_of_which_the_server_ends(config, how):
    sessions, acknowledged = [], []
    async with started(config) as (url, process), AsyncExitStack() as stack:
        whole = await new_session(url)
        async with talking(url) as talk:
            await talk.say(session_id=whole, message="What is the capital of France?")
            assert said(await talk.turn())
        for _ in range(ANSWERS):
            talk = await stack.enter_async_context(talking(url))
            sessions.append((await new_session(url), talk))
        for number, (id, talk) in enumerate(sessions):
            long = {"message": f"Count, {number}.", "ignore_eos": True, "max_tokens": 1900}
            await talk.say(session_id=id, **long)
        for id, talk in sessions:
            acknowledged.append((id, await talk.event()))
            assert (await talk.event())["type"] == "text"
        process.send_signal(how)
        for _, talk in sessions:
            with pytest.raises(ConnectionClosed):
                while True:
                    await talk.event()
        assert await asyncio.wait_for(process.wait(), 30) == (-9 if how == signal.SIGKILL else 0)
    async with started(config) as (url, _):
        [question, answer] = (await session(url, whole))["messages"]
        assert (question["state"], answer["state"]) == ("done", "done")
        assert "Paris" in answer["content"]
        for number, (id, start) in enumerate(acknowledged):
            question, answer = (await session(url, id))["messages"]
            assert (question["id"], question["content"]) == (
                start["user_message_id"],
                f"Count, {number}.",
            )
            assert (answer["id"], answer["state"]) == (start["message_id"], "cut")
            if how == signal.SIGTERM:
                assert answer["content"]
        id = acknowledged[0][0]
        async with talking(url) as talk:
            await talk.say(session_id=id, resume=True)
            assert (await talk.event())["type"] == "idle"
            await talk.say(session_id=id, message="What is the capital of France?")
            assert (await talk.turn())[-1]["type"] == "end"
        assert len((await session(url, id))["messages"]) == 4
