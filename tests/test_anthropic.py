"""Anthropic's dialect: its two pure halves."""

import json

import pytest

from api.anthropic.encoder import SIGNATURE, Encoder, Head
from api.anthropic.messages import MessagesBody, to_request, understand
from api.body import validate
from inference import (
    BadRequest,
    Constraint,
    Finished,
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
from tests.bodies import HI, SCHEMA
from tests.fake_pool import CALL, TIMINGS, USAGE, end

WEATHER = {"name": "weather", "description": "Tells it.", "input_schema": SCHEMA}
EVERYTHING = [
    Started(7),
    ReasoningDelta(0, "h"),
    ReasoningDelta(0, "m"),
    TextDelta(0, "So "),
    TextDelta(0, 'be "it"\n'),
    CALL,
    ToolCallDelta(0, 1, ToolCall("call_2", "now", "")),
    TextDelta(0, "Done."),
    end(reason="tool_calls"),
]


F = {"name": "f", "input_schema": {}}
BUDGET = {"type": "enabled", "budget_tokens": 2048}
FORM = {"type": "json_schema", "schema": SCHEMA}


def request_of(body):
    return understand({"messages": HI} | body, "fake").requests[0]


def test_a_body_with_everything_becomes_the_request_it_means():
    body = {
        "model": "fake:latest",
        "max_tokens": 9,
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=0a1b2;"},
            {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "Be kind."},
        ],
        "messages": [
            {"role": "user", "content": "Hi"},
            {
                "role": "assistant",
                "content": [
                    {"type": "redacted_thinking", "data": "xyz"},
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Århus"}},
                    {"type": "tool_use", "id": "b", "name": "weather", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "a", "content": "12 degrees"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "b",
                        "content": [
                            {"type": "text", "text": "no"},
                            {"type": "text", "text": "city"},
                        ],
                        "is_error": True,
                    },
                    {"type": "text", "text": "And", "cache_control": {"type": "ephemeral"}},
                    {"type": "text", "text": "now?"},
                ],
            },
            {"role": "system", "content": "Three minutes are left."},
            {"role": "ctx", "content": []},
        ],
        "tools": [
            WEATHER | {"type": "custom", "cache_control": None},
            {"name": "x", "input_schema": {}},
        ],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "thinking": BUDGET,
        "stop_sequences": ["\n\nHuman:", ""],
        "temperature": 1,
        "top_p": 0.9,
        "top_k": 5,
        "metadata": {"user_id": "somebody"},
        "service_tier": "auto",
        "context_management": {"edits": []},
        "output_config": {"effort": "low"},
    }
    assert to_request(validate(MessagesBody, body), "id-1") == GenerationRequest(
        id="id-1",
        model="fake:latest",
        messages=(
            Message("system", "Be brief.\nBe kind."),
            Message("user", "Hi"),
            Message(
                "assistant",
                "I look.",
                "hm",
                (ToolCall("a", "weather", '{"city": "Århus"}'), ToolCall("b", "weather", "{}")),
            ),
            Message("tool", "12 degrees", answers="a"),
            Message("tool", "Error: no\ncity", answers="b"),
            Message("user", "And\nnow?"),
            Message("system", "Three minutes are left."),
            Message("user", ""),
        ),
        tools=(Tool("weather", "Tells it.", SCHEMA), Tool("x")),
        parallel_calls=False,
        thinking=True,
        thinking_budget=2048,
        sampling=Sampling(temperature=1, top_k=5, top_p=0.9),
        max_tokens=9,
        stop=("\n\nHuman:",),
    )


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({"tool_choice": {"type": "auto"}}, []),
        ({"tool_choice": {"type": "any"}}, [Constraint("calls", "tool_choice")]),
        (
            {
                "tool_choice": {
                    "type": "tool",
                    "name": "weather",
                    "disable_parallel_tool_use": True,
                },
                "output_format": FORM,
            },
            [Constraint("calls", "tool_choice", "weather")],
        ),
        ({"output_format": FORM}, [Constraint("schema", "output_format", json.dumps(SCHEMA))]),
        (
            {"output_config": {"format": FORM}},
            [Constraint("schema", "output_config", json.dumps(SCHEMA))],
        ),
    ],
)
def test_what_an_answer_has_to_be_is_understood(said, meant):
    assert request_of({"tools": [WEATHER]} | said).constraints == tuple(meant)


def test_of_both_names_for_a_format_the_newer_counts():
    both = {"output_format": FORM, "output_config": {"format": FORM | {"schema": {}}}}
    assert request_of(both).constraints == (Constraint("schema", "output_config", "{}"),)


def test_an_answer_that_is_begun_goes_on():
    assert request_of({"messages": [*HI, {"role": "assistant", "content": "{"}]}).continued
    assert not request_of({}).continued


def test_null_and_silence_say_nothing_and_nobody_thinks_unasked():
    fields = [name for name in MessagesBody.model_fields if name != "messages"]
    for body in ({}, dict.fromkeys(fields)):
        request = request_of(body)
        plain = GenerationRequest(id=request.id, messages=(Message("user", "Hi"),), thinking=False)
        assert request == plain


@pytest.mark.parametrize(
    ("said", "field", "meant"),
    [
        ({"thinking": {"type": "adaptive"}}, "thinking", True),
        ({"thinking": {"type": "disabled"}}, "thinking", False),
        ({"tools": [WEATHER], "tool_choice": {"type": "none"}}, "tools", ()),
        (
            {"system": "Be brief."},
            "messages",
            (Message("system", "Be brief."), Message("user", "Hi")),
        ),
        ({"model": ""}, "model", None),
        ({"output_config": {"effort": "low"}}, "thinking_budget", 1024),
        ({"output_config": {"effort": "max"}}, "thinking_budget", None),
        ({"output_config": {"effort": "low"}, "thinking": BUDGET}, "thinking_budget", 2048),
        ({"tools": [dict.fromkeys(("type", "strict", "description")) | F]}, "tools", (Tool("f"),)),
        ({"top_k": -1}, "sampling", Sampling(top_k=0)),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a"}]}
                ]
            },
            "messages",
            (Message("tool", "", answers="a"),),
        ),
    ],
)
def test_every_way_to_say_a_thing_means_the_same(said, field, meant):
    assert getattr(request_of(said), field) == meant


def block(**fields):
    return [{"role": "user", "content": [fields]}]


REFUSED = [
    ({"messages": block(type="image", source={})}, "messages.0.content", "no images"),
    ({"messages": block(type="server_tool_use")}, "messages.0.content", "server tools"),
    (
        {"messages": block(type="tool_result", tool_use_id="a", content=[{"type": "image"}])},
        "messages.0.content.0.tool_result.content",
        "no images",
    ),
    ({"system": [{"type": "image"}]}, "system", "no images"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type", "Server"),
    ({"tool_choice": {"type": "tool"}}, "tool_choice", "name is missing"),
    ({"output_config": {"format": {}}}, "output_config.format.type", "required"),
    ({"output_format": {"type": "json_schema"}}, "output_format.schema", "required"),
    ({"mcp_servers": [{}]}, "mcp_servers", "not supported"),
]


@pytest.mark.parametrize(("said", "field", "why"), REFUSED)
def test_what_it_does_not_do_is_refused_by_name(said, field, why):
    with pytest.raises(BadRequest, match=why) as refusal:
        request_of(said)
    assert refusal.value.field == field and refusal.value.message.startswith(field)


def events_of(events):
    encoder = Encoder(Head("msg_1", "fake"))
    frames = [frame for event in events for frame in encoder.encode(event)] + encoder.close()
    return parsed(b"".join(frames).decode())


def parsed(text):
    """The data of events, each of which has its own name as type."""
    assert text.endswith("\n\n")
    found = []
    for frame in text.removesuffix("\n\n").split("\n\n"):
        name, data = frame.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def delta(index, **part):
    return {"type": "content_block_delta", "index": index, "delta": part}


def start(index, **content):
    return {"type": "content_block_start", "index": index, "content_block": content}


def stop(index):
    return {"type": "content_block_stop", "index": index}


def test_events_become_blocks_one_after_the_other():
    usage = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0}
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "fake",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 7} | usage,
    }
    assert events_of(EVERYTHING) == [
        {"type": "message_start", "message": message},
        start(0, type="thinking", thinking="", signature=""),
        delta(0, type="thinking_delta", thinking="h"),
        delta(0, type="thinking_delta", thinking="m"),
        delta(0, type="signature_delta", signature=SIGNATURE),
        stop(0),
        start(1, type="text", text=""),
        delta(1, type="text_delta", text="So "),
        delta(1, type="text_delta", text='be "it"\n'),
        stop(1),
        start(2, type="tool_use", id="toolu_1", name="weather", input={}),
        delta(2, type="input_json_delta", partial_json='{"city": "Oslo"}'),
        stop(2),
        start(3, type="tool_use", id="toolu_2", name="now", input={}),
        delta(3, type="input_json_delta", partial_json="{}"),
        stop(3),
        start(4, type="text", text=""),
        delta(4, type="text_delta", text="Done."),
        stop(4),
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": usage | {"input_tokens": 4, "cache_read_input_tokens": 3, "output_tokens": 2},
        },
        {"type": "message_stop"},
    ]


@pytest.mark.parametrize(
    ("events", "names"),
    [
        ([end()], []),
        ([ReasoningDelta(0, "hm"), end(reason="length")], ["start", "delta", "delta", "stop"]),
        ([CALL, end(reason="tool_calls")], ["start", "delta", "stop"]),
        (
            [TextDelta(0, "a"), ReasoningDelta(0, "b"), TextDelta(0, "c"), end()],
            ["start", "delta", "stop", "start", "delta", "delta", "stop", "start", "delta", "stop"],
        ),
    ],
)
def test_whatever_comes_every_block_is_closed_before_the_end(events, names):
    first, *blocks, last, done = [event["type"] for event in events_of([Started(7), *events])]
    assert (first, last, done) == ("message_start", "message_delta", "message_stop")
    assert blocks == [f"content_block_{name}" for name in names]


@pytest.mark.parametrize(
    ("last", "reason", "sequence"),
    [
        (end(), "end_turn", None),
        (end(reason="length"), "max_tokens", None),
        (end(reason="tool_calls"), "tool_use", None),
        (Finished(0, "stop", USAGE, TIMINGS, "END"), "stop_sequence", "END"),
    ],
)
def test_why_it_ended_is_said_in_both_ways(last, reason, sequence):
    said = {"stop_reason": reason, "stop_sequence": sequence}
    assert events_of([Started(7), last])[-2]["delta"] == said
    whole = json.loads(Encoder(Head("msg_1", "fake")).fold([Started(7), last]))
    assert said.items() <= whole.items()
