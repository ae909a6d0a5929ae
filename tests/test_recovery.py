"""Workers that die or hang while requests run: real ones, on the bundled model."""

import asyncio
import itertools
import os
import shutil
import signal
import sys
from dataclasses import replace

import msgspec
import psutil
import pytest

from inference import (
    ArgumentsDelta,
    Finished,
    GenerationRequest,
    InferenceError,
    Message,
    NotReady,
    Pool,
    ReasoningDelta,
    Sampling,
    TextDelta,
    ToolCallDelta,
    Wishes,
    WorkerLost,
    load_config,
    prepare,
)
from tests import poisoned_worker
from tests.poisoned_worker import DEADLY, DEADLY_LATER, NUMBERLESS, STUCK

QUESTIONS = (
    "Tell me a story.",
    "What is the capital of France?",
    "My name is Ada. What is my name?",
    "Count from one to ten.",
)


def chat(text: str, **kwargs) -> GenerationRequest:
    kwargs = {"sampling": Sampling(temperature=0), "thinking": False, "max_tokens": 150} | kwargs
    messages = (Message("user", text),)
    return GenerationRequest(**{"id": "test", "messages": messages} | kwargs)


def crowd(size: int) -> list[GenerationRequest]:
    """Requests of many kinds, all with answers that are fixed."""
    drawn = Sampling(temperature=0.9, top_p=0.9, seed=7, repeat_penalty=1.1, presence_penalty=0.5)
    kinds = (
        {"ignore_eos": True},
        {"thinking": True},
        {"sampling": drawn, "ignore_eos": True},
        {"n": 2, "sampling": drawn},
        {"stop": ("the end", "\n\n\n"), "ignore_eos": True},
    )
    pairs = zip(itertools.cycle(QUESTIONS), itertools.cycle(kinds), range(size), strict=False)
    return [chat(f"{question} ({i})", **kind) for question, kind, i in pairs]


async def answer(pool: Pool, request: GenerationRequest) -> tuple:
    """Every choice's text, thoughts and end; or the code of the error."""
    parts = {}
    try:
        async for event in pool.generate(request):
            match event:
                case TextDelta(index, text) | ReasoningDelta(index, text):
                    key = (index, type(event).__name__)
                    parts[key] = parts.get(key, "") + text
                case ToolCallDelta(index, position, call):
                    parts[index, position] = f"{call.name} {call.arguments}"
                case ArgumentsDelta(index, position, text):
                    parts[index, position] += text
                case Finished(index, reason, usage):
                    assert (index, "end") not in parts
                    parts[index, "end"] = (reason, usage.prompt_tokens, usage.completion_tokens)
    except InferenceError as error:
        return (error.code,)
    assert sum(key[1] == "end" for key in parts) == request.n
    return tuple(sorted(parts.items(), key=str))


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.002)


async def kill_when(pool: Pool, said: int) -> None:
    """Kill the worker once it has drawn so many tokens."""
    await until(lambda: pool.ready and pool.status().stats.completion_tokens >= said)
    os.kill(pool.worker_pid, signal.SIGKILL)
    await until(lambda: not pool.ready)


@pytest.fixture
def doom(tmp_path):
    """As long as this file exists, no poisoned worker survives its first decode."""
    return tmp_path / "doom"


@pytest.fixture
async def poisoned(deployment, doom):
    """A pool whose worker certain words can kill, or keep busy."""
    command = (sys.executable, "-m", poisoned_worker.__name__, str(doom))
    pool = Pool(deployment, command=command, stall=1.5)
    await pool.start()
    await pool.until_ready()
    yield pool
    await pool.close()


async def test_nobody_can_tell_that_the_worker_was_killed(pool):
    requests = crowd(32)
    undisturbed = await asyncio.gather(*(answer(pool, request) for request in requests))
    drawn = pool.status().stats.completion_tokens
    running = [asyncio.create_task(answer(pool, request)) for request in requests]
    await kill_when(pool, drawn + 300)
    await kill_when(pool, 500)
    assert await asyncio.gather(*running) == undisturbed
    assert pool.status().restarts == 2


async def test_streams_go_on_in_the_unified_layout(deployment):
    """There cells lie elsewhere after a restart, which moves logits a little: plain answers."""
    engine = msgspec.structs.replace(deployment.engine, unified=True)
    pool = Pool(replace(deployment, engine=engine))
    await pool.start()
    await pool.until_ready()
    requests = [chat(question) for question in QUESTIONS[1:]] * 2
    undisturbed = await asyncio.gather(*(answer(pool, request) for request in requests))
    drawn = pool.status().stats.completion_tokens
    running = [asyncio.create_task(answer(pool, request)) for request in requests]
    await kill_when(pool, drawn + 20)
    assert await asyncio.gather(*running) == undisturbed
    await pool.close()


async def test_a_fault_of_the_servers_own_costs_a_worker_and_no_request(pool, monkeypatch, caplog):
    requests = crowd(4)
    undisturbed = await asyncio.gather(*(answer(pool, request) for request in requests))
    drawn = pool.status().stats.completion_tokens
    route, worker = pool._replica._route, psutil.Process(pool.worker_pid)

    def fault(report, life):
        if pool.status().stats.completion_tokens > drawn + 50:
            monkeypatch.undo()
            raise RuntimeError("a fault of ours")
        route(report, life)

    running = [asyncio.create_task(answer(pool, request)) for request in requests]
    monkeypatch.setattr(pool._replica, "_route", fault)
    assert await asyncio.gather(*running) == undisturbed
    assert pool.status().restarts == 1 and not worker.is_running()
    assert "a fault of ours" in caplog.text


async def test_a_worker_that_cannot_be_understood_is_replaced(pool):
    request = chat("Tell me a story.", ignore_eos=True)
    undisturbed = await answer(pool, request)
    running = asyncio.create_task(answer(pool, request))
    await until(lambda: pool.status().stats.running)
    pool._replica._life.worker.reader.feed_data(b"\xff\xff\xff\xff" * 2)
    assert await running == undisturbed
    assert pool.status().restarts == 1


async def test_who_comes_while_there_is_no_worker_waits_for_the_next(pool):
    undisturbed = await answer(pool, chat("Hello!"))
    os.kill(pool.worker_pid, signal.SIGKILL)
    await until(lambda: not pool.ready)
    assert pool.status().state == "restarting"
    assert await answer(pool, chat("Hello!")) == undisturbed


async def test_who_asks_for_a_count_of_a_dead_worker_is_told_by_the_next(pool):
    question = chat("word " * 300)
    undisturbed = await pool.count(question)
    os.kill(pool.worker_pid, signal.SIGSTOP)
    asking = [asyncio.create_task(pool.count(question)) for _ in range(5)]
    await until(lambda: len(pool._replica._journal) == 5)
    asking.pop().cancel()
    os.kill(pool.worker_pid, signal.SIGKILL)
    assert await asyncio.gather(*asking) == [undisturbed] * 4
    assert pool.status().restarts == 1 and not len(pool._replica._journal)


async def test_who_hangs_up_while_there_is_no_worker_is_forgotten(pool):
    events = pool.generate(chat("Tell me a story.", ignore_eos=True))
    await anext(events)
    os.kill(pool.worker_pid, signal.SIGKILL)
    await until(lambda: not pool.ready)
    await events.aclose()
    await until(lambda: pool.ready)
    assert await answer(pool, chat("Hello!", max_tokens=1))
    assert (pool.status().stats.running, pool.status().stats.waiting) == (0, 0)


@pytest.mark.parametrize("word", [DEADLY, DEADLY_LATER, STUCK])
async def test_a_request_that_kills_its_worker_twice_is_given_up_alone(poisoned, word):
    neighbours = crowd(6)
    undisturbed = await asyncio.gather(*(answer(poisoned, request) for request in neighbours))
    running = [asyncio.create_task(answer(poisoned, request)) for request in neighbours]
    await asyncio.sleep(0)
    culprit = asyncio.create_task(answer(poisoned, chat(word, ignore_eos=True)))
    assert await culprit == ("request_quarantined",)
    assert await asyncio.gather(*running) == undisturbed
    assert poisoned.status().restarts == 2


async def test_several_of_that_kind_take_nobody_with_them(poisoned):
    good = chat("Tell me a story.", ignore_eos=True)
    undisturbed = await answer(poisoned, good)
    requests = [good, chat(DEADLY), good, chat(f"{DEADLY} too"), chat(STUCK), good]
    answers = await asyncio.gather(*(answer(poisoned, request) for request in requests))
    lost = ("request_quarantined",)
    assert answers == [undisturbed, lost, undisturbed, lost, lost, undisturbed]


async def test_a_worker_that_stands_still_is_replaced(poisoned):
    request = chat("Tell me a story.", ignore_eos=True)
    undisturbed = await answer(poisoned, request)
    running = asyncio.create_task(answer(poisoned, request))
    await until(lambda: poisoned.status().stats.running)
    os.kill(poisoned.worker_pid, signal.SIGSTOP)
    assert await running == undisturbed
    assert poisoned.status().restarts == 1


async def test_a_worker_that_rests_is_left_alone(poisoned):
    os.kill(poisoned.worker_pid, signal.SIGSTOP)
    await asyncio.sleep(2)  # longer than it may stand still when it owes something
    os.kill(poisoned.worker_pid, signal.SIGCONT)
    assert await answer(poisoned, chat("Hello!"))
    assert poisoned.status().restarts == 0


async def test_a_worker_that_loses_its_numbers_is_replaced_and_nobody_else_can_tell(poisoned):
    neighbours = crowd(6)
    undisturbed = await asyncio.gather(*(answer(poisoned, request) for request in neighbours))
    nonsense = chat(NUMBERLESS)
    for _ in range(2):
        assert await answer(poisoned, nonsense) == ("numerical_error",)
    assert poisoned.status().restarts == 0
    running = [asyncio.create_task(answer(poisoned, request)) for request in neighbours]
    await until(lambda: poisoned.status().stats.running >= 3)
    assert await answer(poisoned, nonsense) == ("numerical_error",)
    assert await asyncio.gather(*running) == undisturbed
    assert poisoned.status().restarts == 1
    for _ in range(4):  # another worker did not help, so a third one would not
        assert await answer(poisoned, nonsense) == ("numerical_error",)
    assert poisoned.status().restarts == 1


async def test_a_worker_that_never_had_numbers_is_left_alone(poisoned):
    for _ in range(5):
        assert await answer(poisoned, chat(NUMBERLESS)) == ("numerical_error",)
    assert await answer(poisoned, chat("Hello!"))
    assert poisoned.status().restarts == 0


async def test_a_file_that_is_cut_short_while_it_is_served_is_named_and_missed(tmp_path):
    file = tmp_path / "weights.gguf"
    shutil.copy(prepare(load_config(), "qwen3-demo").engine.path, file)
    pool = Pool(prepare(load_config(), str(file), Wishes(context=4096, slots=4), tuned=False))
    await pool.start()
    await pool.until_ready()
    story = chat("Tell me a story.", ignore_eos=True)
    undisturbed = await answer(pool, story)
    whole, stamp = file.read_bytes(), file.stat()
    os.truncate(file, 4096)
    assert await answer(pool, story) in (("worker_lost",), undisturbed)
    if pool.ready:  # it has copied the weights, as some processors want them
        os.kill(pool.worker_pid, signal.SIGBUS)
    await until(lambda: pool.status().state == "restarting" and not pool._replica.accepting)
    with pytest.raises(NotReady, match=r"^weights\.gguf has changed since"):
        await anext(pool.generate(story))
    assert f"{file} has changed since" in pool.status().detail
    file.write_bytes(whole)
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    await until(lambda: pool.ready)
    assert await answer(pool, story) == undisturbed
    await pool.close()


async def test_workers_that_keep_dying_are_told_of_and_not_waited_for(poisoned, doom, caplog):
    waiting = poisoned.generate(chat("Tell me a story.", ignore_eos=True))
    await anext(waiting)
    doom.touch()
    os.kill(poisoned.worker_pid, signal.SIGKILL)
    with pytest.raises(WorkerLost, match="try again later"):
        async for _ in waiting:
            pass
    with pytest.raises(NotReady, match=r"SIGSEGV at its first decode: .*build it again") as refusal:
        await anext(poisoned.generate(chat("Hello!")))
    assert refusal.value.retry_after > 1
    assert "SIGSEGV at its first decode" in caplog.text
    doom.unlink()
    await until(lambda: poisoned.ready)
    assert await answer(poisoned, chat("Hello!"))


async def test_a_worker_that_never_gets_ready_says_of_what_it_died(deployment, doom):
    doom.touch()
    pool = Pool(deployment, command=(sys.executable, "-m", poisoned_worker.__name__, str(doom)))
    await pool.start()
    with pytest.raises(NotReady, match=r"SIGSEGV at its first decode: .*build it again"):
        await pool.until_ready()
    assert pool.status().state == "failed"
    await pool.close()
