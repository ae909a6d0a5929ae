"""Log probabilities as clients see them: their shapes, and the official clients on real answers."""

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain, islice

import httpx
import ollama
import openai
import pytest

from api.ollama.encoder import ChatLine, GenerateLine
from api.ollama.encoder import Encoder as OllamaEncoder
from api.openai import chat, completions
from api.openai.encoder import Encoder as ChatEncoder
from api.openai.replies import Head
from inference import BadRequest, Pool, Started, TextDelta, TokenLogprob
from tests.fake_pool import end, serving

HI = [{"role": "user", "content": "Hi"}]
CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
HEAD = Head("id-1", "fake", 5)
STORY = "Once upon a time there was a small dog."
# A prompt of two tokens, then a word and half a character, and the token that ends it.
FIRST = TokenLogprob(b"On", None, (), 0, 2)
SECOND = TokenLogprob(b"ce", -2.5, ((b"e", -0.5), (b"ce", -2.5)), 2, 4)
HEL = TokenLogprob(b"Hel", -0.25, ((b"Hel", -0.25), (b"\xff", -1.5)), 4, 7)
HALF = TokenLogprob(b"\xe4\xbd", -9999.0, ((b"lo", -0.125),), 7, 8)
LAST = TokenLogprob(b"<|im_end|>", -0.5, (), 8, 8)
ECHO = [
    Started(2),
    TextDelta(0, "OnceHel", (FIRST, SECOND, HEL)),
    TextDelta(0, "\ufffd", (HALF,)),
    TextDelta(0, "", (LAST,)),
    end(),
]
ANSWER = [Started(2), TextDelta(0, "Hel", (HEL,)), TextDelta(0, "\ufffd", (HALF,)), end()]


def entry(token, logprob, **more):
    return {"token": token.decode(errors="replace"), "logprob": logprob, "bytes": [*token]} | more


HEL_TOP = [entry(b"Hel", -0.25), entry(b"\xff", -1.5)]
SAID = [
    entry(b"Hel", -0.25, top_logprobs=HEL_TOP),
    entry(b"\xe4\xbd", -9999.0, top_logprobs=[entry(b"lo", -0.125)]),
]


def requests_of(understand, **fields):
    return understand(fields, "fake").requests


def test_chats_have_openais_shape():
    encoder = ChatEncoder(HEAD, 1, False, logprobs=True)
    choices = [json.loads(encoder.encode(event)[0][6:])["choices"][0] for event in ANSWER]
    assert [choice.get("logprobs") for choice in choices] == [
        None,
        {"content": SAID[:1], "refusal": None},
        {"content": SAID[1:], "refusal": None},
        None,
    ]
    [whole] = json.loads(encoder.fold(ANSWER))["choices"]
    assert whole["logprobs"] == {"content": SAID, "refusal": None}
    [silent] = json.loads(encoder.fold([Started(2), end()]))["choices"]
    assert silent["logprobs"] == {"content": [], "refusal": None}
    [plain] = json.loads(ChatEncoder(HEAD, 1, False).fold([Started(2), end()]))["choices"]
    assert "logprobs" not in plain


def test_completions_have_the_older_shape():
    encoder = completions.Encoder(HEAD, 1, False)
    [whole] = json.loads(encoder.fold(ECHO))["choices"]
    assert whole["text"] == "OnceHel\ufffd"
    assert whole["logprobs"] == {
        "tokens": ["On", "ce", "Hel", "bytes:\\xe4\\xbd", "<|im_end|>"],
        "token_logprobs": [None, -2.5, -0.25, -9999.0, -0.5],
        "top_logprobs": [
            None,
            {"e": -0.5, "ce": -2.5},
            {"Hel": -0.25, "bytes:\\xff": -1.5},
            {"lo": -0.125, "bytes:\\xe4\\xbd": -9999.0},
            {"<|im_end|>": -0.5},
        ],
        "text_offset": [0, 2, 4, 7, 8],
    }
    frames = [frame for event in ECHO for frame in encoder.encode(event)]
    chunks = [json.loads(frame[6:])["choices"][0]["logprobs"] for frame in frames]
    for column, values in whole["logprobs"].items():
        assert [value for chunk in chunks if chunk for value in chunk[column]] == values
    assert chunks[-1] is None


@pytest.mark.parametrize("kind", [ChatLine, GenerateLine])
def test_lines_have_ollamas_shape(kind):
    encoder = OllamaEncoder("fake", kind)
    lines = [json.loads(frame) for event in ANSWER for frame in encoder.encode(event)]
    assert [line.get("logprobs") for line in lines] == [SAID[:1], SAID[1:], None]
    assert json.loads(encoder.fold(ANSWER))["logprobs"] == SAID
    alone = TextDelta(0, "Hel", (TokenLogprob(b"Hel", -0.25),))
    assert json.loads(encoder.encode(alone)[0])["logprobs"] == [entry(b"Hel", -0.25)]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({}, None),
        ({"logprobs": False, "top_logprobs": 0}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": "true", "top_logprobs": 20}, 20),
    ],
)
def test_what_a_chat_says_is_understood(said, meant):
    [request] = requests_of(chat.understand, messages=HI, stop_token_ids=[5, 7], **said)
    assert (request.logprobs, request.stop_tokens, request.echo) == (meant, (5, 7), False)


def test_what_a_completion_says_is_understood():
    asked = {"echo": "true", "max_tokens": 0, "logprobs": 0, "stop_token_ids": [5]}
    for request in requests_of(completions.understand, prompt=["a", "b"], n=2, **asked):
        found = request.echo, request.max_tokens, request.logprobs, request.stop_tokens, request.n
        assert found == (True, 0, 0, (5,), 2)
    with pytest.raises(BadRequest, match="top_logprobs needs logprobs"):
        requests_of(chat.understand, messages=HI, top_logprobs=1)


@asynccontextmanager
async def real(deployment) -> AsyncIterator[tuple[str, openai.AsyncOpenAI]]:
    """The address of a server of the bundled model, and the official client."""
    pool = Pool(deployment)
    async with serving(pool) as url:
        await pool.until_ready()
        async with openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key="none", max_retries=0
        ) as client:
            yield url, client


async def test_openais_client_reads_chats(deployment):
    asked = {"messages": CAPITAL, "model": "default", "temperature": 0}
    asked |= {"logprobs": True, "top_logprobs": 2}
    async with real(deployment) as (_, client):
        whole = await client.chat.completions.create(n=2, **asked)
        stream = await client.chat.completions.create(stream=True, **asked)
        chunks = [chunk.choices[0] async for chunk in stream]
        sums = await client.chat.completions.create(
            **asked | {"messages": [{"role": "user", "content": "What is 38 + 47?"}]},
            extra_body={"think": True},
        )
    for choice in whole.choices:
        content = choice.logprobs.content
        assert bytes(b for one in content for b in one.bytes).decode() == choice.message.content
        assert all(one.top_logprobs[0].token == one.token for one in content)
        assert all(one.top_logprobs[1].logprob <= one.logprob <= 0 for one in content)
    streamed = [one for c in chunks if c.logprobs for one in c.logprobs.content]
    assert streamed == whole.choices[0].logprobs.content
    for chunk in chunks:
        if chunk.logprobs:
            assert "".join(one.token for one in chunk.logprobs.content) == chunk.delta.content
    thought = sums.choices[0]
    assert thought.message.reasoning_content
    assert "".join(one.token for one in thought.logprobs.content) == thought.message.content


async def test_openais_client_reads_completions(deployment):
    asked = {"model": "default", "temperature": 0, "logprobs": 2}
    async with real(deployment) as (_, client):
        create = client.completions.create
        ids = (await create(prompt=STORY, max_tokens=1, echo=True, **asked)).usage.prompt_tokens
        judged = await create(prompt=[STORY, [9, 10, 11]], echo=True, max_tokens=0, n=2, **asked)
        told = await create(prompt=STORY, echo=True, max_tokens=5, **asked)
        stream = await create(prompt=STORY, echo=True, max_tokens=5, stream=True, **asked)
        chunks = [chunk.choices[0] async for chunk in stream]
    assert [c.finish_reason for c in judged.choices] == ["length"] * 4
    assert judged.usage.completion_tokens == 0 and judged.choices[0].text == STORY
    scored = judged.choices[0].logprobs
    assert judged.choices[1].logprobs == scored and len(scored.tokens) == ids
    assert scored.token_logprobs[0] is scored.top_logprobs[0] is None
    assert "".join(scored.tokens) == STORY
    for at, token in zip(scored.text_offset, scored.tokens, strict=True):
        assert STORY[at:].startswith(token)
    columns = (scored.token_logprobs, scored.tokens, scored.top_logprobs)
    for logprob, token, top in islice(zip(*columns, strict=True), 1, None):
        assert top[token] == logprob and len(top) in (2, 3)
        assert sum(map(math.exp, top.values())) <= 1.0001
    assert len(judged.choices[2].logprobs.tokens) == 3
    one = told.choices[0]
    assert one.text.startswith(STORY) and one.logprobs.tokens[:ids] == scored.tokens
    assert one.logprobs.token_logprobs[:ids] == scored.token_logprobs
    for column in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        parts = [getattr(c.logprobs, column) for c in chunks if c.logprobs]
        assert [*chain(*parts)] == getattr(one.logprobs, column)
    assert "".join(c.text for c in chunks) == one.text


async def test_ollamas_client_reads_them(deployment):
    how = {"options": {"temperature": 0}, "think": False, "logprobs": True, "top_logprobs": 2}
    async with real(deployment) as (url, _), ollama.AsyncClient(host=url) as client:
        whole = await client.chat("default", CAPITAL, **how)
        parts = [part async for part in await client.chat("default", CAPITAL, stream=True, **how)]
        told = await client.generate("default", "What is the capital of France?", **how)
    assert "".join(one.token for one in whole.logprobs) == whole.message.content
    assert [one for part in parts for one in part.logprobs or ()] == list(whole.logprobs)
    assert told.logprobs == whole.logprobs and told.response == whole.message.content
    for one in whole.logprobs:
        assert one.top_logprobs[0].token == one.token and len(one.top_logprobs) == 2


async def test_an_answer_ends_at_a_token(deployment):
    async with real(deployment) as (url, client), httpx.AsyncClient(base_url=url) as http:
        [dog] = (await http.post("/tokenize", json={"prompt": " Paris"})).json()["tokens"]
        stops = {"stop_token_ids": [dog]}
        asked = {"messages": CAPITAL, "model": "default", "temperature": 0, "extra_body": stops}
        reply = await client.chat.completions.create(**asked)
        assert reply.choices[0].message.content == "The capital of France is"
        assert reply.choices[0].finish_reason == "stop"
        for path, body in (
            ("chat/completions", {"messages": HI}),
            ("completions", {"prompt": "Hi"}),
        ):
            answer = await http.post(f"/v1/{path}", json=body | {"stop_token_ids": [2**31 - 1]})
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == "stop_token_ids"
