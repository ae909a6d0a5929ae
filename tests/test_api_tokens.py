"""Prompts as tokens and back, over HTTP with the bundled model."""

import httpx
import pytest

from api.openai.tokens import understand, understand_tokens
from inference import BadRequest, Message, Pool
from tests.fake_pool import serving

HI = {"messages": [{"role": "user", "content": "Hi"}]}


async def test_a_prompt_becomes_tokens_and_these_the_prompt_again(deployment):
    pool = Pool(deployment)
    async with serving(pool) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        await pool.until_ready()
        told = (await client.post("/tokenize", json={"prompt": "Hello, 你好"})).json()
        assert told["count"] == len(told["tokens"]) > 2 and told["max_model_len"] == 1024
        back = await client.post("/detokenize", json={"tokens": told["tokens"]})
        assert back.json() == {"prompt": "Hello, 你好"}
        chat = (await client.post("/tokenize", json=HI | {"enable_thinking": True})).json()
        text = (await client.post("/detokenize", json={"tokens": chat["tokens"]})).json()["prompt"]
        assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        answer = await client.post("/v1/chat/completions", json=HI | {"enable_thinking": True})
        assert answer.json()["usage"]["prompt_tokens"] == chat["count"]
        for body, status in (({"tokens": [10**6]}, 400), ({"tokens": [1], "model": "x"}, 404)):
            refused = await client.post("/detokenize", json=body)
            assert (refused.status_code, refused.json()["error"]["type"]) == (
                status,
                "invalid_request_error",
            )


def test_a_prompt_is_a_text_or_a_conversation():
    assert understand({"prompt": "", "model": "default"}).prompt == ""
    assert understand(HI | {"model": "fake"}).messages == (Message("user", "Hi"),)
    for body in ({}, {"messages": []}, HI | {"prompt": "Hi"}):
        with pytest.raises(BadRequest, match="either a prompt or messages"):
            understand(body)


@pytest.mark.parametrize("tokens", [None, [], ["a"], [-1], [2**31], 5])
def test_tokens_are_a_list_of_ids(tokens):
    with pytest.raises(BadRequest, match="tokens"):
        understand_tokens({"tokens": tokens})
