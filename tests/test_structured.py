"""Constrained answers of the bundled model: through the engine, a worker, and the whole server."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import replace

import jsonschema_rs
import msgspec
import pytest
from openai import AsyncOpenAI, BadRequestError

from benchmarks.structured import answers, forced_calls, problem_of
from inference import (
    BadRequest,
    Constraint,
    Message,
    Pool,
    ReasoningDelta,
    Sampling,
    TextDelta,
    Wishes,
    load_config,
    prepare,
)
from inference import scheduler as scheduler_module
from inference.engine import Engine
from inference.intake import Intake
from inference.llama import Llama
from inference.renderer import Renderer
from inference.sequence import Chunk, SamplingParams, Sequence
from inference.wire import Submit, Text
from tests.fake_pool import serving
from tests.test_engine import run, scheduler_for
from tests.test_recovery import answer, chat, kill_when

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 30},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "likes": {"type": "array", "items": {"enum": ["tea", "rain", "chess"]}, "maxItems": 3},
    },
    "required": ["name", "age", "likes"],
    "additionalProperties": False,
}
ASKED = Constraint("schema", "response_format", json.dumps(PERSON))
QUESTIONS = ("Tell me a story.", "My name is Ada.", "What is the capital of France?", "Hello!")


def is_person(text: str) -> bool:
    return jsonschema_rs.is_valid(PERSON, json.loads(text))


@pytest.fixture
def guided(llama) -> Iterator:
    """The sequences of a prompt, all kept to one thing."""
    with Renderer() as renderer:
        intake = Intake(llama, renderer)

        def make(prompt: str, **kwargs) -> list[Sequence]:
            sampling = kwargs.pop("sampling", SamplingParams(temperature=0))
            submit = Submit(
                id=1,
                prompt=Text(prompt),
                sampling=sampling,
                constraint=kwargs.pop("constraint", ASKED),
                **kwargs,
            )
            return intake.sequences(submit)[0]

        yield make
    for slot in range(8):
        llama.keep(slot, 0)


def text_of(llama: Llama, seq: Sequence) -> str:
    return b"".join(llama.pieces[t] for t in seq.tokens[seq.prompt_len :]).decode()


class Guessing:
    """Guesses two tokens in every step: the right ones now and then, and what no grammar takes."""

    def __init__(self, right: dict[str, list[int]]) -> None:
        self._right = right

    def chunks(self, decoding):
        return tuple(self._chunk(seq) for seq in decoding)

    def _chunk(self, seq):
        rest = self._right[tuple(seq.tokens[: seq.prompt_len])][seq.generated :]
        guess = ([*rest, 5, 5] if seq.generated % 2 else [*rest[:1], 5])[:2]
        return Chunk(seq, seq.computed, 1, tuple(guess[: seq.spare]))


def test_guesses_change_no_guided_answer(llama, guided):
    right = {}
    for question in QUESTIONS:
        [seq] = guided(question)
        run(Engine(llama), [seq], scheduler_for(llama))
        assert is_person(text_of(llama, seq))
        right[tuple(seq.tokens[: seq.prompt_len])] = seq.tokens[seq.prompt_len :]
    scheduler = scheduler_for(llama, drafts=16)
    scheduler._speculation = Guessing(right)
    sequences = [seq for question in QUESTIONS for seq in guided(question)]
    run(Engine(llama), sequences, scheduler)
    assert [seq.tokens[seq.prompt_len :] for seq in sequences] == list(right.values())
    assert 0 < scheduler.counters.accepted < scheduler.counters.drafted


def test_choices_are_guided_each_on_its_own(llama, guided):
    drawn = SamplingParams(temperature=1.5, seed=3)
    choices = guided("Hello!", sampling=drawn, n=3)
    scheduler = scheduler_for(llama)
    scheduler.add(choices)
    run(Engine(llama), [], scheduler)
    texts = [text_of(llama, seq) for seq in choices]
    assert all(is_person(text) for text in texts) and len({*texts}) == 3


def test_a_guided_answer_that_is_computed_again_goes_on_as_it_would_have(
    deployment, llama, guided, monkeypatch
):
    """Eight of them in fewer cells than half of what they need."""
    monkeypatch.setattr(scheduler_module, "HEADROOM", 0)
    config = msgspec.structs.replace(deployment.engine, unified=True)
    with closing(Llama(config)) as unified:
        scheduler = scheduler_for(unified, cells=120)
        sequences = [seq for question in QUESTIONS * 2 for seq in guided(question)]
        run(Engine(unified), sequences, scheduler)
        assert scheduler.counters.preemptions
    assert all(is_person(text_of(llama, seq)) for seq in sequences)


def test_an_answer_ends_with_what_makes_it_whole(llama, guided):
    """Also where it was to be longer, or never to end."""
    for wish in ({}, {"ignore_eos": True}, {"min_tokens": 500}):
        [seq] = guided("Hello!", **wish)
        scheduler = scheduler_for(llama)
        scheduler.add([seq])
        ends = []
        while not scheduler.idle:
            plan = scheduler.plan(0.0)
            ends += scheduler.commit(plan, Engine(llama).step(plan), 0.0)
        assert is_person(text_of(llama, seq)) and ends[-1].reason == "stop"
        assert seq.tokens[-1] not in llama.end_tokens
        assert seq.generated < 500


async def test_schemas_and_calls_hold_however_an_answer_is_drawn():
    """A small version of `python -m benchmarks.structured`."""
    wishes = Wishes(context=16 * 4096, slots=16)
    pool = Pool(prepare(load_config(), "qwen3-demo", wishes, tuned=False))
    await pool.start()
    await pool.until_ready()
    cases = [*answers(4, seed=11), *forced_calls(8, seed=11)]
    assert {*await asyncio.gather(*(problem_of(pool, case) for case in cases))} == {""}
    await pool.close()


async def test_nobody_can_tell_that_the_worker_of_a_guided_answer_was_killed(pool):
    drawn = Sampling(temperature=1, seed=5)
    kinds = ({}, {"sampling": drawn, "n": 2}, {"thinking": True}, {"speculate": False})
    requests = [
        chat(f"{question} ({kind})", constraints=(ASKED,), max_tokens=400, **kinds[kind])
        for question in QUESTIONS
        for kind in range(4)
    ]
    undisturbed = await asyncio.gather(*(answer(pool, request) for request in requests))
    said = pool.status().stats.completion_tokens
    running = [asyncio.create_task(answer(pool, request)) for request in requests]
    await kill_when(pool, said + 150)
    assert await asyncio.gather(*running) == undisturbed
    assert pool.status().restarts == 1


async def test_a_model_thinks_freely_and_then_answers_as_asked(pool):
    request = chat("What is the capital of France?", constraints=(ASKED,), thinking=True)
    events = [event async for event in pool.generate(request)]
    thoughts = "".join(e.text for e in events if isinstance(e, ReasoningDelta))
    assert thoughts and "{" not in thoughts
    assert is_person("".join(e.text for e in events if isinstance(e, TextDelta)))


async def test_an_answer_cannot_be_two_things(pool):
    wishes = (ASKED, Constraint("regex", "guided_regex", "a"))
    with pytest.raises(BadRequest, match="guided_regex: response_format already says"):
        await anext(pool.generate(chat("Hello!", constraints=wishes)))


@pytest.fixture
async def client(deployment) -> AsyncIterator[AsyncOpenAI]:
    pool = Pool(deployment)
    async with serving(pool) as url:
        await pool.until_ready()
        client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        yield client
        await client.close()


HI = [{"role": "user", "content": "Hello!"}]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": PERSON}}


async def test_the_official_client_gets_what_it_asks_for(client):
    form = {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON, "strict": True}}
    stream = await client.chat.completions.create(
        model="default", messages=HI, response_format=form, stream=True
    )
    assert is_person("".join([c.choices[0].delta.content or "" async for c in stream]))
    for extra, right in (
        ({"guided_choice": ["maybe"]}, "maybe"),
        ({"structured_outputs": {"regex": "[x]{3}"}}, "xxx"),
        ({"guided_grammar": 'start: "a" "b"'}, "ab"),
    ):
        reply = await client.completions.create(model="default", prompt="A", extra_body=extra)
        assert reply.choices[0].text == right
        assert reply.choices[0].finish_reason == "stop"
    reply = await client.completions.create(
        model="default", prompt="A", extra_body={"guided_json": json.dumps(PERSON)}
    )
    assert is_person(reply.choices[0].text)


async def test_the_official_client_forces_a_call(client):
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        reply = await client.chat.completions.create(
            model="default",
            messages=HI,
            tools=[WEATHER],
            tool_choice=choice,
            parallel_tool_calls=False,
        )
        [call] = reply.choices[0].message.tool_calls
        assert call.function.name == "weather" and is_person(call.function.arguments)
        assert reply.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}},
            "response_format",
            '"not"',
        ),
        ({"structured_outputs": {"regex": "["}}, "structured_outputs.regex", "unclosed"),
        ({"guided_json": "{"}, "guided_json", "JSON object"),
        ({"tool_choice": "required"}, "tool_choice", "no such tool"),
        (
            {
                "tools": [{"function": {"name": "f", "strict": True, "parameters": {"not": {}}}}],
                "tool_choice": "required",
            },
            "tools",
            '"not"',
        ),
    ],
)
async def test_what_cannot_be_done_is_a_400_that_says_what(client, body, param, said):
    with pytest.raises(BadRequestError, match=said) as refusal:
        await client.chat.completions.create(model="default", messages=HI, extra_body=body)
    assert refusal.value.param == param


@pytest.mark.parametrize("temperature", [0, 1])
async def test_thoughts_that_are_cut_off_leave_an_answer_that_fits(pool, temperature):
    """The last words, said in the model's name, are thoughts to the grammar as well."""
    sampling = Sampling(temperature=temperature, seed=1)
    for question in QUESTIONS:
        request = chat(question, thinking=True, thinking_budget=5, sampling=sampling)
        parts = dict(await answer(pool, replace(request, constraints=(ASKED,), max_tokens=300)))
        assert "So I answer" in parts[0, "ReasoningDelta"]
        assert is_person(parts[0, "TextDelta"])


async def test_an_answer_that_is_begun_is_kept_to_nothing(pool):
    begun = (Message("user", "Hi"), Message("assistant", "{"))
    request = replace(chat("Hi"), messages=begun, continued=True, constraints=(ASKED,))
    with pytest.raises(BadRequest, match="response_format: an answer that is begun"):
        await anext(pool.generate(request))
