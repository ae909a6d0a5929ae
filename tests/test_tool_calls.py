"""Calls that the bundled model may make: kept to the tools, told as they come."""

import asyncio
import json

import anthropic
import jsonschema_rs
import pytest
from openai import AsyncOpenAI

from inference import ArgumentsDelta, Finished, Sampling, Tool, ToolCallDelta
from tests.test_pool import chat
from tests.test_recovery import answer, kill_when

PLACE = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 1, "maxLength": 20},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER = Tool("weather", "Tells the weather.", PLACE)
ASKED = "What is the weather in Oslo?"


def calling(llama, temperature: float, seed: int, max_tokens: int = 120, **kwargs):
    """A request that may draw anything, and can but begin with a call."""
    [tag] = llama.tokenize("<tool_call>", special=True)
    sampling = Sampling(temperature, top_k=0, top_p=1, seed=seed, logit_bias=((tag, 100.0),))
    return chat(ASKED, tools=(WEATHER,), sampling=sampling, max_tokens=max_tokens, **kwargs)


async def test_calls_fit_however_they_are_drawn(pool, llama):
    requests = [calling(llama, 2, seed) for seed in range(8)]
    for told in await asyncio.gather(*(answer(pool, request) for request in requests)):
        parts = dict(told)
        calls = [parts[key] for key in parts if isinstance(key[1], int)]
        assert len(calls) > 1
        for call in calls[:-1]:  # the last one may be cut off
            name, _, arguments = call.partition(" ")
            assert name == "weather" and jsonschema_rs.is_valid(PLACE, json.loads(arguments))


async def test_nobody_can_tell_that_the_worker_of_a_call_was_killed(pool, llama):
    # Beyond 256 tokens, and where their prompt was not computed alike, logits differ a little.
    requests = [calling(llama, 0, seed, max_tokens=60, n=1 + seed % 2) for seed in range(6)]
    undisturbed = await asyncio.gather(*(answer(pool, request) for request in requests))
    said = pool.status().stats.completion_tokens
    running = [asyncio.create_task(answer(pool, request)) for request in requests]
    await kill_when(pool, said + 150)
    assert await asyncio.gather(*running) == undisturbed
    assert pool.status().restarts == 1


async def test_arguments_are_told_before_the_call_is_complete(pool, llama):
    events = [event async for event in pool.generate(calling(llama, 0, seed=1))]
    assert isinstance(events[1], ToolCallDelta) and events[1].call.id
    assert any(isinstance(event, ArgumentsDelta) for event in events)
    end = events[-1]
    assert isinstance(end, Finished) and end.reason == "length"


TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": PLACE}}]
HI = [{"role": "user", "content": ASKED}]


@pytest.mark.asyncio(loop_scope="module")
async def test_the_openai_client_puts_a_streamed_call_together(url):
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        asked = {"model": "default", "messages": HI, "tools": TOOLS, "tool_choice": "required"}
        await client.chat.completions.create(**asked, temperature=0)  # now its prompt is there
        async with client.chat.completions.stream(**asked, temperature=0) as stream:
            kinds = [event.type async for event in stream]
            whole = await stream.get_final_completion()
        assert "tool_calls.function.arguments.delta" in kinds
        [call] = whole.choices[0].message.tool_calls
        assert jsonschema_rs.is_valid(PLACE, json.loads(call.function.arguments))
        again = await client.chat.completions.create(**asked, temperature=0)
        [same] = again.choices[0].message.tool_calls
        assert same.function.arguments == call.function.arguments


@pytest.mark.asyncio(loop_scope="module")
async def test_the_anthropic_client_puts_a_streamed_call_together(url):
    async with anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as client:
        async with client.messages.stream(
            model="default",
            max_tokens=200,
            messages=HI,
            tools=[{"name": "weather", "input_schema": PLACE}],
            tool_choice={"type": "any", "disable_parallel_tool_use": True},
            extra_body={"temperature": 0},
        ) as stream:
            kinds = [event.type async for event in stream]
            message = await stream.get_final_message()
        assert "input_json" in kinds
        [block] = message.content
        assert message.stop_reason == "tool_use" and jsonschema_rs.is_valid(PLACE, block.input)
