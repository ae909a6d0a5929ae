"""The official client of Anthropic with a real server and the bundled model."""

import json

import anthropic
import pytest
import pytest_asyncio

from inference import Pool
from tests.fake_pool import serving

TOOL = {
    "name": "get_weather",
    "description": "Get the current weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(deployment):
    pool = Pool(deployment)
    async with serving(pool) as url:
        await pool.until_ready()
        async with anthropic.AsyncAnthropic(
            base_url=url, api_key="unused", max_retries=0
        ) as client:
            yield client


async def ask(client, text, **fields):
    turns = text if isinstance(text, list) else [{"role": "user", "content": text}]
    said = {"model": "qwen3-demo", "max_tokens": 100, "messages": turns}
    return await client.messages.create(**said | fields)


async def test_a_question_is_answered_at_once_or_as_a_stream(client):
    whole = await ask(client, "What is the capital of France?")
    assert [block.text for block in whole.content] == ["The capital of France is Paris."]
    assert (whole.stop_reason, whole.model) == ("end_turn", "qwen3-demo")
    async with client.messages.stream(
        model="default",
        max_tokens=100,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
    ) as stream:
        assert "".join([text async for text in stream.text_stream]) == whole.content[0].text
        usage = (await stream.get_final_message()).usage
    assert usage.cache_read_input_tokens > 10
    total = whole.usage.input_tokens + whole.usage.cache_read_input_tokens
    assert usage.input_tokens + usage.cache_read_input_tokens == total


async def test_a_forced_tool_is_called_and_an_answer_fits_its_schema(client):
    choice = {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True}
    tool = {**TOOL, "strict": True}
    city = {"type": "string", "enum": ["Oslo", "Paris"]}
    tool["input_schema"] = {**TOOL["input_schema"], "properties": {"city": city}}
    tool["input_schema"]["additionalProperties"] = False
    reply = await ask(client, "Hello!", tools=[tool], tool_choice=choice)
    [call] = reply.content
    assert (call.type, call.name) == ("tool_use", "get_weather")
    assert call.input["city"] in ("Oslo", "Paris")
    assert reply.stop_reason == "tool_use"
    schema = {
        "type": "object",
        "properties": {"sum": {"type": "integer", "minimum": 0, "maximum": 999}},
        "required": ["sum"],
        "additionalProperties": False,
    }
    form = {"format": {"type": "json_schema", "schema": schema}}
    reply = await ask(client, "What is 2 + 3?", extra_body={"output_config": form})
    assert 0 <= json.loads(reply.content[0].text)["sum"] <= 999


async def test_an_answer_that_is_begun_goes_on(client):
    question = {"role": "user", "content": "What is the capital of France?"}
    begun = {"role": "assistant", "content": "The capital of"}
    reply = await ask(client, [question, begun])
    assert reply.content[0].text.strip() == "France is Paris."


async def test_thoughts_are_a_block_of_their_own_and_come_back_in_the_next_turn(client):
    thinking = {"type": "enabled", "budget_tokens": 1024}
    reply = await ask(client, "What is 38 + 47?", thinking=thinking)
    thoughts, text = reply.content
    assert thoughts.thinking == "8 + 7 = 15, 3 + 4 + 1 = 8." and text.text == "38 + 47 = 85"
    turns = [
        {"role": "user", "content": "What is 38 + 47?"},
        {"role": "assistant", "content": reply.content},
        {"role": "user", "content": "What is the capital of France?"},
    ]
    assert (await ask(client, turns)).content[-1].type == "text"


async def test_a_whole_agent_loop(client):
    turns = [{"role": "user", "content": "What is the weather in Oslo?"}]
    async with client.messages.stream(
        model="qwen3-demo", max_tokens=100, messages=turns, tools=[TOOL]
    ) as stream:
        reply = await stream.get_final_message()
    [call] = reply.content
    assert (reply.stop_reason, call.name, call.input) == (
        "tool_use",
        "get_weather",
        {"city": "Oslo"},
    )
    result = {
        "type": "tool_result",
        "tool_use_id": call.id,
        "content": [{"type": "text", "text": '{"temperature": 7, "condition": "rainy"}'}],
    }
    turns += [
        {"role": "assistant", "content": reply.content},
        {"role": "user", "content": [result]},
    ]
    answer = await ask(client, turns, tools=[TOOL])
    assert answer.stop_reason == "end_turn" and "7" in answer.content[0].text
    assert answer.usage.cache_read_input_tokens > 50


async def test_what_is_counted_is_what_is_computed(client):
    for fields in (
        {},
        {"tools": [TOOL], "system": "Be brief."},
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    ):
        turns = [{"role": "user", "content": "Hello there!"}]
        counted = await client.messages.count_tokens(model="qwen3-demo", messages=turns, **fields)
        usage = (await ask(client, turns, **fields)).usage
        assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens
    long = [{"role": "user", "content": "word " * 5000}]
    assert (await client.messages.count_tokens(model="default", messages=long)).input_tokens > 5000


async def test_a_limit_and_a_stop_sequence_are_named_as_the_reason(client):
    limited = await ask(client, "Tell me a story about a fox.", max_tokens=3)
    assert (limited.stop_reason, limited.usage.output_tokens) == ("max_tokens", 3)
    stopped = await ask(client, "Tell me a story about a fox.", stop_sequences=["zebra", " fox"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", " fox")
    assert not stopped.content[0].text.endswith("fox")


async def test_errors_are_the_clients_own_exceptions(client):
    with pytest.raises(anthropic.NotFoundError, match="this is qwen3-demo"):
        await ask(client, "Hi", model="claude-of-any-kind")
    with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > 1023"):
        await ask(client, "word " * 5000)
    with pytest.raises(anthropic.BadRequestError, match="no images"):
        await ask(client, [{"role": "user", "content": [{"type": "image", "source": {}}]}])
