"""The chat endpoint's two pure halves, and the endpoint itself under the official client."""

import json
from dataclasses import replace

import pytest
from openai import AsyncOpenAI

from api.body import validate
from api.openai.chat import ChatBody, to_request, understand
from api.openai.encoder import Encoder
from api.openai.replies import FINGERPRINT, Head
from inference import (
    Constraint,
    GenerationRequest,
    Message,
    ReasoningDelta,
    Sampling,
    Started,
    TextDelta,
    Tool,
    ToolCall,
)
from tests.bodies import HI, SCHEMA, F
from tests.fake_pool import CALL, FakePool, end, serving

FUNCTION = {"strict": True, "parameters": SCHEMA, "name": "weather"}
WEATHER = {"type": "function", "function": FUNCTION}
ALLOWS = {"mode": "required", "tools": [WEATHER]}
ALLOWED, FLAT = ({"type": "allowed_tools"} | said for said in ({"allowed_tools": ALLOWS}, ALLOWS))
OFFERED = Tool("weather", "", SCHEMA, strict=True, written=FUNCTION)


def request_of(body):
    return understand({"messages": HI} | body, "fake").requests[0]


def test_a_body_with_everything_becomes_the_request_it_means():
    body = {
        "model": "fake:latest",
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "User", "content": [{"type": "text", "text": "Hi"}, "there"], "name": "Ann"},
            {
                "role": "assistant",
                "content": None,
                "reasoning": "hm",
                "tool_calls": [
                    {"id": "a", "function": {"name": "weather", "arguments": {"city": "Århus"}}},
                    {"id": "b", "function": {"name": "weather", "arguments": ""}},
                ],
            },
            {"role": "tool", "tool_call_id": "a", "content": "12 degrees"},
        ],
        "tools": [WEATHER],
        "tool_choice": "auto",
        "temperature": 1,
        "top_p": 0.9,
        "top_k": -1,
        "min_p": 0.05,
        "repeat_penalty": 1.1,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "seed": 42,
        "logit_bias": {"17": -100, "18": 1.5},
        "stop": ["\n", ""],
        "n": 2,
        "max_tokens": 5,
        "max_completion_tokens": 9,
        "min_tokens": 1,
        "ignore_eos": True,
        "chat_template_kwargs": {"enable_thinking": False, "style": "dry"},
        "reasoning_effort": "high",
        "user": "somebody",
        "metadata": {"unknown": [1, 2]},
    }
    assert to_request(validate(ChatBody, body), "id-1") == GenerationRequest(
        id="id-1",
        model="fake:latest",
        messages=(
            Message("system", "Be brief."),
            Message("user", "Hi\nthere", name="Ann"),
            Message(
                "assistant",
                "",
                "hm",
                (ToolCall("a", "weather", '{"city": "Århus"}'), ToolCall("b", "weather", "{}")),
            ),
            Message("tool", "12 degrees", answers="a"),
        ),
        tools=(OFFERED,),
        thinking=False,
        template_kwargs={"enable_thinking": False, "style": "dry"},  # the pool decides
        sampling=Sampling(1, 0, 0.9, 0.05, 1.1, 0.5, -0.5, 42, ((17, -100.0), (18, 1.5))),
        max_tokens=9,
        min_tokens=1,
        ignore_eos=True,
        stop=("\n",),
        n=2,
    )


def test_what_is_not_said_stays_unsaid():
    request = request_of({})
    assert request == GenerationRequest(id=request.id, messages=(Message("user", "Hi"),))


def test_null_says_nothing():
    fields = [name for name in ChatBody.model_fields if name != "messages"]
    request = request_of(dict.fromkeys(fields))
    assert request == GenerationRequest(id=request.id, messages=(Message("user", "Hi"),))


@pytest.mark.parametrize(
    ("said", "field", "meant"),
    [
        ({"model": "default"}, "model", None),
        ({"max_tokens": -1}, "max_tokens", None),
        ({"max_tokens": 3}, "max_tokens", 3),
        ({"max_tokens": 3, "max_completion_tokens": -1}, "max_tokens", None),
        ({"stop": "END"}, "stop", ("END",)),
        ({"seed": -1}, "sampling", Sampling()),
        ({"repetition_penalty": 2, "repeat_penalty": 3}, "sampling", Sampling(repeat_penalty=2)),
        ({"logit_bias": {}}, "sampling", Sampling(logit_bias=())),
        ({"ignore_eos": "TRUE"}, "ignore_eos", True),
        ({"ignore_eos": 1}, "ignore_eos", True),
        ({"temperature": "0.7", "top_k": "5"}, "sampling", Sampling(temperature=0.7, top_k=5)),
        ({"max_tokens": "128", "n": "2"}, "max_tokens", 128),
        ({"seed": "-1"}, "sampling", Sampling()),
        ({"tools": [WEATHER, F], "tool_choice": ALLOWED}, "tools", (OFFERED,)),
        ({"tools": [WEATHER, F], "tool_choice": FLAT}, "tools", (OFFERED,)),
        ({"enable_thinking": True}, "thinking", True),
        ({"reasoning_effort": "none"}, "thinking", False),
        ({"reasoning_effort": "high"}, "thinking", True),
        ({"reasoning_effort": "Hm"}, "thinking", None),
        ({"enable_thinking": True, "reasoning_effort": "none"}, "thinking", True),
        ({"tools": [WEATHER], "tool_choice": "none"}, "tools", ()),
        ({"functions": [FUNCTION]}, "tools", (OFFERED,)),
        ({"functions": [FUNCTION], "function_call": "auto"}, "tools", (OFFERED,)),
        ({"functions": [FUNCTION], "function_call": "none"}, "tools", ()),
        ({"functions": [{"name": "f"}], "tools": [WEATHER]}, "tools", (OFFERED,)),
        ({"continue_final_message": "true"}, "continued", True),
        ({"continue_final_message": True, "add_generation_prompt": False}, "continued", True),
        ({"add_generation_prompt": True}, "continued", False),
        ({"continue_final_message": False, "add_generation_prompt": "true"}, "continued", False),
        ({"response_format": {"type": "text"}, "logprobs": False, "n": 1}, "n", 1),
    ],
)
def test_every_way_to_say_a_thing_means_the_same(said, field, meant):
    assert getattr(request_of(said), field) == meant


SCHEMA_TEXT = json.dumps(SCHEMA)
FORM = {"type": "json_schema", "json_schema": {"name": "w", "strict": True, "schema": SCHEMA}}
BARE = {"type": "json_object", "schema": SCHEMA}
NAMED = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({"response_format": {"type": "text"}}, []),
        ({"structured_outputs": {}, "guided_regex": None}, []),
        ({"response_format": {"type": "json_object"}}, [("json", "response_format")]),
        ({"response_format": FORM}, [("schema", "response_format", SCHEMA_TEXT)]),
        ({"response_format": BARE}, [("schema", "response_format", SCHEMA_TEXT)]),
        ({"guided_json": SCHEMA}, [("schema", "guided_json", SCHEMA_TEXT)]),
        ({"guided_json": SCHEMA_TEXT}, [("schema", "guided_json", SCHEMA_TEXT)]),
        (
            {"structured_outputs": {"json": SCHEMA}},
            [("schema", "structured_outputs.json", SCHEMA_TEXT)],
        ),
        (
            {"structured_outputs": {"json_object": True, "regex": "a+"}},
            [
                ("json", "structured_outputs.json_object"),
                ("regex", "structured_outputs.regex", "a+"),
            ],
        ),
        (
            {"guided_choice": ["a", ""], "parallel_tool_calls": "false"},
            [("choice", "guided_choice", "", ("a", ""))],
        ),
        ({"guided_grammar": "start: a"}, [("grammar", "guided_grammar", "start: a")]),
        ({"tool_choice": "required"}, [("calls", "tool_choice")]),
        ({"tool_choice": "any"}, [("calls", "tool_choice")]),
        ({"tool_choice": ALLOWED}, [("calls", "tool_choice")]),
        ({"tool_choice": NAMED}, [("calls", "tool_choice", "weather")]),
        (
            {"tool_choice": {"type": "function", "name": "weather"}, "response_format": FORM},
            [("calls", "tool_choice", "weather")],
        ),
        (
            {"tool_choice": "required", "parallel_tool_calls": False},
            [("calls", "tool_choice")],
        ),
    ],
)
def test_what_an_answer_has_to_be_is_understood(said, meant):
    request = request_of({"tools": [WEATHER]} | said)
    assert request.constraints == tuple(Constraint(*parts) for parts in meant)
    assert request.parallel_calls is ("parallel_tool_calls" not in said)
    [tool] = request.tools
    assert (tool.name, tool.parameters) == ("weather", SCHEMA)


def chunks_of(events, include_usage=False, n=1):
    encoder = Encoder(Head("chatcmpl-1", "fake", 5), n, include_usage)
    frames = [frame for event in events for frame in encoder.encode(event)] + encoder.close()
    assert all(frame.startswith(b"data: ") and frame.endswith(b"\n\n") for frame in frames)
    assert frames.pop() == b"data: [DONE]\n\n"
    return [json.loads(frame[6:]) for frame in frames]


def test_events_become_the_chunks_of_the_api_reference():
    events = [
        Started(7),
        ReasoningDelta(0, "hm"),
        TextDelta(0, 'A "å"\n'),
        CALL,
        end(reason="tool_calls"),
    ]
    head = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 5,
        "model": "fake",
        "system_fingerprint": FINGERPRINT,
    }
    tool_call = {
        "index": 0,
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
    }
    deltas = [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "hm", "reasoning": "hm"},
        {"content": 'A "å"\n'},
        {"tool_calls": [tool_call]},
        {},
    ]
    reasons = [None, None, None, None, "tool_calls"]
    expected = [
        head | {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        for delta, reason in zip(deltas, reasons, strict=True)
    ]
    expected[-1]["timings"] = {
        "prompt_n": 4,
        "cache_n": 3,
        "predicted_n": 2,
        "queued_ms": 1.0,
        "ttft_ms": 100.0,
        "predicted_ms": 200.0,
        "predicted_per_second": 5.0,
    }
    assert chunks_of(events) == expected


@pytest.mark.parametrize("legacy", [True, False])
def test_who_offers_functions_is_answered_with_a_function_call(legacy):
    said = {"name": "weather", "arguments": '{"city": "Oslo"}'}
    history = {"role": "assistant", "content": None, "function_call": said}
    body = {"functions": [FUNCTION]} if legacy else {"tools": [WEATHER]}
    call = understand({"messages": [*HI, history]} | body, "fake")
    assert call.requests[0].messages[-1].tool_calls == (ToolCall("", *said.values()),)
    events = [Started(7), *(replace(CALL, position=i) for i in range(2)), end(0, "tool_calls")]
    chunks = [json.loads(c[6:])["choices"][0] for e in events for c in call.encoder.encode(e)]
    deltas = [chunk["delta"] for chunk in chunks[1:]]
    assert (deltas == [{"function_call": said}, {}]) is legacy
    [choice] = json.loads(call.encoder.fold(events))["choices"]
    reason = "function_call" if legacy else "tool_calls"
    assert choice["finish_reason"] == chunks[-1]["finish_reason"] == reason
    assert choice["message"].get("function_call") == (said if legacy else None)
    assert ("tool_calls" in choice["message"]) is not legacy


def test_usage_is_a_chunk_without_choices_only_when_asked_for():
    events = [Started(7), end(0), end(1)]
    assert all(chunk["choices"] for chunk in chunks_of(events, n=2))
    last = chunks_of(events, include_usage=True, n=2)[-1]
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 4,
        "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 3},
    }


async def test_the_official_client_reads_a_whole_answer():
    script = [Started(7), ReasoningDelta(0, "hm"), CALL, end(0, "tool_calls")]
    async with serving(FakePool(script)) as url:
        client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        reply = await client.chat.completions.create(model="fake", messages=HI)
        await client.close()
    choice = reply.choices[0]
    assert (reply.object, reply.model) == ("chat.completion", "fake")
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.reasoning_content == "hm"
    assert choice.message.tool_calls[0].function.name == "weather"
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"city": "Oslo"}
    assert reply.usage.prompt_tokens_details.cached_tokens == 3


async def test_the_official_client_reads_a_stream_of_two_choices():
    async with serving(FakePool()) as url:
        client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        stream = await client.chat.completions.create(
            model="default", messages=HI, n=2, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        await client.close()
    texts = ["", ""]
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        texts[choice.index] += choice.delta.content or ""
    assert texts == ["Hello", "Hello"]
    assert chunks[-1].usage.completion_tokens == 4


async def test_the_answer_folded_is_the_stream_joined():
    pool = FakePool()
    async with serving(pool) as url:
        client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        reply = await client.chat.completions.create(model="fake", messages=HI, n=3)
        await client.close()
    assert [choice.message.content for choice in reply.choices] == ["Hello"] * 3
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (7, 6)
