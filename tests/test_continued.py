"""Answers that go on from where they were begun, on the bundled model and over HTTP."""

import pytest
from openai import AsyncOpenAI, BadRequestError

from inference import BadRequest, Message, Pool
from tests.fake_pool import serving
from tests.test_budget import said
from tests.test_recovery import chat

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}


async def test_an_answer_that_was_begun_ends_as_it_would_have(pool):
    assert (await said(pool, chat(QUESTION)))[1] == ANSWER
    for cut in (0, 3, 11, 14, 21, 24):
        begun = (Message("user", QUESTION), Message("assistant", ANSWER[:cut]))
        request = chat(QUESTION, messages=begun, continued=True)
        assert (await said(pool, request))[:2] == ("", ANSWER[cut:])


@pytest.mark.parametrize("role", ["user", "system", "tool"])
async def test_only_what_the_assistant_said_goes_on(pool, role):
    request = chat(QUESTION, messages=(Message(role, "Hi"),), continued=True)
    with pytest.raises(BadRequest, match="assistant"):
        await anext(pool.generate(request))


async def test_the_official_client_has_an_answer_continued(deployment):
    messages = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": ANSWER[:24]},
    ]
    async with serving(pool := Pool(deployment)) as url:
        await pool.until_ready()
        client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        create, given = client.chat.completions.create, {"model": "default"}
        reply = await create(**given, messages=messages, extra_body=CONTINUE)
        assert reply.choices[0].message.content == ANSWER[24:]
        reply = await create(**given, messages=messages)
        assert reply.choices[0].message.content != ANSWER[24:]
        with pytest.raises(BadRequestError) as refusal:
            await create(**given, messages=messages[:1], extra_body=CONTINUE)
        assert refusal.value.param == "messages"
        await client.close()
