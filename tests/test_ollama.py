"""Ollama's dialect: its two pure halves."""

import json
import re

import pytest

from api.ollama.encoder import ChatLine, Encoder, GenerateLine
from api.ollama.generation import understand_chat, understand_generate
from inference import (
    BadRequest,
    GenerationRequest,
    Message,
    ReasoningDelta,
    Sampling,
    Started,
    TextDelta,
    Tool,
    ToolCall,
)
from tests.bodies import HI, SCHEMA
from tests.fake_pool import CALL, end

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
EVERYTHING = [
    Started(7),
    ReasoningDelta(0, "hm"),
    TextDelta(0, "So "),
    TextDelta(0, "be it.\n"),
    CALL,
    end(reason="tool_calls"),
]


def request_of(body, understand=understand_chat):
    least = {"messages": HI} if understand is understand_chat else {"prompt": "Hi"}
    return understand(least | body, "fake").requests[0]


def test_a_body_with_everything_becomes_the_request_it_means():
    body = {
        "model": "fake",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi", "images": []},
            {
                "role": "assistant",
                "content": None,
                "thinking": "hm",
                "tool_calls": [
                    {"function": {"name": "weather", "arguments": {"city": "Århus"}}},
                    {"id": "b", "function": {"name": "weather"}},
                ],
            },
            {"role": "tool", "content": "12 degrees", "tool_name": "weather"},
        ],
        "tools": [WEATHER],
        "think": "high",
        "format": "",
        "keep_alive": "5m",
        "options": {
            "num_ctx": 65536,
            "num_predict": 9,
            "seed": 42,
            "stop": ["\n", ""],
            "temperature": 1,
            "top_k": -1,
            "top_p": 0.9,
            "min_p": 0.05,
            "repeat_penalty": 1.1,
            "presence_penalty": 0.5,
            "frequency_penalty": None,
            "mirostat": 0,
        },
    }
    request = request_of(body)
    assert request == GenerationRequest(
        id=request.id,
        model="fake",
        messages=(
            Message("system", "Be brief."),
            Message("user", "Hi"),
            Message(
                "assistant",
                "",
                "hm",
                (ToolCall("", "weather", '{"city": "Århus"}'), ToolCall("b", "weather", "{}")),
            ),
            Message("tool", "12 degrees", name="weather"),
        ),
        tools=(Tool("weather", "", SCHEMA),),
        thinking=True,
        sampling=Sampling(1, 0, 0.9, 0.05, 1.1, 0.5, None, 42),
        max_tokens=9,
        stop=("\n",),
        keep_alive=300.0,
    )


@pytest.mark.parametrize(
    ("said", "field", "meant"),
    [
        ({}, "thinking", None),
        ({"think": False}, "thinking", False),
        ({"think": True}, "thinking", True),
        ({"think": "false"}, "thinking", False),
        ({"think": "low"}, "thinking", True),
        ({"think": "low"}, "thinking_budget", 1024),
        ({"think": "medium"}, "thinking_budget", 8192),
        ({"think": "high"}, "thinking_budget", None),
        ({"options": {"temperature": 100}}, "sampling", Sampling(temperature=100)),
        ({"options": {"temperature": "1.5", "stop": None}}, "sampling", Sampling(temperature=1.5)),
        ({"options": None}, "sampling", Sampling()),
        ({"options": {"num_predict": -1}}, "max_tokens", None),
        ({"options": {"num_predict": -2}}, "max_tokens", None),
        ({"options": {"seed": -1}}, "sampling", Sampling()),
        ({"options": {"stop": "END"}}, "stop", ("END",)),
        ({"model": "fake:latest"}, "model", "fake:latest"),
        ({"model": ""}, "model", None),
        ({}, "model", None),
        ({"keep_alive": 0}, "keep_alive", 0.0),
        ({"keep_alive": "0s"}, "keep_alive", 0.0),
        ({"keep_alive": "1h30m"}, "keep_alive", 5400.0),
        ({"keep_alive": "1.5s500ms"}, "keep_alive", 2.0),
        ({"keep_alive": "90"}, "keep_alive", 90.0),
        ({"keep_alive": 0.5}, "keep_alive", 0.5),
        ({"keep_alive": -1}, "keep_alive", -1.0),
        ({"keep_alive": "-24h"}, "keep_alive", -1.0),
        ({"keep_alive": "999999999h"}, "keep_alive", 2.0**31 - 1),
    ],
)
def test_every_way_to_say_a_thing_means_the_same(said, field, meant):
    assert getattr(request_of(said), field) == meant


def test_a_prompt_is_a_conversation_unless_it_is_raw():
    request = request_of({"system": "Be brief."}, understand_generate)
    assert request.messages == (Message("system", "Be brief."), Message("user", "Hi"))
    raw = request_of({"raw": True}, understand_generate)
    assert (raw.prompt, raw.messages) == ("Hi", ())


@pytest.mark.parametrize(
    ("understand", "said", "field"),
    [
        (understand_chat, {"messages": [{"role": "user", "images": ["x"]}]}, "messages.0.images"),
        (understand_chat, {"messages": [{"role": "king", "content": ""}]}, "messages.0.role"),
        (understand_chat, {"format": "yaml"}, "format"),
        (understand_chat, {"format": ["json"]}, "format"),
        (understand_chat, {"logprobs": 5}, "logprobs"),
        (understand_chat, {"top_logprobs": 21}, "top_logprobs"),
        (understand_generate, {"top_logprobs": -1}, "top_logprobs"),
        (understand_chat, {"think": "a lot"}, "think.bool"),
        (understand_chat, {"options": {"temperature": 101}}, "options.temperature"),
        (understand_chat, {"keep_alive": "a while"}, "keep_alive"),
        (understand_chat, {"keep_alive": "5" * 10}, "keep_alive"),
        (understand_chat, {"keep_alive": "5m\n"}, "keep_alive"),
        (understand_chat, {"keep_alive": 2**31}, "keep_alive"),
        (understand_generate, {"keep_alive": True}, "keep_alive"),
        (understand_generate, {"suffix": "end"}, "suffix"),
        (understand_generate, {"context": [1]}, "context"),
        (understand_generate, {"template": "{{ .Prompt }}"}, "template"),
        (understand_generate, {"images": ["x"]}, "images"),
    ],
)
def test_what_it_does_not_do_is_refused_by_name(understand, said, field):
    with pytest.raises(BadRequest) as refusal:
        request_of(said, understand)
    assert refusal.value.field == field and refusal.value.message.startswith(field)


def lines_of(kind):
    encoder = Encoder("fake", kind)
    frames = [frame for event in EVERYTHING for frame in encoder.encode(event)] + encoder.close()
    assert all(frame.endswith(b"}\n") and frame.count(b"\n") == 1 for frame in frames)
    return [told(json.loads(frame)) for frame in frames]


def told(line):
    """A line without its model and its time."""
    assert line.pop("model") == "fake"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("created_at"))
    return line


LAST = {
    "done": True,
    "done_reason": "stop",
    "total_duration": 300_000_000,
    "load_duration": 0,
    "prompt_eval_count": 7,
    "prompt_eval_duration": 99_000_000,
    "eval_count": 2,
    "eval_duration": 200_000_000,
}
CALLED = {"index": 0, "name": "weather", "arguments": {"city": "Oslo"}}
TOOL_CALLS = [{"id": "call_1", "function": CALLED}]


def test_events_become_lines_of_a_chat():
    def message(**said):
        return {"message": {"role": "assistant", "content": ""} | said}

    assert lines_of(ChatLine) == [
        {"done": False} | message(thinking="hm"),
        {"done": False} | message(content="So "),
        {"done": False} | message(content="be it.\n"),
        {"done": False} | message(tool_calls=TOOL_CALLS),
        LAST | message(),
    ]
    whole = told(json.loads(Encoder("fake", ChatLine).fold(EVERYTHING)))
    said = message(content="So be it.\n", thinking="hm", tool_calls=TOOL_CALLS)
    assert whole == LAST | said


def test_events_become_lines_of_an_answer():
    assert lines_of(GenerateLine) == [
        {"done": False, "response": "", "thinking": "hm"},
        {"done": False, "response": "So "},
        {"done": False, "response": "be it.\n"},
        {"done": False, "response": ""},
        LAST | {"response": ""},
    ]
    whole = told(json.loads(Encoder("fake", GenerateLine).fold(EVERYTHING)))
    assert whole == LAST | {"response": "So be it.\n", "thinking": "hm"}
