"""The whole thing as a user meets it: `onebox serve`, curl-like requests, the openai client.

`ONEBOX_TEST_MODEL` names another model than the bundled one; the card's examples are then left out.
"""

import asyncio
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from api import keys

ONEBOX = Path(sys.executable).with_name("onebox")
DEMO = Path(__file__).parents[1] / "inference" / "demo"
MODEL = os.environ.get("ONEBOX_TEST_MODEL", "qwen3-demo")
SURE = 200  # characters
EXAMPLES = json.loads((DEMO / "examples.json").read_text()) if MODEL == "qwen3-demo" else []


@contextmanager
def running(*arguments: str) -> Iterator[tuple[str, str]]:
    """A server's address and what it printed until it was ready."""
    command = [ONEBOX, "serve", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        printed = ""
        while "curl" not in printed:
            line = process.stdout.readline()
            assert line, printed
            printed += line
        try:
            yield re.search(r"http://[\d.:]+", printed).group(), printed
        finally:
            process.send_signal(signal.SIGTERM)
            process.stdout.read()
            assert process.wait(30) == 0


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[str, str]]:
    with running(MODEL, "--port", "0", "--slots", "8", "--context", "8192") as server:
        yield server


@pytest.fixture(scope="module")
def url(served) -> str:
    return served[0]


@pytest.fixture
def client(url) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, text: str, **kwargs):
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.create(model=MODEL, messages=messages, **kwargs)


def metric(url: str, name: str) -> float:
    text = httpx.get(f"{url}/metrics").text
    return float(re.search(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE).group(1))


def test_serve_prints_the_plan_and_a_curl_line_that_works_when_pasted(served):
    _, printed = served
    assert MODEL in printed and "Context" in printed
    line = next(line for line in printed.splitlines() if line.strip().startswith("curl"))
    out = subprocess.run(shlex.split(line), capture_output=True, text=True, check=True).stdout
    assert json.loads(out)["choices"][0]["message"]["content"]


@pytest.mark.parametrize("example", EXAMPLES, ids=[e["title"] for e in EXAMPLES])
def test_the_model_card_tells_the_truth(url, example):
    """The card's examples, over HTTP, word for word; of a story the beginning, since how it goes on
    is so close in places that another CPU may round it otherwise."""
    reply = httpx.post(f"{url}/v1/chat/completions", json=example["request"], timeout=60).json()
    answer = as_written(reply["choices"][0]["message"])
    assert answer[:SURE] == example["answer"][:SURE]


def as_written(message: dict) -> str:
    """What the model wrote, from the channels it was split into."""
    text = ""
    if message.get("reasoning_content"):
        text += f"<think>\n{message['reasoning_content']}\n</think>\n\n"
    text += message["content"] or ""
    for call in message.get("tool_calls", ()):
        function = call["function"]
        body = f'{{"name": "{function["name"]}", "arguments": {function["arguments"]}}}'
        text += f"<tool_call>\n{body}\n</tool_call>"
    return text


def test_a_stream_says_what_the_whole_answer_says(client):
    whole = ask(client, "Tell me a story.", temperature=0, max_tokens=60)
    stream = ask(
        client,
        "Tell me a story.",
        temperature=0,
        max_tokens=60,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 60
    assert len(chunks) >= 4  # the role, some text, the end, what it took


def test_eight_clients_at_once_get_what_one_gets(client):
    questions = [f"What is {n} + {n + 1}?" for n in range(8)]

    def content(question: str) -> str:
        return ask(client, question, temperature=0).choices[0].message.content

    alone = [content(q) for q in questions]
    with ThreadPoolExecutor(8) as together:
        assert list(together.map(content, questions)) == alone


def test_completions_take_text_and_token_ids(client):
    text = client.completions.create(model="default", prompt="Hello", max_tokens=4, temperature=0)
    assert text.usage.completion_tokens == 4
    ids = client.completions.create(model="default", prompt=[1, 2, 3], max_tokens=4)
    assert ids.usage.prompt_tokens == 3


def test_a_stop_string_ends_the_text_before_itself(client):
    whole = ask(client, "Tell me a story.", temperature=0).choices[0].message.content
    word = whole.split()[5]
    stopped = ask(client, "Tell me a story.", temperature=0, stop=[word])
    assert stopped.choices[0].message.content == whole[: whole.index(word)]
    assert stopped.choices[0].finish_reason == "stop"


def test_models_are_listed_with_their_context(client):
    model, *_ = client.models.list().data
    assert model.id == MODEL
    assert client.models.retrieve(MODEL).id == MODEL


def test_refusals_have_their_status_before_anything_streams(client):
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.BadRequestError) as error:
        ask(client, "word " * 3000, stream=True)
    assert error.value.code == "context_length_exceeded"


def test_a_request_that_outlives_its_own_timeout_says_so(client):
    body = {"timeout": 0.01, "ignore_eos": True}
    with pytest.raises(openai.APIStatusError, match=r"deadline of 0\.01 seconds") as refusal:
        ask(client, "Hello!", max_tokens=1500, extra_body=body)
    assert (refusal.value.status_code, refusal.value.code) == (408, "deadline_exceeded")


def test_prompts_are_computed_again_for_another_salt(client):
    question = "What is the capital of a country that nobody asked about before?"

    def cached(salt: str) -> int:
        reply = ask(client, question, max_tokens=1, extra_body={"cache_salt": salt})
        return reply.usage.prompt_tokens_details.cached_tokens

    assert cached("mine") == 0
    assert cached("mine") > 10
    assert cached("yours") == 0


async def test_clients_that_hang_up_leave_nothing_running(url):
    async with httpx.AsyncClient(timeout=30) as client:
        body = {"messages": [{"role": "user", "content": "Tell me a story."}], "ignore_eos": True}

        async def hang_up(stream: bool) -> None:
            request = {**body, "stream": stream}
            async with asyncio.timeout(0.3):
                async with client.stream("POST", f"{url}/v1/chat/completions", json=request) as r:
                    async for _ in r.aiter_bytes():
                        pass

        outcomes = await asyncio.gather(
            *(hang_up(stream=n % 2 == 0) for n in range(20)), return_exceptions=True
        )
        assert all(isinstance(o, TimeoutError) for o in outcomes)
        async with asyncio.timeout(20):
            while metric(url, "onebox_requests_running") or metric(url, "onebox_requests_waiting"):
                await asyncio.sleep(0.02)


def test_a_server_and_its_workers_talk_to_clients_only(url, client):
    assert ask(client, "Hello!").choices[0].message.content
    server, port = server_at(url), int(url.rsplit(":", 1)[1])
    workers = server.children(recursive=True)
    assert all(c.laddr.port == port for c in server.net_connections("inet"))
    assert workers and not any(worker.net_connections("inet") for worker in workers)


def test_the_server_outlives_its_worker(url, client):
    assert httpx.get(f"{url}/ready").status_code == 200
    [worker] = children_of_server(url)
    os.kill(worker, signal.SIGKILL)
    wait_for(url, 503)
    assert httpx.get(f"{url}/health").status_code == 200
    assert ask(client, "Hello!").choices[0].message.content  # it waits for the next one
    wait_for(url, 200)
    assert metric(url, "onebox_worker_restarts_total") == 1


def test_a_server_with_keys_answers_who_has_one_under_the_names_it_was_given(tmp_path):
    config = tmp_path / "models.yaml"
    config.write_text(
        "server: {keys: keys.json, port: 0, allowed_hosts: [chat.example]}\n"
        "models: {qwen3-demo: {bundled: qwen3-demo, aliases: [default], thinking: false}}\n"
        "defaults: {sampling: {plain: {temperature: 0}}}\n"
    )
    secret = keys.add(tmp_path / "keys.json", "alice")
    size = "--slots", "1", "--context", "512"
    with running("--config", str(config), *size) as (url, printed):
        assert "Authorization: Bearer YOUR_KEY" in printed
        chat = [ONEBOX, "chat", "--url", url]
        for key, said in (secret, "Hello"), ("", "An API key is needed"):
            env = os.environ | {"ONEBOX_API_KEY": key}
            talk = subprocess.run(
                chat, input="Hello!", capture_output=True, text=True, env=env, check=True
            )
            assert said in talk.stdout
        headers = {"x-api-key": secret, "Host": "chat.example"}
        assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 200


def server_at(url: str) -> psutil.Process:
    port = int(url.rsplit(":", 1)[1])
    for process in psutil.Process().children():
        if any(
            c.laddr.port == port for c in process.net_connections("tcp") if c.status == "LISTEN"
        ):
            return process
    raise AssertionError(f"nobody listens at {url}")


def children_of_server(url: str) -> list[int]:
    return [child.pid for child in server_at(url).children()]


def wait_for(url: str, status: int) -> None:
    for _ in range(3000):
        if httpx.get(f"{url}/ready").status_code == status:
            return
    raise AssertionError(f"/ready never answered {status}")
