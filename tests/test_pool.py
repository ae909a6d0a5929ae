"""The pool with real worker processes on the bundled model."""

import asyncio
import os
import resource
import signal
from dataclasses import replace
from pathlib import Path

import msgspec
import psutil
import pytest

from benchmarks.synthetic import PRESETS, write
from inference import (
    BadRequest,
    Cancelled,
    ConfigError,
    Finished,
    GenerationEvent,
    GenerationRequest,
    InferenceError,
    Message,
    NotReady,
    Overloaded,
    Pool,
    Sampling,
    Started,
    TextDelta,
    Tool,
    UnknownModel,
    Wishes,
    load_config,
    prepare,
)

GREEDY = Sampling(temperature=0)


def chat(text: str, **kwargs) -> GenerationRequest:
    kwargs = {"sampling": GREEDY, "thinking": False} | kwargs
    return GenerationRequest(id="test", messages=(Message("user", text),), **kwargs)


def endless(text: str = "Tell me a story.") -> GenerationRequest:
    return chat(text, ignore_eos=True)


async def collect(pool: Pool, request: GenerationRequest) -> list[GenerationEvent]:
    return [event async for event in pool.generate(request)]


async def text_of(pool: Pool, request: GenerationRequest) -> str:
    events = await collect(pool, request)
    return "".join(e.text for e in events if isinstance(e, TextDelta))


async def until(condition) -> None:
    """Wait until `condition()` holds; the test's own time-out is the limit."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_request_starts_once_and_every_choice_ends_once(pool):
    events = await collect(pool, chat("Hello!", n=3))
    assert isinstance(events[0], Started)
    ends = [e for e in events if isinstance(e, Finished)]
    assert sorted(e.index for e in ends) == [0, 1, 2]
    assert all(e.usage.prompt_tokens == events[0].prompt_tokens for e in ends)
    texts = [
        "".join(e.text for e in events if isinstance(e, TextDelta) and e.index == i)
        for i in range(3)
    ]
    assert texts[0] and texts == [texts[0]] * 3


async def test_a_thread_answers_like_a_process(pool, deployment):
    threaded = Pool(deployment, in_process=True)
    await threaded.start()
    await threaded.until_ready()
    request = chat("What is the capital of France?")
    assert await text_of(threaded, request) == await text_of(pool, request)
    await threaded.close()


async def test_a_second_turn_computes_only_what_is_new(pool):
    first = await text_of(pool, chat("My name is Ada."))
    turns = (
        Message("user", "My name is Ada."),
        Message("assistant", first),
        Message("user", "What is my name?"),
    )
    request = GenerationRequest(id="t", messages=turns, thinking=False, sampling=GREEDY)
    events = await collect(pool, request)
    usage = next(e.usage for e in events if isinstance(e, Finished))
    assert 10 < usage.cached_tokens < usage.prompt_tokens


@pytest.mark.parametrize("consumed", [1, 2, 10])
@pytest.mark.parametrize("prompt", ["Tell me a story.", "word " * 700])
async def test_a_hang_up_leaves_no_running_sequence(pool, consumed, prompt):
    events = pool.generate(endless(prompt))
    for _ in range(consumed):
        await anext(events)
    await events.aclose()
    await collect(pool, chat("Hello!", max_tokens=1))  # served after the hang-up was
    assert (pool.status().stats.running, pool.status().stats.waiting) == (0, 0)


async def test_what_is_ended_is_not_computed_for_who_reads_nothing_more(pool):
    events = pool.generate(endless())
    await anext(events)
    await anext(events)
    assert pool.end(lambda _: True, Cancelled("Enough.")) == 1
    assert len(await collect(pool, chat("Hello!", max_tokens=1))) == 3
    await until(lambda: pool.status().stats.running == 0)
    assert pool.status().stats.completion_tokens < 900
    with pytest.raises(Cancelled):
        [_ async for _ in events]


async def test_a_hang_up_in_the_queue_never_runs(pool):
    running = [pool.generate(endless(f"Story {i}")) for i in range(8)]
    for events in running:
        await anext(events)
    waiting = pool.generate(endless("later"))
    await anext(waiting)
    await until(lambda: pool.status().stats.waiting == 1)
    await waiting.aclose()
    await until(lambda: pool.status().stats.waiting == 0)
    assert pool.status().stats.running == 8
    for events in running:
        await events.aclose()
    await until(lambda: pool.status().stats.running == 0)


async def test_a_full_queue_refuses_with_a_time_to_come_back(deployment):
    pool = Pool(deployment, queue=1)
    await pool.start()
    await pool.until_ready()
    streams = [pool.generate(endless(f"Story {i}")) for i in range(9)]
    for events in streams:
        await anext(events)
    with pytest.raises(Overloaded) as refusal:
        await collect(pool, chat("Hello!"))
    assert 1 <= refusal.value.retry_after <= 60
    for events in streams:
        await events.aclose()
    assert await text_of(pool, chat("Hello!"))
    await pool.close()


async def test_requests_that_cannot_be_served_are_refused_before_they_start(pool):
    with pytest.raises(UnknownModel, match="this is qwen3-demo"):
        await collect(pool, chat("Hello!", model="gpt-4"))
    with pytest.raises(BadRequest, match="not in the vocabulary"):
        await collect(pool, chat("Hello!", sampling=Sampling(logit_bias=((10**6, 1.0),))))
    for name in ("default", "qwen3-demo", None):
        assert await text_of(pool, chat("Hello!", model=name))


async def test_a_prompt_is_counted_as_it_would_be_computed_whether_or_not_it_fits(pool):
    for request in (
        chat("Hello!"),
        chat("Hello!", thinking=True),
        chat("Hello!", tools=(Tool("add", "Adds.", {"type": "object"}),)),
        GenerationRequest(id="t", prompt="Once upon a time", max_tokens=1),
        GenerationRequest(id="t", prompt=(1, 2, 3), max_tokens=1),
    ):
        [started, *_] = await collect(pool, request)
        assert await pool.count(request) == started.prompt_tokens
        assert len(await pool.tokenize(request)) == started.prompt_tokens
    assert await pool.count(chat("word " * 3000)) > pool.status().info.context
    with pytest.raises(UnknownModel):
        await pool.count(chat("Hello!", model="gpt-4"))
    with pytest.raises(BadRequest, match="not in the vocabulary"):
        await pool.count(GenerationRequest(id="t", prompt=(10**6,)))
    assert pool._live == 0 and pool.status().restarts == 0


async def test_tokens_spell_the_text_they_came_from(pool):
    text = "Hi, 你好 <|im_end|> é"
    tokens = await pool.tokenize(GenerationRequest(id="t", prompt=text))
    assert await pool.detokenize(GenerationRequest(id="t", prompt=tuple(tokens))) == text
    with pytest.raises(BadRequest, match="spell more than"):
        await pool.detokenize(GenerationRequest(id="t", prompt=tuple(tokens) * 10**6))


async def test_the_stop_string_that_was_met_is_named(pool):
    for stop, met in ((("\n\n\n", "upon"), "upon"), (("nowhere",), "")):
        *_, last = await collect(pool, chat("Tell me a story.", stop=stop, max_tokens=30))
        assert last.stop == met


async def test_a_draft_model_is_loaded_beside_the_model(pool):
    wishes = Wishes(context=8192, slots=8, draft="qwen3-demo")
    drafting = Pool(prepare(load_config(), "qwen3-demo", wishes, tuned=False))
    await drafting.start()
    await drafting.until_ready()
    request = chat("What is the capital of France?")
    assert await text_of(drafting, request) == await text_of(pool, request)
    await drafting.close()


def test_a_draft_model_that_would_not_be_used_is_refused(tmp_path: Path):
    config = tmp_path / "models.yaml"
    config.write_text("models: {m: {bundled: qwen3-demo, aliases: [default], speculation: false}}")
    with pytest.raises(ConfigError, match="speculation is off for m"):
        prepare(load_config(config), "m", Wishes(draft="m"))


async def test_a_draft_model_of_another_vocabulary_is_refused(deployment, tmp_path: Path):
    write(tmp_path / "tiny.gguf", PRESETS["tiny"], seed=0)
    engine = msgspec.structs.replace(deployment.engine, draft=str(tmp_path / "tiny.gguf"))
    pool = Pool(replace(deployment, engine=engine))
    await pool.start()
    with pytest.raises(NotReady, match="vocabularies differ"):
        await pool.until_ready()
    await pool.close()


async def test_a_model_that_cannot_be_loaded_says_why(deployment, tmp_path: Path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(Path(deployment.engine.path).read_bytes()[:5000])
    engine = msgspec.structs.replace(deployment.engine, path=str(broken), stamp=None)
    pool = Pool(replace(deployment, engine=engine))
    await pool.start()
    with pytest.raises(NotReady, match="cannot load"):
        await pool.until_ready()
    assert pool.status().state == "failed"
    await pool.close()


async def test_closing_ends_the_worker_and_what_still_runs(deployment):
    pool = Pool(deployment)
    await pool.start()
    await pool.until_ready()
    worker = psutil.Process(pool.worker_pid)
    events = pool.generate(endless())
    await anext(events)
    await pool.close()
    assert not worker.is_running()
    with pytest.raises(NotReady, match="shutting down"):
        async for _ in events:
            pass


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8])
async def test_closing_while_a_worker_dies_ends(deployment, turns):
    """Between the end of its socket and the end of its process, turns of the event loop apart."""
    pool = Pool(deployment)
    await pool.start()
    await pool.until_ready()
    reader = pool._replica._life.worker.reader
    os.kill(pool.worker_pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        while not reader.at_eof():
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        await pool.close()
    assert pool.status().state == "stopped"


async def test_a_worker_that_cannot_be_started_is_tried_again(pool):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # not one more file
        os.kill(pool.worker_pid, signal.SIGKILL)
        await until(lambda: "could not be run" in pool.status().detail)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await until(lambda: pool.ready)
    assert await text_of(pool, chat("Hello!"))


async def test_a_signal_for_the_server_does_not_end_its_worker(pool):
    os.kill(pool.worker_pid, signal.SIGTERM)
    assert await text_of(pool, chat("Hello!"))
    assert pool.status().restarts == 0


@pytest.mark.parametrize(
    "odd",
    [
        {"n": 0},
        {"n": 1000},
        {"max_tokens": 0},
        {"max_tokens": 8.5},
        {"stop": ("",)},
        {"stop": 7},
        {"sampling": Sampling(temperature=-1)},
        {"sampling": Sampling(logit_bias={5: 1.0})},
        {"template_kwargs": {"x": object()}},
    ],
    ids=str,
)
async def test_a_malformed_request_is_refused_and_disturbs_nobody(pool, odd):
    neighbour = pool.generate(endless())
    await anext(neighbour)
    with pytest.raises(BadRequest):
        await collect(pool, chat("Hello!", **odd))
    assert await text_of(pool, chat("Hello!"))
    assert isinstance(await anext(neighbour), TextDelta)
    await neighbour.aclose()
    assert pool.status().restarts == 0


async def test_logits_that_leave_no_token_fail_their_own_request_only(pool):
    vocabulary = pool.status().info.vocabulary
    bans = tuple((token, float("-inf")) for token in range(vocabulary))
    with pytest.raises(InferenceError, match="no token can be drawn"):
        await collect(pool, chat("Hello!", sampling=Sampling(logit_bias=bans)))
    assert await text_of(pool, chat("Hello!"))


async def test_a_thousand_requests_leave_nothing_behind(pool):
    """Tasks, descriptors and cells do not grow; the worker's memory stays within noise."""
    worker, here = psutil.Process(pool.worker_pid), psutil.Process()

    async def hundred() -> None:
        limit = asyncio.Semaphore(16)

        async def one(number: int) -> None:
            async with limit:
                if number % 10 == 0:  # every tenth hangs up
                    events = pool.generate(endless(f"Story {number}"))
                    await anext(events)
                    await events.aclose()
                else:
                    await collect(pool, chat(f"Say {number}", max_tokens=4))

        await asyncio.gather(*(one(i) for i in range(100)))
        await until(lambda: pool.status().stats.running == pool.status().stats.waiting == 0)

    def census() -> tuple[int, int, int]:
        return len(asyncio.all_tasks()), here.num_fds(), worker.num_fds()

    await hundred()
    before, memory = census(), worker.memory_info().rss
    for _ in range(10):
        await hundred()
    assert census() == before
    assert pool.status().stats.cells <= pool.status().cells
    assert worker.memory_info().rss - memory < 16 << 20
