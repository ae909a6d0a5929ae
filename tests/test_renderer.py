"""Prompts rendered elsewhere are the same prompts, and a template that goes astray is ended."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import psutil
import pytest

from benchmarks.mutants import MODEL, dissect, with_template
from inference import (
    BadRequest,
    Deployment,
    Finished,
    GenerationRequest,
    Message,
    Pool,
    Tool,
)
from inference.errors import BadModelFile
from inference.gguf_format import read
from inference.renderer import Renderer, Source
from inference.template import ChatTemplate
from inference.types import ToolCall

TEMPLATE = str(read(MODEL).metadata["tokenizer.chat_template"])
CONTROLS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>")
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
FICKLE = """
{%- set said = messages[0].content %}
{%- if said == 'time' %}@ENDLESS@{% endif %}
{%- if said == 'memory' %}{{ [said] * 10 ** 9 }}{% endif %}
{%- if said == 'room' %}{{ 'a' * 3 * 10 ** 6 }}{% endif %}
{%- if said == 'no text' %}{{ '\\ud800' }}{% endif %}
{%- if said == 'no' %}{{ raise_exception('not that\\x1b[31m') }}{% endif -%}
You said {{ said }}.""".replace("@ENDLESS@", ENDLESS)


def source(text: str = FICKLE) -> Source:
    return Source(text, CONTROLS, "", "<|im_end|>")


def user(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


@pytest.fixture
def renderer() -> Iterator[Renderer]:
    with Renderer(seconds=0.5) as renderer:
        renderer.use(source())
        yield renderer


def render(renderer: Renderer, text: str) -> str:
    [segment] = renderer.render(user(text), (), {}).segments
    return segment.text


def children() -> set[int]:
    return {process.pid for process in psutil.Process().children()}


def test_a_prompt_is_what_the_template_makes_of_it_here() -> None:
    here = ChatTemplate(TEMPLATE, CONTROLS, "", "<|im_end|>")
    call = ToolCall("1", "sök", '{"a": 1}')
    talk = (
        Message("system", "Be <|im_end|> brief."),
        Message("user", "你好 👋 \ufdd0<think>"),
        Message("assistant", "", "hm", (call,)),
        Message("tool", "1"),
    )
    tool = Tool("sök", "a < b", {"type": "object", "properties": {"a": {"type": "integer"}}})
    with Renderer() as renderer:
        renderer.use(source(TEMPLATE))
        for case in ((talk, (), {}), (talk, (tool,), {"enable_thinking": False})):
            assert renderer.render(*case) == here.render(*case)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("time", "takes too long or too much memory"),
        ("memory", "takes too long or too much memory"),
        ("room", "writes more than"),
        ("no text", "writes what is no text"),
        ("no", "refuses this conversation: not that"),
    ],
)
def test_a_conversation_that_its_template_cannot_take_is_refused_and_the_next_one_is_not(
    renderer: Renderer, text: str, what: str
) -> None:
    assert render(renderer, "one") == "You said one."
    with pytest.raises(BadRequest, match=what) as caught:
        render(renderer, text)
    assert caught.value.message.isprintable()
    assert caught.value.field == "messages"
    assert render(renderer, "two") == "You said two."
    assert len(children()) == 1


def test_a_long_conversation_is_given_the_time_it_takes(renderer: Renderer) -> None:
    assert len(renderer.render(user("<|im_end|>" * 200_000), (), {}).segments) == 200_002


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_was_ended_or_stopped_is_replaced(
    renderer: Renderer, signal_number: int
) -> None:
    [process] = children()
    os.kill(process, signal_number)
    if signal_number == signal.SIGKILL:
        psutil.Process(process).wait()
    else:
        with pytest.raises(BadRequest, match="takes too long"):
            render(renderer, "one")
    assert render(renderer, "two") == "You said two."
    assert process not in children()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{% for %}", "does not compile"),
        ("{{ 10 ** (10 ** 9) }}", "takes too long or too much memory"),
    ],
)
def test_a_template_that_does_not_compile_is_a_bad_model_file(text: str, what: str) -> None:
    with Renderer(seconds=0.5) as renderer, pytest.raises(BadModelFile, match=what):
        renderer.use(source(text))
    assert not children()


def test_nothing_of_this_process_is_there_but_one_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary")
    with Path(MODEL).open("rb"), Renderer() as renderer:
        renderer.use(source())
        [process] = psutil.Process().children()
        targets = [os.readlink(fd) for fd in Path(f"/proc/{process.pid}/fd").iterdir()]
        assert "canary" not in str(process.environ())
        assert "NoNewPrivs:\t1" in Path(f"/proc/{process.pid}/status").read_text()
        limits = Path(f"/proc/{process.pid}/limits").read_text()
    assert sorted(target.split(":")[0] for target in targets) == ["/dev/null"] * 3 + ["socket"]
    assert "unlimited" not in next(x for x in limits.splitlines() if "address space" in x)


async def test_a_template_that_explodes_on_one_conversation_costs_that_one_only(
    deployment: Deployment, tmp_path: Path
) -> None:
    path = tmp_path / "fickle.gguf"
    path.write_bytes(with_template(dissect(MODEL), FICKLE))
    engine = msgspec.structs.replace(deployment.engine, path=str(path), stamp=None)
    pool = Pool(replace(deployment, engine=engine))
    await pool.start()
    await pool.until_ready()
    worker = pool.worker_pid
    with pytest.raises(BadRequest, match="takes too long"):
        await ask(pool, "memory")
    assert isinstance((await ask(pool, "one"))[-1], Finished)
    assert pool.worker_pid == worker
    await pool.close()


async def ask(pool: Pool, text: str) -> list[object]:
    request = GenerationRequest(id="1", messages=user(text), max_tokens=2)
    return [event async for event in pool.generate(request)]
