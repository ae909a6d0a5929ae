"""OpenAI's Responses: what a body asks for, and the events of an answer."""

import json

import pytest

from api.body import parse_object
from api.openai.responses.create import understand
from api.openai.responses.store import Store
from inference import (
    ArgumentsDelta,
    BadRequest,
    Constraint,
    GenerationRequest,
    Message,
    ReasoningDelta,
    Sampling,
    Started,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
)
from tests.bodies import SCHEMA
from tests.fake_pool import end, hello

WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "Tells it.",
    "parameters": SCHEMA,
    "strict": True,
}
SHOWN = {key: value for key, value in WEATHER.items() if key != "type"}
TOOL = Tool("weather", "Tells it.", SCHEMA, strict=True, written=SHOWN)
CALL = ToolCallDelta(0, 0, ToolCall("call_1", "weather", '{"city": "Oslo"}'))
EVERYTHING = [
    Started(7),
    ReasoningDelta(0, "h"),
    ReasoningDelta(0, "m"),
    TextDelta(0, "So "),
    TextDelta(0, 'be "it"\n'),
    CALL,
    ToolCallDelta(0, 1, ToolCall("call_2", "now", '{"x"')),
    ArgumentsDelta(0, 1, ": 1}"),
    TextDelta(0, "Done."),
    end(reason="tool_calls"),
]


def call_of(body, store=None):
    parsed = parse_object(json.dumps({"input": "Hi"} | body).encode())
    return understand(store or Store(), "", parsed, "fake")


def request_of(body):
    return call_of(body).requests[0]


def messages_of(*items, **body):
    return request_of({"input": [*items], **body}).messages


def folded(events, **body):
    return json.loads(call_of(body).encoder.fold(events))


def test_a_body_with_everything_becomes_the_request_it_means():
    body = {
        "model": "fake:latest",
        "instructions": "Be brief.",
        "input": [
            {"role": "developer", "content": "Be kind."},
            {"type": "message", "role": "user", "content": [
                {"type": "input_text", "text": "What is"},
                {"type": "input_text", "text": "the weather?"},
            ]},
            {"type": "reasoning", "id": "rs_1", "encrypted_content": "x", "summary": [
                {"type": "summary_text", "text": "hm"}
            ]},
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": "I look.", "annotations": []}]},
            {"type": "function_call", "id": "fc_1", "call_id": "a", "name": "weather",
             "arguments": '{"city": "Århus"}', "status": "completed"},
            {"type": "function_call", "call_id": "b", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "a", "output": "12 degrees"},
            {"type": "function_call_output", "call_id": "b", "output": [
                {"type": "input_text", "text": "no"},
                {"type": "input_text", "text": "city"},
            ]},
        ],
        "tools": [WEATHER],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}},
        "reasoning": {"effort": "low", "summary": "auto"},
        "max_output_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "service_tier": "flex",
        "truncation": "auto",
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "k",
        "user": "u",
        "unknown": 1,
    }  # fmt: skip
    calls = (
        ToolCall("a", "weather", '{"city": "Århus"}'),
        ToolCall("b", "weather", "{}"),
    )
    request = request_of(body)
    assert request.id.startswith("resp_")
    assert request == GenerationRequest(
        id=request.id,
        model="fake:latest",
        messages=(
            Message("system", "Be brief."),
            Message("system", "Be kind."),
            Message("user", "What is\nthe weather?"),
            Message("assistant", "I look.", "hm", calls),
            Message("tool", "12 degrees", answers="a"),
            Message("tool", "no\ncity", answers="b"),
        ),
        tools=(TOOL,),
        constraints=(Constraint("schema", "text.format", json.dumps(SCHEMA)),),
        parallel_calls=False,
        thinking=True,
        thinking_budget=1024,
        max_tokens=9,
        sampling=Sampling(temperature=0.5, top_p=0.9, top_k=5),
        priority=-1,
    )


def test_what_an_assistant_does_in_one_turn_is_one_message():
    thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]}
    call = {"type": "function_call", "call_id": "a", "name": "f", "arguments": {}}
    result = {"type": "function_call_output", "call_id": "a", "output": ""}
    called = ToolCall("a", "f", "{}")

    def said(text):
        return {"role": "assistant", "content": text}

    assert messages_of(thought, call) == (Message("assistant", "", "hm", (called,)),)
    assert messages_of(said("x"), call, said("y")) == (Message("assistant", "x\ny", "", (called,)),)
    assert messages_of(said("x"), said("y")) == (
        Message("assistant", "x"),
        Message("assistant", "y"),
    )
    assert (
        messages_of(call, result, call, result)
        == (
            Message("assistant", "", "", (called,)),
            Message("tool", "", answers="a"),
        )
        * 2
    )
    assert messages_of(said("x"), thought, said("y")) == (
        Message("assistant", "x"),
        Message("assistant", "y", "hm"),
    )
    sealed = {"type": "reasoning", "summary": None, "encrypted_content": "x"}
    assert messages_of(sealed, said("x"), sealed) == (Message("assistant", "x"),)
    custom = {"type": "custom_tool_call", "call_id": "a", "name": "f", "input": "x"}
    [message] = messages_of(custom)
    assert message.tool_calls == (ToolCall("a", "f", '{"input": "x"}'),)


def test_what_codex_sends_is_understood():
    """Tools that a server would have to know, and those of an MCP server in a namespace."""
    patch = {"type": "custom", "name": "apply_patch", "format": {"type": "grammar"}}
    inner = {"type": "function", "name": "find", "parameters": {}, "strict": False}
    tools = [
        WEATHER,
        patch,
        {"type": "web_search", "external_web_access": False},
        {"type": "image_generation"},
        {"type": "local_shell"},
        {"type": "namespace", "name": "mcp__db", "description": "A db.", "tools": [inner, patch]},
    ]
    said = {"type": "function_call", "call_id": "a", "namespace": "mcp__db", "name": "find"}
    body = {
        "input": [{"role": "user", "content": "Hi"}, said],
        "tools": tools,
        "tool_choice": "auto",
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "x",
        "text": {"verbosity": "low"},
        "client_metadata": {"x": "y"},
    }
    request = request_of(body)
    assert [tool.name for tool in request.tools] == ["weather", "mcp__db__find"]
    assert request.tools[1].written["name"] == "mcp__db__find"
    assert request.messages[1].tool_calls == (ToolCall("a", "mcp__db__find", "{}"),)
    asked = ToolCallDelta(0, 0, ToolCall("call_1", "mcp__db__find", "{}"))
    whole = folded([Started(7), asked, end(reason="tool_calls")], **body)
    [item] = whole["output"]
    assert (item["namespace"], item["name"]) == ("mcp__db", "find")
    assert [tool["type"] for tool in whole["tools"]] == ["function", "namespace"]


FORCED = Constraint("calls", "tool_choice")
CHOICES = [
    ("none", (), ()),
    ("auto", ("weather", "now"), ()),
    ("required", ("weather", "now"), (FORCED,)),
    ({"type": "function", "name": "now"}, ("weather", "now"),
     (Constraint("calls", "tool_choice", "now"),)),
    ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "now"}]},
     ("now",), ()),
    ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "now"}]},
     ("now",), (FORCED,)),
]  # fmt: skip


@pytest.mark.parametrize(("choice", "names", "constraints"), CHOICES)
def test_which_tools_may_be_called(choice, names, constraints):
    body = {"tools": [WEATHER, {"type": "function", "name": "now"}], "tool_choice": choice}
    request = request_of(body)
    assert tuple(tool.name for tool in request.tools) == names
    assert request.constraints == constraints
    assert folded(hello(), **body)["tool_choice"] == choice


@pytest.mark.parametrize(
    ("reasoning", "thinking", "budget"),
    [
        ({}, None, None),
        ({"effort": "none"}, False, None),
        ({"effort": "minimal"}, False, None),
        ({"effort": "medium"}, True, 8192),
        ({"effort": "high"}, True, None),
        ({"summary": "auto"}, None, None),
    ],
)
def test_an_effort_says_whether_and_how_long_it_thinks(reasoning, thinking, budget):
    request = request_of({"reasoning": reasoning})
    assert (request.thinking, request.thinking_budget) == (thinking, budget)


def test_a_form_may_be_any_object_or_none():
    [constraint] = request_of({"text": {"format": {"type": "json_object"}}}).constraints
    assert constraint == Constraint("json", "text.format")
    assert request_of({"text": {"format": {"type": "text"}}}).constraints == ()


def test_nothing_to_answer_and_references_to_nothing_are_refused():
    assert request_of({"input": [], "instructions": "x"}).messages == (Message("system", "x"),)
    for body, code in [
        ({"input": []}, "invalid_value"),
        ({"input": [{"type": "item_reference", "id": "msg_x_0"}]}, "item_not_found"),
        ({"input": [{"id": "odd"}]}, "item_not_found"),
        ({"previous_response_id": "resp_x"}, "previous_response_not_found"),
    ]:
        with pytest.raises(BadRequest) as refusal:
            request_of(body)
        assert refusal.value.code == code
        assert refusal.value.message.startswith(refusal.value.field)
