"""LangChain's client of OpenAI's dialect with a real server and the bundled model."""

from typing import Literal

import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

FRANCE, PARIS = "What is the capital of France?", "The capital of France is Paris."
SUM, THOUGHTS, ANSWER = "What is 38 + 47?", "8 + 7 = 15, 3 + 4 + 1 = 8.", "38 + 47 = 85"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@tool
def get_weather(city: str) -> str:
    """Get the current weather of a city"""
    return f'{{"temperature": 7, "condition": "rainy", "city": "{city}"}}'


class Trip(BaseModel):
    """A journey."""

    city: Literal["Oslo", "Paris"]
    days: int = Field(ge=1, le=9)


def model_at(url, **fields):
    said = {"model": "qwen3-demo", "temperature": 0, "max_tokens": 100, "max_retries": 0}
    return ChatOpenAI(base_url=f"{url}/v1", api_key="unused", **said | fields)


async def test_a_question_is_answered_at_once_as_a_stream_and_in_a_batch(url):
    model = model_at(url)
    whole = await model.ainvoke([SystemMessage("You are a helpful assistant."), ("human", FRANCE)])
    assert whole.content == PARIS
    assert whole.response_metadata["finish_reason"] == "stop"
    assert whole.usage_metadata["output_tokens"] > 5
    parts = [part async for part in model.astream(FRANCE, stream_usage=True)]
    assert "".join(part.content for part in parts) == PARIS and len(parts) > 3
    told = [part.usage_metadata for part in parts if part.usage_metadata]
    assert len(told) == 1 and told[0]["total_tokens"] > told[0]["output_tokens"]
    several = await model.abatch([FRANCE, SUM])
    assert several[0].content == PARIS and several[1].content.endswith(ANSWER)


async def test_a_whole_agent_loop(url):
    model = model_at(url).bind_tools([get_weather])
    turns = [HumanMessage("What is the weather in Oslo?")]
    while not isinstance(turns[-1], AIMessage) or turns[-1].tool_calls:
        reply = await model.ainvoke(turns)
        turns += [reply, *[await get_weather.ainvoke(call) for call in reply.tool_calls]]
    question, call, result, answer = turns
    assert [(c["name"], c["args"]) for c in call.tool_calls] == [("get_weather", {"city": "Oslo"})]
    assert isinstance(result, ToolMessage) and result.tool_call_id == call.tool_calls[0]["id"]
    assert "7" in answer.content and not answer.tool_calls
    streamed = None
    async for part in model.astream([question]):
        streamed = part if streamed is None else streamed + part
    assert streamed.tool_calls[0]["args"] == {"city": "Oslo"} and not streamed.invalid_tool_calls


@pytest.mark.parametrize("choice", ["any", "Trip", True, "required"])
async def test_a_call_is_forced_in_every_spelling(url, choice):
    model = model_at(url).bind_tools(
        [Trip], tool_choice=choice, parallel_tool_calls=False, strict=True
    )
    [call] = (await model.ainvoke("Hello!")).tool_calls
    assert call["name"] == "Trip" and Trip(**call["args"])


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_structured_output_is_an_object_of_the_class(url, method):
    trip = await model_at(url).with_structured_output(Trip, method=method).ainvoke("Go to Paris!")
    assert isinstance(trip, Trip)
    raw = model_at(url).with_structured_output(Trip, method=method, include_raw=True)
    reply = await raw.ainvoke("Go to Paris!")
    assert reply["parsed"] == trip and reply["parsing_error"] is None


async def test_any_json_is_parsed(url):
    model = model_at(url).with_structured_output(None, method="json_mode")
    assert isinstance(await model.ainvoke("JSON please: my name is Ada."), dict)


async def test_thinking_is_switched_and_is_no_part_of_the_answer(url):
    for said in ({"reasoning_effort": "low"}, {"extra_body": {"enable_thinking": True}}):
        reply = await model_at(url, **said).ainvoke(SUM)
        assert reply.content == ANSWER
        assert reply.usage_metadata["output_tokens"] > len(THOUGHTS.split()) + len(ANSWER.split())
    plain = await model_at(url, reasoning_effort="none").ainvoke(SUM)
    assert plain.content == f"{THOUGHTS} {ANSWER}"


async def test_stop_strings_limits_and_errors_are_as_langchain_knows_them(url):
    model = model_at(url)
    assert (await model.ainvoke(FRANCE, stop=[" Paris"])).content == "The capital of France is"
    cut = await model_at(url, max_tokens=3).ainvoke(FRANCE)
    assert cut.response_metadata["finish_reason"] == "length"
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        await model.ainvoke("word " * 5000)
    with pytest.raises(openai.NotFoundError):
        await model_at(url, model="gpt-4o").ainvoke("Hi")
