"""The text completion endpoint: prompts in all four spellings, choices in order."""

import json

import pytest
from openai import AsyncOpenAI, BadRequestError

from api.openai.completions import Encoder, understand
from api.openai.replies import FINGERPRINT, Head
from inference import ContextTooLong, GenerationRequest, Sampling, Started, TextDelta
from tests.fake_pool import FakePool, end, hello, serving


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("Once", ["Once"]),
        (["Once", "upon"], ["Once", "upon"]),
        ([1, 2], [(1, 2)]),
        ([[1, 2], [3]], [(1, 2), (3,)]),
    ],
)
def test_every_spelling_of_prompts_is_understood(prompt, prompts):
    assert [r.prompt for r in understand({"prompt": prompt}, "fake").requests] == prompts


def test_a_body_becomes_the_request_it_means():
    body = {"prompt": "Once", "max_tokens": 4, "temperature": 0, "echo": False, "best_of": 1}
    (request,) = understand(body, "fake").requests
    expected = GenerationRequest(
        id=request.id, prompt="Once", max_tokens=4, sampling=Sampling(temperature=0)
    )
    assert request == expected


@pytest.mark.parametrize(
    ("tier", "priority"), [("priority", 1), ("flex", -1), ("auto", 0), ("default", 0), (None, 0)]
)
def test_how_a_request_wants_to_be_scheduled_is_understood(tier, priority):
    body = {"prompt": "Once", "service_tier": tier, "timeout": 2.5, "cache_salt": "me"}
    (request,) = understand(body | {"speculation": "false"}, "fake").requests
    assert (request.priority, request.deadline, request.salt) == (priority, 2.5, "me")
    assert not request.speculate


def test_events_become_the_chunks_of_the_api_reference():
    encoder = Encoder(Head("cmpl-1", "fake", 5), 1, include_usage=True)
    events = [Started(7), TextDelta(0, "Hel"), end(0, "length")]
    chunks = [json.loads(frame[6:]) for event in events for frame in encoder.encode(event)]
    head = {
        "id": "cmpl-1",
        "created": 5,
        "model": "fake",
        "object": "text_completion",
        "system_fingerprint": FINGERPRINT,
    }
    assert chunks[0] == head | {
        "choices": [{"index": 0, "text": "Hel", "finish_reason": None, "logprobs": None}]
    }
    assert chunks[1]["choices"][0]["finish_reason"] == "length"
    usage, done = encoder.close()
    assert json.loads(usage[6:])["usage"]["total_tokens"] == 9
    assert done == b"data: [DONE]\n\n"


async def test_choices_of_several_prompts_are_numbered_through():
    async with serving(FakePool()) as url:
        client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        reply = await client.completions.create(model="fake", prompt=["a", "b"], n=2)
        stream = await client.completions.create(model="fake", prompt=["a", "b"], n=2, stream=True)
        streamed = ["", "", "", ""]
        async for chunk in stream:
            streamed[chunk.choices[0].index] += chunk.choices[0].text
        await client.close()
    assert [(c.index, c.text) for c in reply.choices] == [(i, "Hello") for i in range(4)]
    assert streamed == ["Hello"] * 4
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (14, 8)


async def test_one_refused_prompt_refuses_the_body_before_anything_streams():
    pool = FakePool(hello(), [ContextTooLong("over the maximum context length", "prompt")])
    async with serving(pool) as url:
        client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        with pytest.raises(BadRequestError) as refusal:
            await client.completions.create(model="fake", prompt=["a", "b"], stream=True)
        await client.close()
    assert refusal.value.code == "context_length_exceeded"
    assert pool.cancelled.is_set()
