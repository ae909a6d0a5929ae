"""Several models in one process: real workers on the bundled model under several names."""

import asyncio

import pytest

from inference import (
    DeadlineExceeded,
    NotReady,
    Overloaded,
    Pool,
    Revoked,
    ShuttingDown,
    UnknownModel,
)
from tests.several import DEMO, a_box, answer_of, ask, several, workers

PARIS = "The capital of France is Paris."


def states(box):
    return {now.name: now.state for now in box.models.loaded()}


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def begun(events):
    """A stream that runs, after its first text."""
    await anext(events)
    await anext(events)
    return events


def endless(model, **fields):
    return ask(model, "Tell me a story.", ignore_eos=True, **{"max_tokens": 900} | fields)


async def test_a_model_is_loaded_when_it_is_asked_for_once_for_all_who_wait(tmp_path):
    async with several(tmp_path) as box:
        names = ("b", "B:latest", "bee:1b", "BEE:1B")
        answers = await asyncio.gather(*(answer_of(box.models, ask(name)) for name in names))
        assert [text for text, _ in answers] == [PARIS] * 4
        assert all(end.timings.load > 0 for _, end in answers)
        assert workers() == 2
        for name in (None, "", "default", "first", "a"):
            text, end = await answer_of(box.models, ask(name))
            assert (text, end.timings.load) == (PARIS, 0)
        assert (await answer_of(box.models, ask("b")))[1].timings.load == 0
        await box.models.load(ask("c"))  # after any other load
        assert states(box) == dict.fromkeys("abc", "ready") and box.plans == 2
        assert await box.models.count(ask("b")) == len(await box.models.tokenize(ask("b")))


async def test_only_what_is_listed_and_here_is_served(tmp_path):
    async with several(tmp_path) as box:
        for name in (str(DEMO), "broken.gguf", "/etc/passwd", "../a", "a:Q8_0", ":latest", "gpt-4"):
            with pytest.raises(UnknownModel, match="no model of that name") as refusal:
                await answer_of(box.models, ask(name))
            assert refusal.value.field == "model" and name not in refusal.value.message
        with pytest.raises(UnknownModel, match="Did you mean bee:1b"):
            await answer_of(box.models, ask("bee:2b"))
        with pytest.raises(UnknownModel, match="its file is not there"):
            await answer_of(box.models, ask("gone"))
        for name, pulled in (("far", "far"), ("far:8b-q4_0", "far:Q4_0"), ("far:Q8_0", "far")):
            with pytest.raises(UnknownModel, match=f"onebox pull {pulled}$"):
                await box.models.count(ask(name))
        assert box.plans == 0 and workers() == 1


async def test_a_model_goes_when_nobody_has_asked_for_long_enough(tmp_path):
    async with several(tmp_path, keep_alive=0, threads=False) as box:
        events = await begun(box.models.generate(endless("b")))
        assert await answer_of(box.models, ask("b"))  # ends first, and ends nothing
        assert states(box) == {"a": "ready", "b": "ready"}
        await events.aclose()
        await until(lambda: workers() == 1)
        assert states(box) == {"a": "ready"}
        assert box.models.status("b").state == "unloaded"
        assert (await answer_of(box.models, ask("b")))[0] == PARIS


async def test_a_request_says_how_long_its_model_stays(tmp_path):
    async with several(tmp_path) as box:
        await box.models.load(ask("b"))
        assert 290 < box.models.status("b").expires_in <= 300
        await box.models.load(ask("b", keep_alive=-1.0))
        await answer_of(box.models, ask("b"))  # says nothing, and changes nothing
        assert box.models.status("b").expires_in is None
        events = await begun(box.models.generate(endless("b", keep_alive=60.0)))
        assert box.models.status("b").expires_in == 60  # from when it ends
        await events.aclose()
        await answer_of(box.models, ask("b", keep_alive=0.01))
        await until(lambda: workers() == 1)
        await box.models.load(ask("b"))
        assert 290 < box.models.status("b").expires_in <= 300


async def test_a_model_is_sent_away_once_nobody_uses_it(tmp_path):
    async with several(tmp_path) as box:
        events = await begun(box.models.generate(endless("first")))
        await box.models.unload("a")
        assert workers() == 1
        await events.aclose()
        await until(lambda: not workers())
        assert (box.models.status().state, box.models.ready) == ("unloaded", True)
        await box.models.load(ask(None))
        assert workers() == 1
        await box.models.unload("default")
        assert not workers()
        text, end = await answer_of(box.models, ask("a"))
        assert text == PARIS and end.timings.load > 0
        assert box.models.status().expires_in is None  # as it was in the beginning


async def test_the_first_model_is_sent_away_while_it_loads(tmp_path):
    with a_box(tmp_path) as box:
        await box.models.start()
        assert box.models.status().state == "loading"
        await box.models.unload("default")
        await box.models.unload("a")
        await until(lambda: box.models.status().state == "unloaded")
        await box.models.load(ask(None))
        assert box.models.status().expires_in is None
        await box.models.close()
    assert not workers()


async def test_who_was_idle_for_longest_goes_for_another(tmp_path):
    async with several(tmp_path, room=2, threads=False) as box:
        for name in ("b", "a", "c"):
            assert (await answer_of(box.models, ask(name)))[0] == PARIS
        assert states(box) == {"a": "ready", "c": "ready"}
        assert workers() == 2
        await answer_of(box.models, ask("b"))
        assert states(box) == {"b": "ready", "c": "ready"}
        assert (box.models.ready, box.models.status().state) == (True, "unloaded")


async def test_a_model_is_planned_once_the_memory_of_another_is_back(tmp_path, monkeypatch):
    close = Pool.close

    async def slowly(pool, *how):
        await asyncio.sleep(0.2)  # in which a plan could be made
        await close(pool, *how)

    async with several(tmp_path, room=1) as box:
        monkeypatch.setattr(Pool, "close", slowly)
        assert (await answer_of(box.models, ask("b")))[0] == PARIS


async def test_no_more_are_loaded_than_may_be(tmp_path):
    async with several(tmp_path, max_models=1) as box:
        for name in ("b", "c", "a"):
            assert (await answer_of(box.models, ask(name)))[0] == PARIS
            assert workers() == 1 and list(states(box)) == [name]


async def test_nobody_goes_in_the_middle_of_a_stream(tmp_path):
    async with several(tmp_path, room=1) as box:
        whole, _ = await answer_of(box.models, ask(None, "Tell me a story.", max_tokens=300))
        events = box.models.generate(ask(None, "Tell me a story.", max_tokens=300))
        await begun(events)
        with pytest.raises(NotReady, match="no room beside a") as refusal:
            await answer_of(box.models, ask("b"))
        assert refusal.value.retry_after == 5
        plans = box.plans
        with pytest.raises(NotReady, match="no room beside a"):  # is not tried at once again
            await answer_of(box.models, ask("b"))
        assert box.plans == plans
        rest = "".join([event.text async for event in events if hasattr(event, "text")])
        assert whole.endswith(rest) and len(rest) > 50
        assert states(box) == {"a": "ready"}


async def test_a_request_that_arrives_while_its_model_goes_is_answered(tmp_path):
    async with several(tmp_path, room=1) as box:
        asked = [asyncio.create_task(answer_of(box.models, ask(name))) for name in "bb"]
        await until(lambda: states(box) == {})  # a has to go, and is asked again
        asked += [asyncio.create_task(answer_of(box.models, ask("a")))]
        *answered, last = await asyncio.gather(*asked, return_exceptions=True)
        assert [text for text, _ in answered] == [PARIS, PARIS]
        if isinstance(last, NotReady):  # b was in use again
            last = await answer_of(box.models, ask("a"))
        assert last[0] == PARIS


async def test_a_model_that_cannot_be_loaded_tells_those_who_asked_for_it(tmp_path, monkeypatch):
    async with several(tmp_path) as box:
        events = await begun(box.models.generate(endless("a")))
        asked = [answer_of(box.models, ask(name)) for name in ("broken", "b", "broken")]
        first, fine, second = await asyncio.gather(*asked, return_exceptions=True)
        assert fine[0] == PARIS
        for error in (first, second):
            assert isinstance(error, NotReady)
            assert "broken could not be loaded: broken.gguf" in error.message
            assert str(tmp_path) not in error.message
        with pytest.raises(NotReady, match="broken could not be loaded"):
            await answer_of(box.models, ask("broken"))
        (tmp_path / "broken.gguf").write_bytes(DEMO.read_bytes())
        box.models.status("broken")
        box.models._seat("broken").failed_until = 0.0  # some seconds later
        assert (await answer_of(box.models, ask("broken")))[0] == PARIS
        await events.aclose()


async def test_who_waits_for_a_model_may_hang_up_and_has_a_deadline(tmp_path):
    async with several(tmp_path) as box:
        hasty = asyncio.create_task(answer_of(box.models, ask("b")))
        late = asyncio.create_task(answer_of(box.models, ask("b", deadline=1e-3)))
        patient = asyncio.create_task(answer_of(box.models, ask("b", deadline=60.0)))
        await until(lambda: box.models.status("b").state == "loading")
        hasty.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hasty
        with pytest.raises(DeadlineExceeded, match="while the model was loading"):
            await late
        assert (await patient)[0] == PARIS


async def test_so_many_may_wait_for_their_models(tmp_path):
    async with several(tmp_path) as box:
        asked = [asyncio.create_task(answer_of(box.models, ask(name, n=2))) for name in "bc"]
        await until(lambda: len(box.models._seats._waiting) == 2)
        with pytest.raises(Overloaded):
            await answer_of(box.models, ask("b"))
        assert (await answer_of(box.models, ask("a")))[0] == PARIS
        assert [end.usage.completion_tokens > 3 for _, end in await asyncio.gather(*asked)]


async def test_a_load_that_nobody_waits_for_is_not_begun(tmp_path):
    async with several(tmp_path) as box:
        first = asyncio.create_task(answer_of(box.models, ask("b")))
        await until(lambda: box.plans == 1)  # its turn has come
        second = asyncio.create_task(answer_of(box.models, ask("c")))
        await until(lambda: box.models.status("c").state == "loading")
        second.cancel()
        await first
        await until(lambda: box.models.status("c").state == "unloaded")
        assert box.plans == 1
        assert (await answer_of(box.models, ask("c")))[0] == PARIS


async def test_a_removed_key_ends_what_it_asked_of_every_model_loaded_or_not(tmp_path):
    async with several(tmp_path) as box:
        await box.models.load(ask("b"))
        streams = [box.models.generate(endless(name)) for name in "ab"]
        theirs = [await begun(box.models.generate(endless(name, tenant="bob"))) for name in "ab"]
        waits = asyncio.create_task(answer_of(box.models, ask("c", tenant="bob")))
        await until(lambda: box.models.status("c").state == "loading")
        box.models.expel({"alice"})
        for stream in theirs:
            with pytest.raises(Revoked):
                async for _ in stream:
                    pass
        with pytest.raises(Revoked):
            await waits
        for stream in streams:
            await begun(stream)
            await stream.aclose()


async def test_who_waits_for_a_model_is_served_by_a_server_that_drains(tmp_path):
    async with several(tmp_path) as box:
        waits = asyncio.create_task(answer_of(box.models, ask("b")))
        await until(lambda: box.models.status("b").state == "loading")
        box.models.drain()
        with pytest.raises(ShuttingDown):
            await answer_of(box.models, ask("c"))
        assert (box.models.ready, box.models.status("b").state) == (False, "draining")
        assert (await waits)[0] == PARIS


@pytest.mark.parametrize("stage", ["asked", "planning", "loading"])
async def test_a_stop_ends_a_load_and_who_waits_for_it(tmp_path, stage):
    async with several(tmp_path, threads=False) as box:
        waits = asyncio.create_task(answer_of(box.models, ask("b")))
        if stage == "loading":
            await until(lambda: workers() == 2)
        for _ in range({"asked": 1, "planning": 10, "loading": 0}[stage]):
            await asyncio.sleep(0)
        await box.models.close(patience=1)
        with pytest.raises(ShuttingDown):
            await waits
        assert not workers()


async def test_what_there_is_is_listed_with_what_is_known_of_it(tmp_path):
    async with several(tmp_path) as box:
        assert [box.models.status(name).streams_only for name in "abc"] == [False, False, True]
        await box.models.load(ask("c"))
        listed = await box.models.listing()
        assert [(now.name, now.state) for now in listed] == [
            ("a", "ready"),
            ("b", "unloaded"),
            ("c", "ready"),
            ("broken", "unloaded"),
        ]
        assert [now.aliases for now in listed[:2]] == [("default", "first"), ("bee:1b",)]
        assert {now.size for now in listed[:3]} == {DEMO.stat().st_size}
        loaded, told = listed[0], await box.models.described("bee:1b")
        assert told.info.architecture == loaded.info.architecture == "qwen3"
        assert told.info.parameters == loaded.info.parameters
        assert (told.state, told.quant) == ("unloaded", loaded.quant)
        assert (await box.models.described("broken")).info is None
        for name in ("gone", "far", "nobody"):
            with pytest.raises(UnknownModel):
                await box.models.described(name)
