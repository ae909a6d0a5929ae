"""A conversation that is longer than its model's context, over `/ws`."""

import httpx
import pytest

from inference import load_config, prepare
from inference.fit import Wishes
from inference.models import Models
from inference.pool import Pool
from tests.fake_pool import serving
from tests.scripted_pool import ScriptedPool, tokens
from tests.talking import new_session, said, session, talking

TURNS = 60
FILLER = "Tell me something about the sea, the wind and the weather. " * 4


async def talk_long(talk, id, turns=TURNS):
    """The events of all turns; the fact is said in the second."""
    told = []
    for number in range(1, turns):
        message = "Mind that the secret word is walnut." if number == 2 else f"{number}. {FILLER}"
        await talk.say(session_id=id, message=message, max_tokens=200)
        told.append(await talk.turn())
    await talk.say(session_id=id, message="What is the secret word?", max_tokens=200)
    return [*told, await talk.turn()]


async def test_sixty_turns_on_2048_tokens_still_know_a_fact_from_turn_two():
    pool = ScriptedPool(2048)
    async with serving(pool) as url, talking(url) as talk:
        id = await new_session(url)
        told = await talk_long(talk, id)
        whole = await session(url, id)
    assert said(told[-1]) == "walnut"
    assert all(turn[-1]["type"] == "end" for turn in told)
    asked = pool.requests[-1]
    assert tokens(asked) + 200 <= 2048
    assert "secret word is walnut" in asked.messages[0].content
    assert "secret word is walnut" not in "".join(one.content for one in asked.messages[1:])
    compacted = [event for turn in told for event in turn if event["type"] == "compacted"]
    assert compacted
    kept = [one["messages"] for one in whole["summaries"]]
    assert kept == sorted(kept)
    assert {one["messages"] for one in compacted} <= {*kept}
    assert len(whole["messages"]) == 2 * TURNS  # the store has all of it
    assert whole["messages"][2]["content"] == "Mind that the secret word is walnut."


@pytest.mark.parametrize("by", ["session", "agent"])
async def test_without_compaction_nothing_is_summed_up(by):
    pool = ScriptedPool(2048)
    async with serving(pool) as url, talking(url) as talk:
        off = {"compaction": False}
        if by == "agent":
            async with httpx.AsyncClient(base_url=url) as client:
                made = await client.post("/api/v1/agents", json={"name": "Verbatim", **off})
                assert made.status_code == 201
            id = await new_session(url, model="Verbatim")
        else:
            id = await new_session(url, settings=off)
        await talk_long(talk, id, 40)
    assert len(pool.requests[-1].messages) == 2 * 40 - 1
    assert not any(request.constraints for request in pool.requests)


async def test_the_dialects_never_sum_up():
    pool = ScriptedPool(256)
    messages = [{"role": "user", "content": FILLER}, {"role": "assistant", "content": FILLER}] * 20
    body = {"messages": [*messages, {"role": "user", "content": "And?"}]}
    async with serving(pool) as url, httpx.AsyncClient(base_url=url) as client:
        for path in ("/v1/chat/completions", "/api/v1/chat/completions"):
            assert (await client.post(path, json=body)).status_code == 200
    assert [len(request.messages) for request in pool.requests] == [41, 41]


async def test_the_bundled_model_goes_on_beyond_its_context():
    """It is too small to sum up: what it writes is worth nothing, but nobody notices a failure."""
    wishes = Wishes(context=1024, slots=1)
    models = Models(Pool(prepare(load_config(), "qwen3-demo", wishes, tuned=False)))
    async with serving(models) as url, talking(url) as talk:
        id = await new_session(url)
        await models.until_ready()
        for _ in range(16):
            await talk.say(session_id=id, message=FILLER, max_tokens=60)
            assert (await talk.turn())[-1]["type"] == "end"
        await talk.say(session_id=id, message="What is the capital of France?", max_tokens=60)
        told = await talk.turn()
        assert told[-1]["type"] == "end"
        assert said(told)
        assert (await session(url, id))["summaries"]
