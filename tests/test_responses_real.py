"""`/v1/responses` as the official client uses it, with a real server and the bundled model."""

import asyncio

import httpx
import openai
import pytest
import pytest_asyncio
from pydantic import BaseModel, Field

TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
    "strict": False,
}
FRANCE = "What is the capital of France?"
SUM = "What is 38 + 47?"
WEATHER = "What is the weather in Oslo?"
READING = '{"temperature": 7, "condition": "rainy"}'

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(url):
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
        yield client


async def ask(client, said, **fields):
    """The response, which is one and the same whole and streamed."""
    fields = {"model": "qwen3-demo", "input": said, "temperature": 0} | fields
    whole = await client.responses.create(**fields)
    async with client.responses.stream(**fields) as stream:
        events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert output(events[-1].response) == output(whole)
    assert events[-1].response.usage.output_tokens == whole.usage.output_tokens
    return whole


def output(response):
    """What a response says, without what is another one each time."""
    items = [
        item.model_dump(exclude={"id", "call_id", "parsed_arguments"}) for item in response.output
    ]
    for item in items:
        for part in item.get("content") or ():
            part.pop("parsed", None)
    return response.status, items


async def test_a_question_is_answered_at_once_or_as_a_stream(client):
    reply = await ask(client, FRANCE)
    assert reply.output_text == "The capital of France is Paris."
    assert (reply.status, reply.error, reply.model) == ("completed", None, "qwen3-demo")
    cut = await ask(client, FRANCE, max_output_tokens=3)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert cut.output[0].status == "incomplete" and cut.usage.output_tokens == 3


@pytest.mark.parametrize("summary", [None, "auto"])
async def test_thoughts_are_an_item_of_their_own_and_are_counted(client, summary):
    reply = await ask(client, SUM, reasoning={"effort": "high", "summary": summary})
    thoughts, message = reply.output
    said = thoughts.summary if summary else thoughts.content
    assert [part.text for part in said] == ["8 + 7 = 15, 3 + 4 + 1 = 8."]
    assert message.content[0].text == "38 + 47 = 85"
    plain = await ask(client, SUM, reasoning={"effort": "none"})
    assert plain.usage.output_tokens_details.reasoning_tokens == 0
    used = reply.usage
    assert 10 < used.output_tokens_details.reasoning_tokens < used.output_tokens


async def test_a_whole_agent_loop_by_the_id_of_the_response_before(client):
    asked = await ask(client, WEATHER, tools=[TOOL])
    [call] = asked.output
    assert (call.type, call.name, call.arguments) == (
        "function_call",
        "get_weather",
        '{"city": "Oslo"}',
    )
    result = {"type": "function_call_output", "call_id": call.call_id, "output": READING}
    answer = await ask(client, [result], previous_response_id=asked.id, tools=[TOOL])
    assert "7" in answer.output_text
    last = await ask(client, FRANCE, previous_response_id=answer.id)
    assert last.output_text == "The capital of France is Paris."
    items = await client.responses.input_items.list(last.id, order="asc")
    kinds = [item.type for item in items.data]
    assert kinds == ["message", "function_call", "function_call_output", "message", "message"]


@pytest.mark.parametrize("thinking", [True, False])
async def test_a_conversation_is_the_same_prompt_by_id_and_whole(url, client, thinking):
    """Thoughts and calls too: so what was computed of it is found again."""
    how = {
        "model": "qwen3-demo",
        "tools": [TOOL],
        "instructions": "Be brief.",
        "reasoning": {"effort": "high" if thinking else "none"},
        "temperature": 0,
    }
    first = await client.responses.create(input=WEATHER, **how)
    assert [item.type for item in first.output] == ["reasoning", "function_call"][not thinking :]
    result = {
        "type": "function_call_output",
        "call_id": first.output[-1].call_id,
        "output": [{"type": "input_text", "text": READING}],
    }
    by_id = await client.responses.create(input=[result], previous_response_id=first.id, **how)
    whole = await client.responses.create(
        input=[{"role": "user", "content": WEATHER}, *first.output, result], **how
    )
    assert output(by_id) == output(whole)
    assert by_id.usage.input_tokens == whole.usage.input_tokens
    assert whole.usage.input_tokens_details.cached_tokens == whole.usage.input_tokens - 1
    call = {"function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
    thoughts = first.output[0].content[0].text if thinking else None
    chat = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": WEATHER},
            {"role": "assistant", "tool_calls": [call], "reasoning": thoughts},
            {"role": "tool", "content": READING},
        ],
        "tools": [{"type": "function", "function": {k: v for k, v in TOOL.items() if k != "type"}}],
        "enable_thinking": thinking,
    }
    async with httpx.AsyncClient() as plain:
        counted = (await plain.post(f"{url}/tokenize", json=chat)).json()
    assert counted["count"] == by_id.usage.input_tokens


class Sum(BaseModel):
    first: int = Field(ge=0, le=99)
    second: int = Field(ge=0, le=99)


async def test_an_answer_is_parsed_into_the_model_that_was_asked_for(client):
    reply = await client.responses.parse(model="qwen3-demo", input=SUM, text_format=Sum)
    assert isinstance(reply.output_parsed, Sum)
    assert reply.text.format.type == "json_schema"
    anything = await client.responses.create(
        model="qwen3-demo",
        input=SUM,
        text={"format": {"type": "json_object"}},
        max_output_tokens=200,
    )
    assert anything.output_text.startswith("{")


async def test_a_call_is_forced(client):
    choices = [
        "required",
        {"type": "function", "name": "get_weather"},
        {
            "type": "allowed_tools",
            "mode": "required",
            "tools": [{"type": "function", "name": "get_weather"}],
        },
    ]
    city = {"type": "string", "enum": ["Oslo", "Paris"]}
    parameters = {**TOOL["parameters"], "properties": {"city": city}}
    parameters["additionalProperties"] = False
    tools = [{**TOOL, "parameters": parameters, "strict": True}]
    for choice in choices:
        reply = await client.responses.create(
            model="qwen3-demo",
            input="Hello!",
            tools=tools,
            tool_choice=choice,
            parallel_tool_calls=False,
        )
        [call] = reply.output
        assert call.name == "get_weather" and "city" in call.arguments
    none = await client.responses.create(
        model="qwen3-demo", input=WEATHER, tools=tools, tool_choice="none"
    )
    assert [item.type for item in none.output] == ["message"]


async def test_what_is_stored_is_there_until_it_is_deleted(client):
    reply = await client.responses.create(model="qwen3-demo", input=FRANCE, metadata={"a": "b"})
    again = await client.responses.retrieve(reply.id)
    assert again == reply and again.metadata == {"a": "b"}
    [item] = (await client.responses.input_items.list(reply.id)).data
    assert (item.role, item.content[0].text) == ("user", FRANCE)
    with pytest.raises(openai.BadRequestError, match="in the background"):
        await client.responses.cancel(reply.id)
    await client.responses.delete(reply.id)
    with pytest.raises(openai.NotFoundError) as gone:
        await client.responses.retrieve(reply.id)
    assert gone.value.code == "response_not_found"
    hidden = await client.responses.create(model="qwen3-demo", input=FRANCE, store=False)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(hidden.id)
    with pytest.raises(openai.BadRequestError) as gone:
        await client.responses.create(
            model="qwen3-demo", input=FRANCE, previous_response_id=hidden.id
        )
    assert gone.value.code == "previous_response_not_found"


async def test_a_client_that_hangs_up_leaves_nothing_running(url, client):
    stream = await client.responses.create(
        model="qwen3-demo",
        input="Tell me a story.",
        stream=True,
        extra_body={"ignore_eos": True},
    )
    begun = await anext(stream)
    async for event in stream:
        if event.type == "response.output_text.delta":
            break
    await stream.close()
    async with httpx.AsyncClient(base_url=url) as plain, asyncio.timeout(20):
        idle = 'onebox_requests_running{model="qwen3-demo"} 0'
        while idle not in (await plain.get("/metrics")).text:
            pass
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(begun.response.id)
