"""Vectors for many at once, from a real worker process, and through its death."""

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager, suppress

import numpy as np
import pytest

from inference import (
    BadRequest,
    ContextTooLong,
    DeadlineExceeded,
    EmbeddingRequest,
    GenerationRequest,
    NotReady,
    Overloaded,
    Poisonous,
    Pool,
    Revoked,
    ShuttingDown,
    UnknownModel,
)
from inference.embedding import collected
from inference.wire import Accepted, Vector
from tests import poisoned_worker
from tests.embedding_model import cosine, vector_of
from tests.poisoned_worker import DEADLY

CLOSE = 0.9995
WORDS = ("fox", "river", "sum", "forest", "bread", "king", "letter", "train")


def ask(*inputs, **more) -> EmbeddingRequest:
    return EmbeddingRequest(inputs=inputs, **more)


def crowd(size: int, first: int = 0) -> tuple[str, ...]:
    """Different texts of different lengths."""
    numbers = range(first, first + size)
    return tuple(f"{n} {WORDS[n % 8]} and {WORDS[n // 8 % 8]}" * (1 + n % 7) for n in numbers)


async def vectors(pool: Pool, *inputs, **more) -> list[np.ndarray]:
    return [*map(vector_of, (await pool.embed(ask(*inputs, **more))).vectors)]


def alike(some: list[np.ndarray], others: list[np.ndarray]) -> bool:
    pairs = zip(some, others, strict=True)
    return all(cosine(one, other) > CLOSE for one, other in pairs)


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.002)


@asynccontextmanager
async def running(deployment, **how):
    pool = Pool(deployment, **how)
    await pool.start()
    await pool.until_ready()
    yield pool
    await pool.close()


@pytest.fixture
async def pool(embedder):
    async with running(embedder) as pool:
        yield pool


async def test_vectors_are_in_the_order_of_their_inputs(pool):
    texts = crowd(60)
    backwards = await vectors(pool, *reversed(texts))
    assert alike(await vectors(pool, *texts), backwards[::-1])
    one, same, other = await vectors(pool, "A fox.", "A fox.", "2 + 3 = 5")
    assert cosine(one, same) > CLOSE > 0.99 > cosine(one, other)
    status = pool.status()
    assert status.embeds and status.capabilities == ["embedding"]
    assert status.info.dimensions == len(one) == 256


async def test_vectors_that_come_in_another_order_are_put_in_theirs():
    answers = asyncio.Queue()
    for answer in (Accepted(1, 9), Vector(1, 2, b"c"), Vector(1, 0, b"a"), Vector(1, 1, b"b")):
        answers.put_nowait(answer)
    made = await collected(answers, 3)
    assert made.vectors == (b"a", b"b", b"c") and made.prompt_tokens == 9


async def test_all_tokens_are_counted_also_those_that_the_model_adds(pool):
    tokens = await pool.tokenize(GenerationRequest(id="", prompt="A fox."))
    made = await pool.embed(ask("A fox.", tuple(tokens), "A fox."))
    assert made.prompt_tokens == 3 * len(tokens) and made.seconds > 0
    assert alike([vector_of(made.vectors[0])], [vector_of(made.vectors[1])])


async def test_many_clients_get_each_their_own(pool):
    asked = [crowd(1 + n % 5, first=20 * n) for n in range(16)]
    alone = [await vectors(pool, *texts) for texts in asked]
    together = await asyncio.gather(*(vectors(pool, *texts) for texts in asked))
    assert all(alike(one, other) for one, other in zip(alone, together, strict=True))


async def test_a_small_request_does_not_wait_for_a_large_one(pool):
    large = asyncio.create_task(pool.embed(ask(*crowd(300))))
    await until(lambda: pool.status().stats.running)
    await pool.embed(ask("A fox."))
    assert not large.done()
    await large


async def test_nobody_can_tell_that_the_worker_was_killed(pool):
    asked = [crowd(20, first=50 * n) for n in range(6)]
    undisturbed = [await vectors(pool, *texts) for texts in asked]
    computed = pool.status().stats.prompt_tokens
    going = [asyncio.create_task(vectors(pool, *texts)) for texts in asked]
    await until(lambda: pool.status().stats.prompt_tokens >= computed + 1000)
    os.kill(pool.worker_pid, signal.SIGKILL)
    after = await asyncio.gather(*going)
    assert all(alike(one, other) for one, other in zip(undisturbed, after, strict=True))
    assert pool.status().restarts == 1
    # What was told before is not made again.
    assert pool.status().stats.prompt_tokens < computed


async def test_a_request_that_kills_its_worker_twice_is_given_up_alone(embedder, tmp_path):
    command = (sys.executable, "-m", poisoned_worker.__name__, str(tmp_path / "no doom"))
    async with running(embedder, command=command) as pool:
        texts = crowd(20)
        undisturbed = await vectors(pool, *texts)
        going = asyncio.create_task(vectors(pool, *texts))
        with pytest.raises(Poisonous):
            await pool.embed(ask("fox", DEADLY))
        assert alike(await going, undisturbed)
        assert pool.status().restarts == 2


async def test_who_hangs_up_leaves_nothing_behind(pool):
    going = asyncio.create_task(pool.embed(ask(*crowd(2000))))
    await until(lambda: pool.status().stats.running)
    going.cancel()
    with suppress(asyncio.CancelledError):
        await going
    await until(lambda: not pool.status().stats.running)
    stats = pool.status().stats
    assert (stats.waiting, stats.cells) == (0, 0)
    await vectors(pool, "A fox.")
    assert pool.status().stats.prompt_tokens < stats.prompt_tokens + 10


async def test_what_cannot_be_is_refused(pool):
    for request, error, field in (
        (ask("word " * 9000), ContextTooLong, "input"),
        (ask("Hi", (99_999,)), BadRequest, "input"),
        (ask("Hi", dimensions=257), BadRequest, "dimensions"),
        (ask("Hi", dimensions=0), BadRequest, None),
        (ask(), BadRequest, None),
        (ask("Hi", model="other"), UnknownModel, "model"),
    ):
        with pytest.raises(error) as refusal:
            await pool.embed(request)
        assert refusal.value.field == field
    assert await vectors(pool, "word " * 9000, truncate=True, model="embedder")
    with pytest.raises(DeadlineExceeded):
        await pool.embed(ask(*crowd(500), deadline=1e-3))
    assert pool.status().restarts == 0


async def test_each_kind_of_model_says_what_it_is_not_for(pool, deployment):
    with pytest.raises(BadRequest, match="embedder is an embedding model") as refusal:
        await anext(pool.generate(GenerationRequest(id="", prompt="Hi")))
    assert refusal.value.field == "model"
    with pytest.raises(UnknownModel):
        await anext(pool.generate(GenerationRequest(id="", prompt="Hi", model="other")))
    async with running(deployment, in_process=True) as chats:
        with pytest.raises(BadRequest, match="serve one that is, such as qwen3-emb") as refusal:
            await chats.embed(ask("Hi"))
        assert refusal.value.field == "model" and not chats.status().embeds


async def test_a_full_queue_takes_no_more(embedder):
    async with running(embedder, queue=0) as pool:
        going = [asyncio.create_task(pool.embed(ask(*crowd(9)))) for _ in range(16)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await pool.embed(ask("A fox."))
        await asyncio.gather(*going)
        assert await pool.embed(ask("A fox."))


async def test_requests_end_with_their_key_and_with_the_server(pool):
    mine, other = (
        asyncio.create_task(pool.embed(ask(*crowd(300), tenant=tenant))) for tenant in "ab"
    )
    await until(lambda: pool.status().stats.running)
    assert pool.end(lambda asked: asked.tenant == "b", Revoked("no key")) == 1
    with pytest.raises(Revoked):
        await other
    pool.drain()
    with pytest.raises(ShuttingDown):
        await pool.embed(ask("A fox."))
    await pool.close()
    with pytest.raises(NotReady):
        await mine
