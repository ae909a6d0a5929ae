"""Embeddings over HTTP as the official clients see them, of the bundled model pooled."""

import asyncio
import base64
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import numpy as np
import ollama
import openai
import pytest
import pytest_asyncio

from inference import Embeddings, NumericalError, Overloaded, Pool
from tests.bodies import BODIES, CHAT, EMBEDDINGS, OLLAMA_EMBED, OLLAMA_EMBEDDINGS
from tests.embedding_model import cosine, vector_of
from tests.fake_pool import VECTOR, FakePool, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")
TEXTS = ["A fox.", "What is the capital of France?", "你好", "A fox."]
CLOSE = 0.9995
NAME = "embedder"


@asynccontextmanager
async def clients(deployment):
    """OpenAI's, Ollama's and a plain one, of a server with an embedding model."""
    pool = Pool(deployment)
    async with (
        serving(pool) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as first,
        ollama.AsyncClient(host=url) as second,
        httpx.AsyncClient(base_url=url, timeout=60) as plain,
    ):
        await pool.until_ready()
        yield first, second, plain


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asking(embedder):
    async with clients(embedder) as three:
        yield three


async def test_openais_client_has_vectors_in_every_way_it_asks(asking):
    client, _, plain = asking
    made = await client.embeddings.create(model=NAME, input=TEXTS)  # asks for base64 by itself
    floats = await client.embeddings.create(model=NAME, input=TEXTS, encoding_format="float")
    assert [one.index for one in made.data] == [0, 1, 2, 3]
    vectors = [np.array(one.embedding) for one in made.data]
    for vector, other in zip(vectors, floats.data, strict=True):
        assert len(vector) == 256 and np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
        assert vector == pytest.approx(np.array(other.embedding), abs=1e-6)
    assert cosine(vectors[0], vectors[3]) > CLOSE > 0.99 > cosine(vectors[0], vectors[1])
    assert made.usage.prompt_tokens == made.usage.total_tokens > 12
    assert (made.model, made.object, made.data[0].object) == (NAME, "list", "embedding")
    few = await client.embeddings.create(model=NAME, input="A fox.", dimensions=16)
    short = vectors[0][:16] / np.linalg.norm(vectors[0][:16])
    assert np.array(few.data[0].embedding) == pytest.approx(short, abs=1e-3)
    written = await plain.post(EMBEDDINGS, json={"input": "A fox.", "encoding_format": "base64"})
    decoded = vector_of(base64.b64decode(written.json()["data"][0]["embedding"]))
    assert cosine(decoded, vectors[0]) > CLOSE


async def test_arrays_of_token_ids_are_inputs_as_langchain_sends_them(asking):
    client, _, plain = asking
    tokens = [
        (await plain.post("/tokenize", json={"prompt": text})).json()["tokens"] for text in TEXTS
    ]
    texts = await client.embeddings.create(model=NAME, input=TEXTS)
    arrays = await client.embeddings.create(model=NAME, input=tokens)
    one = await client.embeddings.create(model=NAME, input=tokens[1])
    for text, array in zip(texts.data, arrays.data, strict=True):
        assert cosine(np.array(text.embedding), np.array(array.embedding)) > CLOSE
    [single] = one.data
    assert cosine(np.array(single.embedding), np.array(arrays.data[1].embedding)) > CLOSE
    assert texts.usage.prompt_tokens == arrays.usage.prompt_tokens == sum(map(len, tokens))


async def test_ollamas_client_has_vectors_new_and_old(asking):
    _, client, _plain = asking
    made = await client.embed(NAME, TEXTS)
    assert made.model == NAME and len(made.embeddings) == 4 and made.prompt_eval_count > 12
    assert made.total_duration > 0 == made.load_duration
    first = np.array(made.embeddings[0])
    assert np.linalg.norm(first) == pytest.approx(1, abs=1e-5)
    [same] = (await client.embed(f"{NAME}:latest", TEXTS[0], keep_alive=0)).embeddings
    assert cosine(first, np.array(same)) > CLOSE
    [few] = (await client.embed(NAME, TEXTS[0], dimensions=16)).embeddings
    assert len(few) == 16 and np.linalg.norm(few) == pytest.approx(1, abs=1e-5)
    old = np.array((await client.embeddings(NAME, TEXTS[0])).embedding)
    assert cosine(first, old) > CLOSE and np.linalg.norm(old) > 2  # as the model made it
    assert (await client.embed(NAME, "")).embeddings == []
    assert (await client.embeddings(NAME, "")).embedding == []
    # Cut at its end, which is what Ollama does unless it is told not to.
    long = "word " * 5000
    cut = await client.embed(NAME, long)
    assert cut.prompt_eval_count == 2048
    for asked in (client.embed(NAME, long, truncate=False), client.embeddings(NAME, long)):
        with pytest.raises(ollama.ResponseError, match="too long") as refusal:
            await asked
        assert refusal.value.status_code == 400


async def test_what_cannot_be_is_a_400_that_names_the_field(asking):
    client, old, plain = asking
    for fields, code, param in (
        ({"input": ["Hi", "word " * 5000]}, "context_length_exceeded", "input"),
        ({"input": [[1, 2], [99_999]]}, "invalid_value", "input"),
        ({"input": "Hi", "dimensions": 257}, "invalid_value", "dimensions"),
        ({"input": []}, "invalid_value", "input"),
    ):
        with pytest.raises(openai.BadRequestError) as refusal:
            await client.embeddings.create(model=NAME, **fields)
        assert (refusal.value.code, refusal.value.param) == (code, param)
    with pytest.raises(openai.NotFoundError):
        await client.embeddings.create(model="other", input="Hi")
    with pytest.raises(ollama.ResponseError) as refusal:
        await old.embed("other", "Hi")
    assert refusal.value.status_code == 404
    for stream in (True, False):
        answer = await plain.post(CHAT, json=BODIES[CHAT] | {"stream": stream})
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "model"
        assert "is an embedding model" in answer.json()["error"]["message"]


async def test_a_chat_model_does_not_embed(deployment):
    async with clients(deployment) as (client, old, _):
        with pytest.raises(openai.BadRequestError, match="qwen3-demo is no embedding model"):
            await client.embeddings.create(model="qwen3-demo", input="Hi")
        with pytest.raises(ollama.ResponseError, match="is no embedding model") as refusal:
            await old.embed("qwen3-demo", "Hi")
        assert refusal.value.status_code == 400


async def test_lists_and_show_say_that_it_embeds(asking):
    client, old, plain = asking
    assert (await client.models.retrieve(NAME)).capabilities == ["embedding"]
    [listed] = (await plain.get("/api/tags")).json()["models"]
    assert listed["capabilities"] == ["embedding"]
    shown = await old.show(NAME)
    assert shown.capabilities == ["embedding"]
    assert shown.modelinfo["qwen3.embedding_length"] == 256
    metrics = (await plain.get("/metrics")).text
    assert "onebox_requests_waiting{" in metrics


async def test_clients_of_both_kinds_are_served_at_once(asking):
    client, old, plain = asking
    texts = [f"{place} foxes" for place in range(40)]
    alone = [np.array(v) for v in (await old.embed(NAME, texts)).embeddings]

    async def mine(place: int) -> np.ndarray:
        if place % 2:
            return np.array((await old.embed(NAME, texts[place])).embeddings[0])
        made = await client.embeddings.create(model=NAME, input=texts[place])
        return np.array(made.data[0].embedding)

    together = await asyncio.gather(*map(mine, range(40)))
    assert all(cosine(one, other) > CLOSE for one, other in zip(alone, together, strict=True))
    metrics = (await plain.get("/metrics")).text
    for endpoint in ("embeddings", "ollama_embed"):
        assert f'onebox_requests_total{{endpoint="{endpoint}",status="200"}}' in metrics


async def test_who_hangs_up_cancels_and_refusals_have_their_status():
    pool = FakePool(
        [asyncio.Event()], [Overloaded("full", retry_after=7)], [NumericalError("no numbers")]
    )
    async with serving(pool) as url, httpx.AsyncClient(base_url=url) as client:
        gone = asyncio.create_task(client.post(EMBEDDINGS, json=BODIES[EMBEDDINGS]))
        await pool.waiting.wait()
        gone.cancel()
        await asyncio.wait_for(pool.cancelled.wait(), 10)
        full = await client.post(EMBEDDINGS, json=BODIES[EMBEDDINGS])
        assert (full.status_code, full.headers["retry-after"]) == (429, "7")
        broken = await client.post(OLLAMA_EMBED, json=BODIES[OLLAMA_EMBED])
        assert broken.status_code == 500 and broken.json() == {"error": "no numbers"}


async def test_answers_are_as_the_vendors_write_them():
    async with serving(FakePool()) as url, httpx.AsyncClient(base_url=url) as client:
        openais = await client.post(EMBEDDINGS, json={"input": ["a", "b"], "user": "me"})
        numbers = [0.6000000238418579, 0.800000011920929]
        assert openais.json() == {
            "object": "list",
            "data": [
                {"object": "embedding", "index": place, "embedding": numbers} for place in (0, 1)
            ],
            "model": "fake",
            "usage": {"prompt_tokens": 7, "total_tokens": 7},
        }
        body = {"input": "a", "encoding_format": "base64"}
        [one] = (await client.post(EMBEDDINGS, json=body)).json()["data"]
        assert base64.b64decode(one["embedding"]) == VECTOR
        new = await client.post(OLLAMA_EMBED, json={"input": "a", "model": "fake:latest"})
        assert new.json() == {
            "model": "fake:latest",
            "embeddings": [numbers],
            "total_duration": 300_000_000,
            "load_duration": 0,
            "prompt_eval_count": 7,
        }
        old = await client.post(OLLAMA_EMBEDDINGS, json={"prompt": "a"})
        assert old.json() == {"embedding": numbers}


async def test_vectors_that_would_take_too_much_memory_wait():
    pool = FakePool([asyncio.Event()])
    pool.now = replace(pool.now, info=replace(pool.now.info, dimensions=4096))
    body = {"input": ["a"] * 2048}
    async with serving(pool) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        going = asyncio.create_task(client.post(EMBEDDINGS, json=body))
        await pool.waiting.wait()
        assert (await client.post(EMBEDDINGS, json=body)).status_code == 429
        assert (await client.post(EMBEDDINGS, json=body | {"dimensions": 64})).status_code == 200
        going.cancel()
        await asyncio.wait_for(pool.cancelled.wait(), 10)


async def test_a_large_answer_leaves_others_their_turn():
    """2,048 vectors are written one by one; a question that comes meanwhile is answered first."""
    pool = FakePool()
    pool.embed = lambda _: asyncio.sleep(0, Embeddings((VECTOR * 2048,) * 2048, 7, 0.1))
    order = []
    async with serving(pool) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:

        async def asked(name, call):
            order.append((name, (await call).status_code))

        large = client.post(EMBEDDINGS, json={"input": ["a"] * 2048})
        await asyncio.gather(asked("large", large), asked("small", client.get("/health")))
    assert order == [("small", 200), ("large", 200)]
