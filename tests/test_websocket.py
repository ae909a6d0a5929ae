"""`/ws`: both protocols, over a real connection."""

import asyncio
import gc
import json

import httpx
import pytest
from uvicorn.protocols.utils import ClientDisconnected
from websockets.exceptions import ConnectionClosed

from api import keys
from api.keys import KeyFile
from api.store.sessions import Sessions
from api.websocket_connection import WebSocketConnection
from inference import (
    ArgumentsDelta,
    BadRequest,
    Overloaded,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCall,
    ToolCallDelta,
)
from tests.fake_pool import FakePool, end, serving
from tests.talking import new_session, said, session, talking


async def test_raw_text_comes_token_by_token_and_ends_with_an_empty_frame():
    async with serving(FakePool()) as url, talking(url, typed=False) as talk:
        await talk.say(message="Hi")
        assert "".join(await talk.raw_turn()) == "Hello"


async def test_several_turns_on_a_connection_with_history_and_settings():
    pool = FakePool()
    async with serving(pool) as url, talking(url, typed=False) as talk:
        await talk.say(message="Hi", max_tokens=5, temperature=0.5, top_p=0.9, thinking=True)
        await talk.raw_turn()
        await talk.say(message="And?", history=[["Hi", "Hello"]], repetition_penalty=1.2)
        await talk.raw_turn()
        spoken = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
        await talk.say(message="And?", history=spoken)
        await talk.raw_turn()
    first, second, third = pool.requests
    assert (first.max_tokens, first.sampling.temperature, first.sampling.top_p) == (5, 0.5, 0.9)
    assert (first.thinking, second.thinking) == (True, None)
    assert second.sampling.repeat_penalty == 1.2
    told = [("user", "Hi"), ("assistant", "Hello"), ("user", "And?")]
    for request in (second, third):
        assert [(one.role, one.content) for one in request.messages] == told


async def test_without_streaming_the_text_is_one_frame():
    async with serving(FakePool()) as url, talking(url, typed=False) as talk:
        await talk.say(message="Hi", stream=False)
        assert await talk.raw_turn() == ["Hello"]


@pytest.mark.parametrize(("typed", "about"), [(False, {}), (True, {"session_id": None})])
async def test_stop_ends_the_model_and_the_connection_goes_on(typed, about):
    pool = FakePool([Started(7), TextDelta(0, "Hel"), asyncio.Event()])
    async with serving(pool) as url, talking(url, typed=typed) as talk:
        await talk.say(message="Hi")
        if typed:
            assert (await talk.event())["type"] == "start"
        await talk.frame()
        await talk.say(stop=True, **about)
        await asyncio.wait_for(pool.cancelled.wait(), 5)
        if typed:
            usage, last = await talk.turn()
            assert (usage["type"], usage["completion_tokens"]) == ("usage", 1)
            assert last == {"type": "end", "reason": "stopped", "saved": False}
        else:
            assert await talk.raw_turn() == []
        await talk.say(message="Again")
        assert await (talk.turn() if typed else talk.raw_turn())


async def test_stop_ends_a_turn_that_only_waits():
    pool = FakePool([asyncio.Event()])
    async with serving(pool) as url, talking(url) as talk:
        await talk.say(message="Hi")
        await asyncio.wait_for(pool.waiting.wait(), 5)
        await talk.say(stop=True)
        assert await talk.turn() == [{"type": "end", "reason": "stopped", "saved": False}]
        assert pool.cancelled.is_set()


@pytest.mark.parametrize("stored", [False, True])
async def test_stop_that_comes_with_what_it_stops_ends_it(stored):
    """Both frames are read before anything is done for the first."""
    pool = FakePool([asyncio.Event()])
    async with serving(pool) as url, talking(url) as talk:
        about = {"session_id": await new_session(url)} if stored else {}
        for message in ({"message": "Hi"} | about, {"stop": True} | about):
            talk.socket.protocol.send_text(json.dumps(message).encode())
        talk.socket.transport.write(b"".join(talk.socket.protocol.data_to_send()))
        assert await talk.turn() == [{"type": "end", "reason": "stopped", "saved": False}]
        await talk.say(message="Again")
        await asyncio.wait_for(pool.waiting.wait(), 5)


async def test_stop_while_a_turn_is_stored_leaves_no_answer_that_nobody_writes(monkeypatch):
    begin, storing = Sessions.begin, asyncio.Event()

    async def slowly(self, *turn):
        storing.set()
        await asyncio.shield(asyncio.sleep(0.05))
        await begin(self, *turn)

    monkeypatch.setattr(Sessions, "begin", slowly)
    pool = FakePool([Started(7), TextDelta(0, "Hel"), asyncio.Event()])
    async with serving(pool) as url, talking(url) as talk:
        id = await new_session(url)
        await talk.say(message="Hi", session_id=id)
        await asyncio.wait_for(storing.wait(), 5)
        await talk.say(stop=True)
        assert (await talk.turn())[-1]["reason"] == "stopped"
        assert [one["state"] for one in (await session(url, id))["messages"]] == ["done", "stopped"]
        await asyncio.wait_for(pool.cancelled.wait(), 5)


async def test_stop_without_an_answer_says_nothing():
    async with serving(FakePool()) as url, talking(url) as talk:
        await talk.say(stop=True)
        await talk.say(ping=True)
        assert await talk.event() == {"type": "pong"}


async def test_typed_events_tell_everything():
    call = ToolCallDelta(0, 0, ToolCall("c1", "weather", '{"city": '))
    script = [
        Started(7),
        ReasoningDelta(0, "Hm"),
        TextDelta(0, "Let me see."),
        call,
        ArgumentsDelta(0, 0, '"Oslo"}'),
        end(reason="tool_calls"),
    ]
    tool = {"type": "function", "function": {"name": "weather"}}
    async with serving(FakePool(script)) as url, talking(url) as talk:
        await talk.say(message="Hi", tools=[tool])
        start, thought, text, first, more, usage, last = await talk.turn()
    assert (start["type"], start["model"]) == ("start", "fake")
    assert thought == {"type": "reasoning", "text": "Hm"}
    assert text == {"type": "text", "text": "Let me see."}
    assert first | more == {
        "type": "tool",
        "position": 0,
        "id": "c1",
        "name": "weather",
        "arguments": '"Oslo"}',
    }
    assert (usage["prompt_tokens"], usage["cached_tokens"], usage["completion_tokens"]) == (7, 3, 2)
    assert usage["ttft_ms"] == 100
    assert last == {"type": "end", "reason": "tool_calls", "saved": False}


WRONG = [
    ("not json", "invalid_value"),
    ("[]", "invalid_value"),
    ("{}", "invalid_value"),
    ('{"message": 5}', "invalid_value"),
    ('{"message": "Hi", "temperature": 9}', "invalid_value"),
    ('{"message": "Hi", "history": [["a"]]}', "invalid_value"),
    ('{"message": "Hi", "n": 2}', "invalid_value"),
    ('{"message": "Hi", "session_id": "nothing"}', "session_not_found"),
    ('{"message": "\\ud800"}', "invalid_value"),
    ('{"message": "Hi", "model": "nothing"}', "model_not_found"),
]


@pytest.mark.parametrize(("frame", "code"), WRONG)
@pytest.mark.parametrize("typed", [False, True])
async def test_what_is_wrong_is_told_and_the_connection_stays(frame, code, typed):
    async with serving(FakePool()) as url, talking(url, typed=typed) as talk:
        await talk.socket.send(frame)
        error = await talk.event()
        if typed:
            assert (error["type"], error["code"]) == ("error", code)
        else:
            assert error["error"]["code"] == code
            assert await talk.frame() == ""
        await talk.say(message="Hi")
        assert await (talk.turn() if typed else talk.raw_turn())


@pytest.mark.parametrize("error", [Overloaded("full"), BadRequest("wrong"), RuntimeError("secret")])
@pytest.mark.parametrize("script", [[], [Started(7), TextDelta(0, "Hel")]])
async def test_an_answer_that_fails_says_so_and_the_connection_stays(error, script):
    async with serving(FakePool([*script, error])) as url, talking(url) as talk:
        await talk.say(message="Hi")
        last = (await talk.turn())[-1]
        assert last["type"] == "error"
        assert "secret" not in json.dumps(last)
        await talk.say(message="Hi")
        assert said(await talk.turn()) == "Hello"


async def test_one_answer_at_a_time():
    gate = asyncio.Event()
    pool = FakePool([Started(7), gate, TextDelta(0, "one"), end()])
    async with serving(pool) as url, talking(url) as talk:
        await talk.say(message="Hi")
        assert (await talk.event())["type"] == "start"
        await talk.say(message="Me too")
        assert "stop it first" in (await talk.event())["message"]
        gate.set()
        assert said(await talk.turn()) == "one"


@pytest.mark.parametrize("refused", [False, True])
async def test_who_is_gone_is_nothing_to_log(refused, key_file, monkeypatch, caplog):
    """Neither in the middle of an answer, nor when it is refused, nor when more was said."""
    send, leaves, gone = WebSocketConnection.send, asyncio.Event(), asyncio.Event()

    async def lost(self, message):
        if leaves.is_set() and message["type"] == "websocket.send":
            gone.set()
            raise ClientDisconnected
        await send(self, message)

    monkeypatch.setattr(WebSocketConnection, "send", lost)
    key = {"x-api-key": keys.add(key_file, "ann", per_minute=1)}
    async with (
        serving(FakePool(), keys=KeyFile(key_file)) as url,
        talking(url, additional_headers=key) as talk,
    ):
        if refused:
            await talk.say(message="Hi")
            await talk.turn()
        leaves.set()
        await talk.say(message="Hi")
        await asyncio.wait_for(gone.wait(), 5)
        await talk.say(ping=True)
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(talk.event(), 5)
    gc.collect()  # asyncio tells of what went wrong in a task when that is gone
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


async def test_who_hangs_up_without_a_session_ends_the_model():
    pool = FakePool([Started(7), TextDelta(0, "Hel"), asyncio.Event()])
    async with serving(pool) as url:
        async with talking(url) as talk:
            await talk.say(message="Hi")
            await talk.event()
        await asyncio.wait_for(pool.cancelled.wait(), 5)


async def test_the_protocol_may_be_said_in_a_message():
    async with serving(FakePool()) as url, talking(url, typed=False) as talk:
        await talk.say(message="Hi", protocol="json")
        assert (await talk.turn())[-1]["type"] == "end"
        await talk.say(message="Hi", protocol="raw")
        assert "".join(await talk.raw_turn()) == "Hello"


async def test_a_turn_of_a_session_is_acknowledged_once_it_is_stored():
    gate = asyncio.Event()
    pool = FakePool([Started(7), gate, TextDelta(0, "Hello"), end()])
    async with serving(pool) as url, talking(url) as talk:
        id = await new_session(url)
        await talk.say(message="Good morning", session_id=id)
        start = await talk.event()
        assert (start["session_id"], start["resumed"]) == (id, False)
        stored = await session(url, id)
        assert [one["id"] for one in stored["messages"]] == [
            start["user_message_id"],
            start["message_id"],
        ]
        assert [one["state"] for one in stored["messages"]] == ["done", "running"]
        assert stored["title"] == "Good morning"
        gate.set()
        assert (await talk.turn())[-1] == {"type": "end", "reason": "stop", "saved": True}
        assert (await session(url, id))["messages"][1]["content"] == "Hello"


async def test_a_session_is_its_own_history():
    pool = FakePool()
    async with serving(pool) as url, talking(url) as talk:
        settings = {"system_prompt": "Be brief.", "temperature": 0.25, "max_tokens": 9}
        id = await new_session(url, settings=settings)
        for message in ("One", "Two"):
            await talk.say(message=message, session_id=id, temperature=0.5)
            await talk.turn()
    asked = pool.requests[-1]
    assert [(one.role, one.content) for one in asked.messages] == [
        ("system", "Be brief."),
        ("user", "One"),
        ("assistant", "Hello"),
        ("user", "Two"),
    ]
    assert (asked.max_tokens, asked.sampling.temperature) == (9, 0.5)


async def test_edited_and_repeated_turns_are_branches():
    pool = FakePool()
    async with serving(pool) as url, talking(url) as talk:
        id = await new_session(url)
        await talk.say(message="One", session_id=id)
        one = (await talk.turn())[0]
        await talk.say(message="Two", session_id=id)
        two = (await talk.turn())[0]
        await talk.say(message="Two, edited", session_id=id, parent=one["message_id"])
        await talk.turn()
        assert [m.content for m in pool.requests[-1].messages] == ["One", "Hello", "Two, edited"]
        await talk.say(session_id=id, regenerate=True, parent=two["user_message_id"])
        again = (await talk.turn())[0]
        assert again["user_message_id"] is None
        assert [m.content for m in pool.requests[-1].messages] == ["One", "Hello", "Two"]
        await talk.say(message="From the start", session_id=id, parent=None)
        await talk.turn()
        assert [m.content for m in pool.requests[-1].messages] == ["From the start"]
        for wrong in ({"regenerate": True}, {"regenerate": True, "message": "x"}, {"parent": "x"}):
            await talk.say(session_id=id, **({"message": "x"} if "parent" in wrong else {}) | wrong)
            assert (await talk.turn())[-1]["type"] == "error"


async def test_an_answer_goes_on_without_its_client_and_is_followed_again():
    gate = asyncio.Event()
    pool = FakePool([Started(7), TextDelta(0, "Hel"), gate, TextDelta(0, "lo"), end()])
    async with serving(pool) as url:
        id = await new_session(url)
        async with talking(url) as talk:
            await talk.say(message="Hi", session_id=id)
            assert (await talk.event())["type"] == "start"
            assert (await talk.event())["text"] == "Hel"
        async with talking(url) as talk:
            await talk.say(session_id=id, resume=True)
            start = await talk.event()
            assert (start["type"], start["resumed"]) == ("start", True)
            assert (await talk.event())["text"] == "Hel"
            gate.set()
            assert said(await talk.turn()) == "lo"
            await talk.say(session_id=id, resume=True)
            assert await talk.event() == {"type": "idle", "session_id": id}
        assert not pool.cancelled.is_set()


async def test_a_session_has_one_answer_at_a_time_and_any_client_can_stop_it():
    pool = FakePool([Started(7), TextDelta(0, "Hel"), asyncio.Event()])
    async with serving(pool) as url, talking(url) as first, talking(url) as second:
        id = await new_session(url)
        await first.say(message="Hi", session_id=id)
        await first.event()
        await second.say(message="Hi", session_id=id)
        assert (await second.event())["code"] == "session_busy"
        await second.say(stop=True, session_id=id)
        assert (await first.turn())[-1] == {"type": "end", "reason": "stopped", "saved": True}
        stored = (await session(url, id))["messages"]
        assert [(one["state"], one["content"]) for one in stored] == [
            ("done", "Hi"),
            ("stopped", "Hel"),
        ]


async def test_an_answer_is_stopped_over_http_and_with_its_session():
    gates = [Started(7), TextDelta(0, "Hel"), asyncio.Event()]
    pool = FakePool(gates, list(gates))
    async with serving(pool) as url, talking(url) as talk, httpx.AsyncClient(base_url=url) as http:
        id = await new_session(url)
        place = f"/api/v1/sessions/{id}"
        assert (await http.post(f"{place}/stop")).json() == {"stopped": False}
        await talk.say(message="Hi", session_id=id)
        await talk.event()
        assert (await http.post(f"{place}/stop")).json() == {"stopped": True}
        assert (await talk.turn())[-1]["reason"] == "stopped"
        await talk.say(message="Hi", session_id=id)
        await talk.event()
        assert (await http.delete(place)).status_code == 204
        assert (await talk.turn())[-1]["reason"] == "stopped"
        assert (await http.post(f"{place}/stop")).status_code == 404


async def test_what_is_refused_leaves_nothing_behind():
    pool = FakePool([Overloaded("full")])
    async with serving(pool) as url, talking(url) as talk:
        id = await new_session(url)
        await talk.say(message="Hi", session_id=id)
        assert (await talk.turn())[-1]["code"] == "queue_full"
        assert (await session(url, id))["messages"] == []
        await talk.say(message="Hi", session_id=id)
        assert said(await talk.turn()) == "Hello"
