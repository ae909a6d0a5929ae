"""One answer while it is made: its followers, its end, and what is stored of it meanwhile."""

import asyncio

import pytest

from api.gateway import turn as turn_module
from api.gateway.events import Stored
from api.gateway.turn import Turn
from api.store.errors import StoreFailed
from api.store.records import Call, Message
from inference import (
    ArgumentsDelta,
    BadRequest,
    Finished,
    ReasoningDelta,
    Started,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    WorkerLost,
)
from tests.fake_pool import TIMINGS, USAGE, end

ASKED = Message(id="a", parent="u", role="assistant", state="running", model="fake")
STORED = Stored("s", "a", ("u",), "fake")


class Store:
    """Remembers what it was told to keep, as long as its disk works."""

    def __init__(self) -> None:
        self.kept: list[Message] = []
        self.works = True
        self.called = asyncio.Event()

    async def keep(self, message: Message) -> None:
        self.called.set()
        if not self.works:
            raise StoreFailed
        self.kept.append(message)


async def events(*steps):
    for step in steps:
        match step:
            case asyncio.Event():
                await step.wait()
            case Exception():
                raise step
            case event:
                yield event


def begun(*steps, store: Store | None = None) -> Turn:
    return Turn(
        Started(7), events(*steps), ASKED, STORED if store else None, store.keep if store else None
    )


async def all_of(turn: Turn) -> list[object]:
    return [event async for event in turn.follow()]


async def test_a_follower_sees_all_and_so_does_one_that_comes_later():
    gate = asyncio.Event()
    turn = begun(TextDelta(0, "Hel"), TextDelta(0, "lo"), gate, TextDelta(0, "!"), end())
    first = turn.follow()
    early = [await anext(first)]
    gate.set()
    early += [event async for event in first]
    assert early[0] == Started(7)
    assert "".join(event.text for event in early if isinstance(event, TextDelta)) == "Hello!"
    assert await all_of(turn) == [Started(7), TextDelta(0, "Hello!"), end()]


async def test_thoughts_texts_and_calls_are_not_mixed_when_they_are_joined():
    call = ToolCallDelta(0, 0, ToolCall("c", "f", "{"))
    steps = [
        ReasoningDelta(0, "So"),
        ReasoningDelta(0, " so"),
        TextDelta(0, "A"),
        TextDelta(0, "B"),
        call,
        ArgumentsDelta(0, 0, "}"),
    ]
    turn = begun(*steps, end(reason="tool_calls"))
    await turn.task
    told = await all_of(turn)
    assert told[1:-1] == [
        ReasoningDelta(0, "So so"),
        TextDelta(0, "AB"),
        call,
        ArgumentsDelta(0, 0, "}"),
    ]


async def test_what_is_stored_is_what_was_told():
    store = Store()
    call = ToolCallDelta(0, 0, ToolCall("c", "f", "{"))
    steps = [ReasoningDelta(0, "Hm"), TextDelta(0, "A"), call, ArgumentsDelta(0, 0, "}"), end()]
    await begun(*steps, store=store).task
    kept = store.kept[-1]
    assert (kept.id, kept.parent, kept.state, kept.reason) == ("a", "u", "done", "stop")
    assert (kept.reasoning, kept.content) == ("Hm", "A")
    assert kept.tool_calls == (Call("c", "f", "{}"),)
    assert kept.thought_ms is not None
    assert kept.usage
    assert (kept.usage.prompt_tokens, kept.usage.cached_tokens) == (7, 3)
    assert kept.usage.ttft_ms == TIMINGS.first_token * 1e3
    assert kept.usage.tokens_per_second == 5.0  # one token in 0.2 s after the first


async def test_an_answer_is_stored_while_it_is_written(monkeypatch):
    monkeypatch.setattr(turn_module, "SAVE_EVERY", 0.001)
    store, gate = Store(), asyncio.Event()
    turn = begun(TextDelta(0, "Half"), gate, TextDelta(0, " full"), end(), store=store)
    await asyncio.wait_for(store.called.wait(), 5)
    assert (store.kept[0].state, store.kept[0].content) == ("running", "Half")
    gate.set()
    await turn.task
    assert (store.kept[-1].state, store.kept[-1].content) == ("done", "Half full")


async def test_who_is_stopped_has_an_end_and_keeps_what_there_is():
    store = Store()
    turn = begun(TextDelta(0, "Hel"), asyncio.Event(), store=store)
    follower = turn.follow()
    assert [await anext(follower), await anext(follower)] == [Started(7), TextDelta(0, "Hel")]
    await turn.stop()
    [last] = [event async for event in follower]
    assert isinstance(last, Finished)
    assert (last.reason, last.usage.prompt_tokens, last.usage.completion_tokens) == ("stop", 7, 1)
    assert turn.stopped
    assert (store.kept[-1].state, store.kept[-1].content) == ("stopped", "Hel")


async def test_who_is_stopped_before_it_has_begun_has_an_end_as_well():
    store = Store()
    turn = begun(TextDelta(0, "Hel"), asyncio.Event(), store=store)
    await turn.stop()
    assert [type(event) for event in await all_of(turn)] == [Started, Finished]
    assert store.kept[-1].state == "stopped"


async def test_a_disk_that_fails_for_a_moment_costs_nothing(monkeypatch):
    monkeypatch.setattr(turn_module, "_PATIENCE", (0, 0))
    store = Store()
    store.works = False
    keep = store.keep

    async def works_again(message):
        try:
            await keep(message)
        finally:
            store.works = True

    store.keep = works_again
    turn = begun(TextDelta(0, "Hi"), end(), store=store)
    await all_of(turn)
    assert turn.saved
    assert [one.content for one in store.kept] == ["Hi"]


async def test_whatever_goes_wrong_at_the_end_followers_are_told(monkeypatch, caplog):
    monkeypatch.setattr(turn_module, "_PATIENCE", ())
    store = Store()

    async def broken(_):
        raise RuntimeError("no executor any more")

    store.keep = broken
    turn = begun(TextDelta(0, "Hi"), end(), store=store)
    assert (await asyncio.wait_for(all_of(turn), 5))[-1] == end()
    assert not turn.saved
    assert "no executor any more" in caplog.text


async def test_who_is_cancelled_while_the_end_is_stored_leaves_no_follower_waiting():
    store, saving = Store(), asyncio.Event()

    async def endless(_):
        saving.set()
        await asyncio.Event().wait()

    store.keep = endless
    turn = begun(TextDelta(0, "Hi"), end(), store=store)
    await asyncio.wait_for(saving.wait(), 5)
    turn.task.cancel()
    assert (await asyncio.wait_for(all_of(turn), 5))[-1] == end()


async def test_an_answer_that_is_stopped_before_its_first_token_had_no_speed():
    store = Store()
    turn = begun(asyncio.Event(), store=store)
    await anext(turn.follow())
    await asyncio.sleep(0)  # a turn's task has begun
    await turn.stop()
    assert store.kept[-1].usage.tokens_per_second == 0.0


async def test_what_is_joined_has_the_log_probabilities_of_all():
    one, two = (TokenLogprob(text, -1.0) for text in (b"A", b"B"))
    turn = begun(TextDelta(0, "A", (one,)), TextDelta(0, "B", (two,)), end())
    await turn.task
    assert (await all_of(turn))[1] == TextDelta(0, "AB", (one, two))


async def test_to_stop_twice_or_too_late_changes_nothing():
    turn = begun(TextDelta(0, "Hi"), end())
    await turn.task
    await turn.stop()
    await turn.stop()
    assert not turn.stopped
    assert [event for event in await all_of(turn) if isinstance(event, Finished)] == [
        Finished(0, "stop", USAGE, TIMINGS)
    ]


@pytest.mark.parametrize(
    ("error", "state"), [(WorkerLost("it died"), "cut"), (BadRequest("too hard"), "failed")]
)
async def test_who_fails_says_so_to_each_follower_and_to_the_store(error, state):
    store = Store()
    turn = begun(TextDelta(0, "Hel"), error, store=store)
    for _ in range(2):
        with pytest.raises(type(error), match=error.message):
            await all_of(turn)
    kept = store.kept[-1]
    assert (kept.state, kept.content, kept.error) == (state, "Hel", error.message)


async def test_what_nobody_foresaw_is_a_failure_in_a_sentence(caplog):
    turn = begun(RuntimeError("secret"))
    with pytest.raises(Exception, match="its log says what"):
        await all_of(turn)
    assert "secret" in caplog.text


async def test_the_end_of_the_server_cuts_an_answer():
    store = Store()
    turn = begun(TextDelta(0, "Hel"), asyncio.Event(), store=store)
    follower = turn.follow()
    [await anext(follower) for _ in range(2)]
    turn.task.cancel()
    with pytest.raises(Exception, match="shutting down"):
        await anext(follower)
    assert store.kept[-1].state == "cut"


async def test_a_disk_that_fails_does_not_end_an_answer_but_is_told(monkeypatch):
    monkeypatch.setattr(turn_module, "_PATIENCE", (0,))
    store = Store()
    store.works = False
    turn = begun(TextDelta(0, "Hi"), end(), store=store)
    assert (await all_of(turn))[-1] == end()
    assert not turn.saved


async def test_who_stops_following_ends_nothing():
    gate = asyncio.Event()
    turn = begun(TextDelta(0, "Hi"), gate, end())
    follower = turn.follow()
    await anext(follower)
    await follower.aclose()
    gate.set()
    assert (await all_of(turn))[-1] == end()
