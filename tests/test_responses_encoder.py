"""How a response is told: whole, or as the events of a stream."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.dialect import Problem
from api.openai.replies import Head
from inference import ArgumentsDelta, ReasoningDelta, Started, TextDelta, ToolCall, ToolCallDelta
from tests.fake_pool import end
from tests.test_responses import EVERYTHING, WEATHER, call_of


def encoder_of(**body):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Head, "new", lambda *_: Head("resp_0", "fake", 1))
        return call_of(body).encoder


def told(frames):
    """Events, each of which is under its own name."""
    events = []
    for frame in b"".join(frames).decode().split("\n\n")[:-1]:
        name, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    return events


def parsed(frames):
    """The events of a stream, numbered without a gap."""
    events = told(frames)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def streamed(events, **body):
    encoder = encoder_of(**body)
    frames = [frame for event in events for frame in encoder.encode(event)]
    return parsed([*frames, *encoder.close()])


def folded(events, **body):
    return json.loads(encoder_of(**body).fold(events))


def test_a_response_is_whole_as_the_reference_has_it():
    whole = folded(EVERYTHING, tools=[WEATHER], metadata={"a": "b"}, temperature=0.5)
    assert whole == {
        "id": "resp_0",
        "object": "response",
        "created_at": 1,
        "model": "fake",
        "status": "completed",
        "output": [
            {"type": "reasoning", "id": "rs_0_0", "status": "completed", "summary": [],
             "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"type": "message", "id": "msg_0_1", "status": "completed", "role": "assistant",
             "content": [{"type": "output_text", "text": 'So be "it"\n', "annotations": [],
                          "logprobs": []}]},
            {"type": "function_call", "id": "fc_0_2", "call_id": "call_1", "name": "weather",
             "arguments": '{"city": "Oslo"}', "status": "completed"},
            {"type": "function_call", "id": "fc_0_3", "call_id": "call_2", "name": "now",
             "arguments": '{"x": 1}', "status": "completed"},
            {"type": "message", "id": "msg_0_4", "status": "completed", "role": "assistant",
             "content": [{"type": "output_text", "text": "Done.", "annotations": [],
                          "logprobs": []}]},
        ],
        "usage": {
            "input_tokens": 7,
            "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
            "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 9,
        },
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {"a": "b"},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "temperature": 0.5,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [WEATHER],
        "top_p": None,
        "truncation": "disabled",
        "background": False,
    }  # fmt: skip


def names(events):
    return [event["type"].removeprefix("response.") for event in events]


def test_a_stream_tells_item_after_item():
    events = streamed(EVERYTHING)
    part = ["content_part.added", "{0}.delta", "{0}.delta", "{0}.done", "content_part.done"]
    call = ["function_call_arguments.delta", "function_call_arguments.done"]

    def item(*inside):
        return ["output_item.added", *inside, "output_item.done"]

    def text(kind, parts=part):
        return item(*(name.format(kind) for name in parts))

    assert names(events) == [
        "created",
        "in_progress",
        *text("reasoning_text"),
        *text("output_text"),
        *item(*call),
        *item(call[0], *call),
        *text("output_text", [part[0], *part[2:]]),
        "completed",
    ]
    assert events[0]["response"]["status"] == "in_progress"
    added = events[2]["item"]
    assert (added["status"], added["content"]) == ("in_progress", [])


def test_thoughts_are_a_summary_for_those_who_ask_for_one():
    events = streamed(EVERYTHING, reasoning={"summary": "detailed"})
    kinds = ["part.added", "text.delta", "text.delta", "text.done", "part.done"]
    assert names(events)[3:8] == [f"reasoning_summary_{kind}" for kind in kinds]
    item = events[-1]["response"]["output"][0]
    assert item["summary"] == [{"type": "summary_text", "text": "hm"}] and item["content"] == []
    assert all(event["summary_index"] == 0 for event in events[3:8])


def test_an_answer_that_is_cut_off_is_incomplete():
    events = streamed([Started(7), TextDelta(0, "Hel"), end(reason="length")])
    whole = events[-1]["response"]
    assert names(events)[-1] == whole["status"] == whole["output"][0]["status"] == "incomplete"
    assert whole["incomplete_details"] == {"reason": "max_output_tokens"}


def test_a_call_that_is_cut_off_is_incomplete():
    begun = ToolCallDelta(0, 0, ToolCall("c", "f", '{"a'))
    whole = folded([Started(7), begun, end(reason="length")])
    [call] = whole["output"]
    assert (call["arguments"], call["status"]) == ('{"a', "incomplete")
    assert whole["status"] == "incomplete"


def test_an_answer_of_nothing_is_an_empty_message():
    [item] = folded([Started(7), end()])["output"]
    assert item["content"][0]["text"] == ""


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "invalid_prompt"), (429, "rate_limit_exceeded"), (408, "server_error")],
)
def test_a_stream_that_breaks_ends_with_what_there_is(status, code):
    encoder = encoder_of()
    frames = [frame for event in EVERYTHING[:4] for frame in encoder.encode(event)]
    events = parsed([*frames, *encoder.broken(Problem(status, "x", "It broke."))])
    assert names(events)[-2:] == ["output_item.done", "failed"]
    whole = events[-1]["response"]
    assert (whole["status"], whole["error"]) == ("failed", {"code": code, "message": "It broke."})
    assert [item["status"] for item in whole["output"]] == ["completed", "incomplete"]


def rebuilt(events):
    """The items that a client puts together from the events of a stream."""
    items = []
    for event in events:
        kind = event["type"].removeprefix("response.")
        item = items[event["output_index"]] if event.get("output_index", 99) < len(items) else None
        if kind == "output_item.added":
            assert event["output_index"] == len(items)
            items.append(event["item"])
        elif kind in ("content_part.added", "reasoning_summary_part.added"):
            place = "content" if "content_index" in event else "summary"
            item[place].append(event["part"])
        elif kind == "function_call_arguments.delta":
            item["arguments"] += event["delta"]
        elif kind.endswith(".delta"):
            place = "content" if "content_index" in event else "summary"
            assert item["id"] == event["item_id"]
            item[place][0]["text"] += event["delta"]
        elif kind == "output_item.done":
            assert item | {"status": event["item"]["status"]} == event["item"]
            item["status"] = event["item"]["status"]
    return items


def cuts(draw, events):
    """The same events, their texts cut anywhere."""
    for event in events:
        if isinstance(event, ToolCallDelta) and draw(st.booleans()):
            said = event.call.arguments
            size = draw(st.integers(1, len(said)))
            yield replace(event, call=replace(event.call, arguments=said[:size]))
            yield from cuts(draw, [ArgumentsDelta(0, 0, said[size:])])
            continue
        if not isinstance(event, TextDelta | ReasoningDelta | ArgumentsDelta):
            yield event
            continue
        rest = event.text
        while rest:
            size = draw(st.integers(1, len(rest)))
            yield replace(event, text=rest[:size])
            rest = rest[size:]


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)
STEPS = st.lists(
    TEXTS.map(lambda text: TextDelta(0, text))
    | TEXTS.map(lambda text: ReasoningDelta(0, text))
    | TEXTS.map(lambda text: ToolCallDelta(0, 0, ToolCall("c", "f", json.dumps({"x": text})))),
    max_size=8,
)


@given(STEPS, st.sampled_from(["stop", "length"]), st.sampled_from([None, "auto"]), st.data())
def test_however_an_answer_comes_it_is_the_same_whole_streamed_and_rebuilt(
    steps, reason, summary, data
):
    asked = {"reasoning": {"summary": summary}}
    events = [Started(7), *steps, end(reason=reason)]
    whole = folded(events, **asked)
    told = streamed(list(cuts(data.draw, events)), **asked)
    assert told[-1]["response"] == whole
    assert rebuilt(told) == whole["output"]


def test_a_ping_is_an_event_that_says_nothing_new():
    encoder = encoder_of()
    frames = [frame for event in EVERYTHING[:3] for frame in encoder.encode(event)]
    [*_, last], [ping] = parsed(frames), told([encoder.ping()])
    assert (ping["type"], ping["response"]["output"]) == ("response.in_progress", [])
    assert ping["sequence_number"] == last["sequence_number"]
    frames += [frame for event in EVERYTHING[3:] for frame in encoder.encode(event)]
    assert names(parsed(frames))[-1] == "completed"
    assert encoder.ping().startswith(b":")
