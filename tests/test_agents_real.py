"""Agents as the official clients use them, with a real server and the bundled model."""

import anthropic
import httpx
import ollama
import openai
import pytest
import pytest_asyncio

from inference import Pool
from tests.bodies import HI
from tests.fake_pool import serving

pytestmark = pytest.mark.asyncio(loop_scope="module")
AGENTS = "/api/v1/agents"
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
BRIEF = {
    "name": "Brief One",
    "system_prompt": "You are brief, polite and never tell a lie.",
    "temperature": 0,
    "max_tokens": 5,
    "thinking": False,
}
HELPER = {
    "name": "helper",
    "model": "qwen3-demo",
    "tools": [TOOL],
    "temperature": 0,
    "thinking": False,
}
THINKER = {"name": "thinker", "thinking": True, "temperature": 0}
SUM = [{"role": "user", "content": "What is 38 + 47?"}]
WEATHER = [{"role": "user", "content": "What is the weather in Oslo?"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(deployment):
    pool = Pool(deployment)
    async with serving(pool) as url, httpx.AsyncClient(base_url=url) as client:
        await pool.until_ready()
        for agent in (BRIEF, HELPER, THINKER):
            assert (await client.post(AGENTS, json=agent)).status_code == 201
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def first(url):
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def second(url):
    async with anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def third(url):
    async with ollama.AsyncClient(host=url) as client:
        yield client


SAID = [{"role": "system", "content": BRIEF["system_prompt"]}, *HI]


async def test_openais_client_chats_with_an_agent_as_with_a_model(first):
    asked = {"temperature": 0, "max_tokens": 5, "extra_body": {"think": False}}
    said = await first.chat.completions.create(model="default", messages=SAID, **asked)
    reply = await first.chat.completions.create(model="brief one", messages=HI)
    assert reply.model == "Brief One" and reply.choices[0].finish_reason == "length"
    assert reply.usage.prompt_tokens == said.usage.prompt_tokens
    assert reply.choices[0].message == said.choices[0].message
    longer = await first.chat.completions.create(model="brief one", messages=HI, max_tokens=7)
    assert longer.usage.completion_tokens == 7
    stream = await first.chat.completions.create(model="brief one", messages=HI, stream=True)
    chunks = [chunk async for chunk in stream]
    assert {chunk.model for chunk in chunks} == {"Brief One"}
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == reply.choices[0].message.content


async def test_openais_client_finds_agents_among_the_models(first):
    models = (await first.models.list()).data
    assert [model.id for model in models] == ["qwen3-demo", "Brief One", "helper", "thinker"]
    assert [model.owned_by for model in models] == ["onebox", *["agent"] * 3]
    assert (await first.models.retrieve("brief one")).id == "Brief One"


async def test_a_response_goes_on_with_another_agent_or_none(first):
    one = await first.responses.create(model="Brief One", input="Hi")
    assert (one.model, one.usage.output_tokens) == ("Brief One", 5)
    asked = {"input": "And now?", "previous_response_id": one.id, "temperature": 0}
    again = await first.responses.create(model="brief one", **asked)
    other = await first.responses.create(model="qwen3-demo", max_output_tokens=5, **asked)
    assert (again.model, other.model) == ("Brief One", "qwen3-demo")
    assert again.usage.input_tokens > other.usage.input_tokens > one.usage.output_tokens


async def test_a_completion_has_an_agents_settings_only(first):
    asked = {"prompt": "Once upon a time", "temperature": 0}
    plain = await first.completions.create(model="qwen3-demo", max_tokens=5, **asked)
    reply = await first.completions.create(model="Brief One", **asked)
    assert (reply.model, reply.choices) == ("Brief One", plain.choices)
    assert reply.usage.prompt_tokens == plain.usage.prompt_tokens


async def test_anthropics_client_asks_an_agent(second):
    asked = {"messages": HI, "max_tokens": 9}
    reply = await second.messages.create(model="Brief One", **asked)
    assert (reply.model, reply.usage.output_tokens) == ("Brief One", 9)  # it has to say a limit
    total = reply.usage.input_tokens + reply.usage.cache_read_input_tokens
    counted = await second.messages.count_tokens(model="brief one", messages=HI)
    plain = await second.messages.count_tokens(model="default", messages=HI)
    assert counted.input_tokens == total > plain.input_tokens
    system = {"system": "Answer in French."}
    both = await second.messages.count_tokens(model="brief one", messages=HI, **system)
    assert both.input_tokens > total
    async with second.messages.stream(model="Brief One", **asked) as stream:
        assert (await stream.get_final_message()).content[0].text == reply.content[0].text


async def test_ollamas_client_asks_an_agent_under_the_name_it_lists(third):
    listed = (await third.list()).models
    assert [model.model for model in listed][-3:] == ["Brief One", "helper", "thinker"]
    assert listed[-1].details.parent_model == "qwen3-demo"
    assert (await third.show("Brief One:latest")).details.parent_model == "qwen3-demo"
    chat = await third.chat("Brief One:latest", HI)
    assert (chat.model, chat.eval_count, chat.done_reason) == ("Brief One:latest", 5, "length")
    made = await third.generate("Brief One", "Hi")
    assert (made.eval_count, made.prompt_eval_count) == (5, chat.prompt_eval_count)
    longer = await third.chat("Brief One", HI, options={"num_predict": 7})
    assert longer.eval_count == 7
    assert (await third.chat("Brief One")).done_reason == "load"


async def test_an_agents_tools_are_called_in_every_dialect(first, second, third):
    reply = await first.chat.completions.create(model="helper", messages=WEATHER)
    [call] = reply.choices[0].message.tool_calls
    assert (call.function.name, reply.choices[0].finish_reason) == ("get_weather", "tool_calls")
    asked = {"model": "helper", "messages": WEATHER}
    none = await first.chat.completions.create(**asked, tool_choice="none")
    assert not none.choices[0].message.tool_calls
    assert none.usage.prompt_tokens < reply.usage.prompt_tokens
    forced = await first.chat.completions.create(
        model="helper", messages=HI, tool_choice="required", max_tokens=100
    )
    assert forced.choices[0].message.tool_calls[0].function.name == "get_weather"
    blocks = (await second.messages.create(**asked, max_tokens=100)).content
    assert [(block.type, block.input) for block in blocks] == [("tool_use", {"city": "Oslo"})]
    [called] = (await third.chat("helper", WEATHER)).message.tool_calls
    assert called.function.arguments == {"city": "Oslo"}
    [item] = (await first.responses.create(model="helper", input=WEATHER)).output
    assert (item.type, item.name) == ("function_call", "get_weather")


async def test_an_agent_thinks_where_its_client_does_not_say(first, second, third):
    reply = await first.chat.completions.create(model="thinker", messages=SUM)
    assert reply.choices[0].message.reasoning_content
    off = {"extra_body": {"enable_thinking": False}}
    quiet = await first.chat.completions.create(model="thinker", messages=SUM, **off)
    assert not hasattr(quiet.choices[0].message, "reasoning_content")
    assert (await third.chat("thinker", SUM)).message.thinking
    assert not (await third.chat("thinker", SUM, think=False)).message.thinking
    blocks = (await second.messages.create(model="thinker", messages=SUM, max_tokens=99)).content
    assert [block.type for block in blocks] == ["text"]


async def test_a_name_of_nothing_is_the_clients_own_exception(first, second, third):
    with pytest.raises(openai.NotFoundError, match="this is qwen3-demo"):
        await first.chat.completions.create(model="brief two", messages=HI)
    with pytest.raises(anthropic.NotFoundError, match="this is qwen3-demo"):
        await second.messages.create(model="brief two", messages=HI, max_tokens=5)
    with pytest.raises(ollama.ResponseError, match="this is qwen3-demo"):
        await third.chat("brief two", HI)
