"""Every documented limit: what is at it is taken, what is just over it is refused by name.

And what the model itself bounds: its context, its vocabulary.
"""

import json
from itertools import product

import pytest

from api.body import MAX_DEPTH, parse_object
from api.openai import chat, completions
from api.openai.responses import create
from inference import (
    BadRequest,
    ContextTooLong,
    Finished,
    GenerationRequest,
    Pool,
    Sampling,
    Started,
)
from tests.bodies import CHAT, COMPLETIONS, RESPONSES, UNDERSTAND_RESPONSE

MESSAGE = {"role": "user", "content": "Hi"}
BODIES = {CHAT: {"messages": [MESSAGE]}, COMPLETIONS: {"prompt": "Hi"}, RESPONSES: {"input": "Hi"}}
UNDERSTAND = {
    CHAT: chat.understand,
    COMPLETIONS: completions.understand,
    RESPONSES: UNDERSTAND_RESPONSE,
}
MODELS = {
    CHAT: chat.ChatBody,
    COMPLETIONS: completions.CompletionBody,
    RESPONSES: create.ResponsesBody,
}
INT32, INT64 = 2**31 - 1, 2**63 - 1


def tool(**about):
    return {"type": "function", "function": {"name": "f"} | about}


def called(name):
    call = {"function": {"name": name, "arguments": "{}"}}
    return [{"role": "assistant", "tool_calls": [call]}]


def called_by(id):
    return {"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"}


FUNCTION = {"type": "function", "name": "f"}

# Field, its limit, and a value of that size.
SIZES = [
    (CHAT, "messages", 2048, lambda size: [MESSAGE] * size),
    (CHAT, "messages", 256, lambda size: called("f" * size)),
    (CHAT, "tools", 128, lambda size: [tool()] * size),
    (CHAT, "tools", 128, lambda size: [tool(name="f" * size)]),
    (CHAT, "chat_template_kwargs", 16, lambda size: {f"k{n}": n for n in range(size)}),
    (CHAT, "model", 256, lambda size: "m" * size),
    (CHAT, "cache_salt", 256, lambda size: "é" * size),
    (CHAT, "stop", 16, lambda size: ["s"] * size),
    (CHAT, "stop", 256, lambda size: "s" * size),
    (CHAT, "stop_token_ids", 16, lambda size: [1] * size),
    (CHAT, "logit_bias", 300, lambda size: {str(n): 1 for n in range(size)}),
    (RESPONSES, "input", 10_000, lambda size: [MESSAGE] * size),
    (RESPONSES, "input", 256, lambda size: [called_by("c" * size)]),
    (RESPONSES, "tools", 128, lambda size: [FUNCTION] * size),
    (RESPONSES, "tools", 128, lambda size: [FUNCTION | {"name": "f" * size}]),
    (RESPONSES, "metadata", 16, lambda size: {f"k{n}": "v" for n in range(size)}),
    (RESPONSES, "metadata", 64, lambda size: {"é" * size: "v"}),
    (RESPONSES, "metadata", 512, lambda size: {"k": "é" * size}),
    (RESPONSES, "include", 16, lambda size: ["x"] * size),
    (COMPLETIONS, "prompt", 32, lambda size: ["p"] * size),
    (COMPLETIONS, "prompt", INT32, lambda size: [size]),
    (CHAT, "tools", MAX_DEPTH - 5, lambda size: [tool(parameters={"x": nested(size)})]),
]

# Field, the least and the most it may be, and the next numbers outside.
NUMBERS = [
    ("n", 1, 8, 0, 9),
    ("max_tokens", 1, INT32, 0, INT32 + 1),
    ("max_tokens", -1, INT32, -2, INT32 + 1),
    ("min_tokens", 0, INT32, -1, INT32 + 1),
    ("seed", -INT64 - 1, INT64, -INT64 - 2, INT64 + 1),
    ("temperature", 0, 2, -5e-324, 2.0000000000000004),
    ("top_p", 5e-324, 1, 0, 1.0000000000000002),
    ("min_p", 0, 1, -5e-324, 1.0000000000000002),
    ("top_k", -1, INT32, -2, INT32 + 1),
    ("repetition_penalty", 0.01, 10, 0.009999999999999998, 10.000000000000002),
    ("repeat_penalty", 0.01, 10, 0.009999999999999998, 10.000000000000002),
    ("presence_penalty", -2, 2, -2.0000000000000004, 2.0000000000000004),
    ("frequency_penalty", -2, 2, -2.0000000000000004, 2.0000000000000004),
    ("timeout", 5e-324, 86_400, 0, 86_400.00000000001),
    ("keep_alive", -INT32, INT32, -INT32 - 1, INT32 + 1),
]
LIMIT = (1, INT32, 0, INT32 + 1)
ANSWERED = [(CHAT, ("max_completion_tokens", *LIMIT)), (RESPONSES, ("max_output_tokens", *LIMIT))]
ANSWERED += [  # a response is one
    pair for pair in product(BODIES, NUMBERS) if (pair[0], pair[1][0]) != (RESPONSES, "n")
]
THOUGHTS = (
    "thinking_budget",
    "thinking_token_budget",
    "thinking_budget_tokens",
    "reasoning_budget",
)


def nested(depth):
    return [nested(depth - 1)] if depth > 1 else []


def understand(path, field, value, **beside):
    text = json.dumps(BODIES[path] | {field: value} | beside)
    return UNDERSTAND[path](parse_object(text.encode()), "fake")


@pytest.mark.parametrize(
    ("path", "field", "limit", "of_size"), SIZES, ids=[f"{f} {size}" for _, f, size, _ in SIZES]
)
def test_what_is_one_larger_than_the_limit_is_refused(path, field, limit, of_size):
    assert understand(path, field, of_size(limit)).requests
    with pytest.raises(BadRequest) as refusal:
        understand(path, field, of_size(limit + 1))
    assert refusal.value.field.partition(".")[0] == field


@pytest.mark.parametrize(
    ("path", "bounds"), ANSWERED, ids=[f"{path} {name} {low}" for path, (name, low, *_) in ANSWERED]
)
def test_the_next_number_outside_the_bounds_is_refused(path, bounds):
    field, least, most, below, above = bounds
    for value in (least, most):
        assert understand(path, field, value).requests
    for value in (below, above):
        with pytest.raises(BadRequest) as refusal:
            understand(path, field, value)
        assert refusal.value.field == field


@pytest.mark.parametrize("field", THOUGHTS)
def test_how_long_it_thinks_has_bounds(field):
    for value in (-1, INT32):
        assert understand(CHAT, field, value).requests
    for value in (-2, INT32 + 1):
        with pytest.raises(BadRequest) as refusal:
            understand(CHAT, field, value)
        assert refusal.value.field == field


def test_how_many_likely_tokens_are_listed_has_bounds():
    for value in (0, 20):
        assert understand(CHAT, "top_logprobs", value, logprobs=True).requests
        assert understand(COMPLETIONS, "logprobs", value).requests
    for value in (-1, 21):
        for path, field in ((CHAT, "top_logprobs"), (COMPLETIONS, "logprobs")):
            with pytest.raises(BadRequest) as refusal:
                understand(path, field, value)
            assert refusal.value.field == field


def test_only_an_echo_may_be_all():
    assert understand(COMPLETIONS, "max_tokens", 0, echo=True).requests
    for path in UNDERSTAND:
        with pytest.raises(BadRequest) as refusal:
            understand(path, "max_tokens", 0, echo=False)
        assert refusal.value.field == "max_tokens"


def test_every_number_of_a_body_is_in_the_table():
    known = {bounds[0] for _, bounds in ANSWERED} | {*THOUGHTS, "top_logprobs", "logprobs"}
    for path, body in MODELS.items():
        for field, about in body.model_json_schema()["properties"].items():
            kinds = {kind.get("type") for kind in about.get("anyOf", [about])}
            assert not kinds & {"integer", "number"} or field in known, f"{path}: {field}"


async def events(pool: Pool, **fields):
    fields = {"sampling": Sampling(temperature=0)} | fields
    return [event async for event in pool.generate(GenerationRequest(id="test", **fields))]


async def test_a_prompt_about_as_long_as_the_context_is_answered_to_its_end_or_refused(pool: Pool):
    context = pool.status().info.context
    lengths = range(context - 3, context + 4)
    for length, max_tokens in product(lengths, (1, 2, None, INT32)):
        prompt = tuple(1000 + place % 1000 for place in range(length))
        asked = {"prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True}
        if length >= context:
            with pytest.raises(ContextTooLong, match=f"prompt is too long: {length}"):
                await events(pool, **asked)
            continue
        first, *_, end = await events(pool, **asked)
        assert first == Started(length)
        assert isinstance(end, Finished) and end.reason == "length"
        assert end.usage.completion_tokens == min(max_tokens or INT32, context - length)
    assert pool.status().restarts == 0


async def test_tokens_that_are_not_in_the_vocabulary_are_refused(pool: Pool):
    vocabulary = pool.status().info.vocabulary
    last = vocabulary - 1
    assert await events(pool, prompt=(0, last), max_tokens=1)
    assert await events(pool, prompt="Hi", max_tokens=1, sampling=biased(0, last))
    assert await events(pool, prompt="Hi", max_tokens=1, stop_tokens=(0, last))
    for token in (-1, -(2**31), vocabulary, INT32, 2**32, 2**32 + 1, INT64):
        for wrong in (
            {"prompt": (1, token)},
            {"prompt": "Hi", "sampling": biased(1, token)},
            {"prompt": "Hi", "stop_tokens": (1, token)},
        ):
            with pytest.raises(BadRequest, match="not in the vocabulary"):
                await events(pool, max_tokens=1, **wrong)
    assert pool.status().restarts == 0


def biased(*tokens: int) -> Sampling:
    return Sampling(temperature=0, logit_bias=tuple((token, -100.0) for token in tokens))
