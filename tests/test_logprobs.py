"""Log probabilities against llama.cpp itself: what it says of the same tokens, one call at a time.

Calls of less than a tile of tokens, there and in the worker, are computed by the same kernels.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import chain

import llama_cpp as lc
import msgspec
import numpy as np
import pytest

from inference import (
    BadRequest,
    Constraint,
    Finished,
    GenerationRequest,
    InferenceError,
    Message,
    Pool,
    Sampling,
    TextDelta,
    TokenLogprob,
)
from inference import scheduler as scheduler_module
from inference.engine import Engine
from inference.llama import Llama
from inference.logprobs import MOST, ROWS, Ledger
from inference.sampler import LEAST, score
from inference.sequence import SamplingParams, Sequence
from inference.wire import DRAFTS
from tests.test_engine import GOLDEN, GREEDY, Guessing, answer, run, scheduler_for
from tests.test_recovery import kill_when

CLOSE = 2e-3
NEAR = 0.3  # where the kernels differ; of a wrong row it would be several
CHUNK = 24
STORY = "Once upon a time there was a small dog. It had a friend, and they said 你好 to 🦜."
QUESTION = (Message("user", "What is the capital of France?"),)

Table = Callable[[list[int]], np.ndarray]


@pytest.fixture(scope="module")
def table(deployment) -> Iterator[Table]:
    """Log probabilities of what follows each of some tokens, shape (tokens, vocabulary)."""
    model = lc.llama_model_load_from_file(
        deployment.engine.path.encode(), lc.llama_model_default_params()
    )
    params = lc.llama_context_default_params()
    params.n_ctx, params.n_seq_max = 1024, 1
    context = lc.llama_init_from_model(model, params)
    size = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model))

    def rows(tokens: list[int], start: int) -> np.ndarray:
        batch = lc.llama_batch_init(CHUNK, 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token, start + i, 1
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        assert lc.llama_decode(context, batch) == 0
        lc.llama_batch_free(batch)
        logits = np.ctypeslib.as_array(lc.llama_get_logits(context), shape=(len(tokens), size))
        return logits.astype(np.float64)

    def compute(tokens: list[int]) -> np.ndarray:
        lc.llama_memory_clear(lc.llama_get_memory(context), True)
        starts = range(0, len(tokens), CHUNK)
        logits = np.concatenate([rows(tokens[s : s + CHUNK], s) for s in starts])
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    yield compute
    lc.llama_free(context)
    lc.llama_model_free(model)


@pytest.fixture(scope="module")
def ids(llama) -> dict[bytes, int]:
    """Tokens by their bytes."""
    return {llama.written(token): token for token in range(llama.n_vocab)}


async def told(pool: Pool, **fields) -> list[tuple[str, list[TokenLogprob], Finished]]:
    """Of each choice text, listed tokens and end."""
    fields = {"sampling": Sampling(temperature=0), "logprobs": 3} | fields
    request = GenerationRequest(id="test", **fields)
    found = [["", [], None] for _ in range(request.n)]
    async for event in pool.generate(request):
        match event:
            case TextDelta(index, text, logprobs):
                found[index][0] += text
                found[index][1] += logprobs
            case Finished(index):
                found[index][2] = event
    return [tuple(choice) for choice in found]


def check(logprobs, table: Table, ids: dict[bytes, int], prompt: list[int], close=CLOSE) -> None:
    """Whether these are the tokens that follow `prompt`, as likely as llama.cpp says."""
    tokens = [ids[one.token] for one in logprobs]
    rows = table([*prompt, *tokens])[len(prompt) - 1 :]
    for one, token, row in zip(logprobs, tokens, rows, strict=False):
        assert one.logprob == pytest.approx(row[token], abs=close)
        top = [p for _, p in one.top]
        assert top == pytest.approx([row[ids[other]] for other, _ in one.top], abs=close)
        assert top == pytest.approx(np.sort(row)[::-1][: len(top)].tolist(), abs=close)
        if one.logprob > top[-1]:
            assert (one.token, one.logprob) in one.top


async def test_an_answer_is_as_likely_as_the_model_says(pool, table, ids):
    request = GenerationRequest(id="test", messages=QUESTION, thinking=False)
    prompt = await pool.tokenize(request)
    [(text, logprobs, end)] = await told(pool, messages=QUESTION, thinking=False, logprobs=20)
    assert b"".join(one.token for one in logprobs).decode() == text
    assert len(logprobs) == end.usage.completion_tokens - 1, "the token that ends it is no content"
    check(logprobs, table, ids, prompt)
    for one in logprobs:
        assert one.top[0] == (one.token, one.logprob), "greedy is the likeliest"
        assert one.top == tuple(sorted(one.top, key=lambda pair: -pair[1])) and len(one.top) == 20
        assert sum(np.exp(p) for _, p in one.top) <= 1.0001


async def test_they_are_those_of_the_model_whatever_a_request_wants(pool, table, ids):
    prompt = await pool.tokenize(GenerationRequest(id="test", prompt=STORY))
    token = ids[b" dog"]
    odd = Sampling(
        temperature=1.7,
        top_k=40,
        top_p=0.9,
        repeat_penalty=1.3,
        presence_penalty=1.0,
        frequency_penalty=0.5,
        logit_bias=((token, 9.0),),
        seed=5,
    )
    choices = await told(pool, prompt=STORY, sampling=odd, max_tokens=24, n=3, min_tokens=24)
    for text, logprobs, end in choices:
        assert len(logprobs) == end.usage.completion_tokens == 24
        assert b"".join(one.token for one in logprobs).decode(errors="replace") == text
        check(logprobs, table, ids, prompt)
    assert len({text for text, _, _ in choices}) == 3


async def test_where_only_one_answer_is_allowed_its_tokens_are_as_likely_as_without(
    pool, table, ids, llama
):
    prompt = await pool.tokenize(GenerationRequest(id="test", prompt=STORY))
    only = Constraint("choice", "guided_choice", choices=("🦜 no",))
    [(text, logprobs, _)] = await told(pool, prompt=STORY, constraints=(only,))
    tokens = (
        logprobs[:-1] if logprobs[-1].token in map(llama.written, llama.end_tokens) else logprobs
    )
    assert text == "🦜 no" and b"".join(one.token for one in tokens) == text.encode()
    check(logprobs, table, ids, prompt)
    forced = [ids[one.token] for one in logprobs]
    rows = table([*prompt, *forced])[len(prompt) - 1 :]
    total = sum(row[token] for row, token in zip(rows, forced, strict=False))
    assert sum(one.logprob for one in logprobs) == pytest.approx(total, abs=CLOSE * len(forced))
    assert logprobs[0].start == 0 and logprobs[0].end == 1, "a part of a character"


@pytest.mark.parametrize("guesses", [False, True])
@pytest.mark.parametrize("unified", [False, True])
def test_guesses_and_neighbours_change_nothing(
    deployment, table, ids, unified, guesses, monkeypatch
):
    """In both layouts, and where cells are so few that sequences are preempted."""
    cases = [case for case in GOLDEN["cases"] if len(case["prompt_ids"]) < 40][:12]
    sequences = [
        Sequence(
            id=id,
            tokens=list(case["prompt_ids"]),
            limit=len(case["prompt_ids"]) + 40,
            sampling=GREEDY,
            logprobs=Ledger(2),
            arrived=float(id),
        )
        for id, case in enumerate(cases)
    ]
    monkeypatch.setattr(scheduler_module, "HEADROOM", 1)
    with closing(Llama(msgspec.structs.replace(deployment.engine, unified=unified))) as llama:
        drafts = 16 if guesses else 0
        scheduler = scheduler_for(llama, cells=120, batch=40, drafts=drafts)
        if guesses:
            scheduler._speculation = Guessing()
        run(Engine(llama, joint=unified), sequences, scheduler)
    assert bool(scheduler.counters.accepted) == guesses
    assert bool(scheduler.counters.preemptions) == unified
    for seq in sequences:
        logprobs = seq.take_logprobs()
        assert [ids[one.token] for one in logprobs] == answer(seq)
        check(logprobs, table, ids, seq.tokens[: seq.prompt_len], close=NEAR)


@pytest.mark.parametrize("stop", ["a small", " smal", "all d"])
async def test_tokens_that_a_stop_string_cuts_off_are_not_listed(pool, stop):
    wanted = {"constraints": (Constraint("choice", "x", choices=("a small dog",)),)}
    for fields in ({"prompt": STORY}, {"messages": QUESTION, "thinking": False}):
        [(text, logprobs, end)] = await told(pool, stop=(stop,), **fields, **wanted)
        assert end.stop == stop and text == "a small dog".partition(stop)[0]
        listed = b"".join(one.token for one in logprobs).decode()
        assert listed.startswith(text) and all(one.start < len(text) for one in logprobs)
        assert len(listed) - len(text) < len(logprobs[-1].token) if text else not logprobs


async def test_of_a_chat_the_tokens_of_its_content_are_listed(pool):
    """Not those of thoughts and of what is around them."""
    asked = (Message("user", "What is 38 + 47?"),)
    [(text, logprobs, end)] = await told(pool, messages=asked, thinking=True)
    assert text == "38 + 47 = 85" == b"".join(one.token for one in logprobs).decode().strip()
    assert len(logprobs) < end.usage.completion_tokens / 2


async def test_a_prompt_continued_lists_the_token_that_ends_it(pool, llama):
    """As many as were drawn: who sums them up has the likelihood of all of it."""
    prompt = await pool.tokenize(GenerationRequest(id="test", messages=QUESTION, thinking=False))
    [(text, logprobs, end)] = await told(pool, prompt=tuple(prompt), max_tokens=40)
    assert end.reason == "stop" and len(logprobs) == end.usage.completion_tokens
    assert logprobs[-1].token.decode() == llama.eos
    assert b"".join(one.token for one in logprobs[:-1]).decode() == text
    [(_, again, _)] = await told(pool, prompt=tuple(prompt), stop_tokens=(9,), max_tokens=40)
    assert again == logprobs


async def test_an_echo_has_the_prompts_own_chunk_by_chunk(pool, table, ids):
    prompt = await pool.tokenize(GenerationRequest(id="test", prompt=STORY * 3))
    assert len(prompt) > 3 * ROWS
    rows = table(prompt)
    for asked in (STORY * 3, tuple(prompt)):  # the second time all of it is there already
        [(text, logprobs, end)] = await told(pool, prompt=asked, echo=True, max_tokens=0)
        assert text == STORY * 3 and end.reason == "length"
        assert (end.usage.completion_tokens, end.usage.cached_tokens) == (0, 0)
        assert [ids[one.token] for one in logprobs] == prompt
        assert (logprobs[0].logprob, logprobs[0].top) == (None, ())
        expected = [row[token] for row, token in zip(rows, prompt[1:], strict=False)]
        assert [one.logprob for one in logprobs[1:]] == pytest.approx(expected, abs=CLOSE)
        check(logprobs[1:], table, ids, prompt[:1])
    for one in logprobs:
        assert one.token in text[one.start : one.end].encode() + b" " or one.end - one.start == 1


async def test_after_an_echo_the_answer_follows_in_every_choice(pool, table, ids):
    asked = {"prompt": STORY, "max_tokens": 6, "ignore_eos": True, "stop": ("small",)}
    prompt = await pool.tokenize(GenerationRequest(id="test", prompt=STORY))
    [(plain, alone, _)] = await told(pool, **asked)
    choices = await told(pool, **asked, echo=True, n=2)
    for text, logprobs, end in choices:
        assert text == STORY + plain and end.usage.completion_tokens == 6
        assert [one.token for one in logprobs[len(prompt) :]] == [one.token for one in alone]
        check(logprobs[1:], table, ids, prompt[:1])
        offsets = [one.start for one in logprobs]
        assert offsets == sorted(offsets) and logprobs[len(prompt)].start == len(STORY)
    [(text, none, _)] = await told(pool, **asked, echo=True, logprobs=None)
    assert (text, none) == (STORY + plain, [])


async def test_a_killed_worker_costs_no_log_probability_and_doubles_none(pool):
    asked = [
        {"prompt": STORY * 2, "echo": True, "max_tokens": 80, "ignore_eos": True, "n": 2},
        {"messages": QUESTION, "max_tokens": 80, "ignore_eos": True, "thinking": False},
        {"prompt": STORY * 5, "echo": True, "max_tokens": 0},
    ]
    undisturbed = await asyncio.gather(*(told(pool, **fields) for fields in asked))
    drawn = pool.status().stats.completion_tokens
    running = [asyncio.create_task(told(pool, **fields)) for fields in asked]
    await kill_when(pool, drawn + 60)
    again = await asyncio.gather(*running)
    pairs = zip(chain(*undisturbed), chain(*again), strict=True)
    for before, after in pairs:
        assert before[0] == after[0]
        assert [one.token for one in before[1]] == [one.token for one in after[1]]
        assert [one.start for one in before[1]] == [one.start for one in after[1]]
        for one, other in zip(before[1], after[1], strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=NEAR)
    assert pool.status().restarts == 1


async def test_an_answer_ends_at_a_token_that_shall_end_it(pool, ids):
    dog = ids[b" dog"]
    only = (Constraint("choice", "x", choices=("a small dog",)),)
    asked = {"prompt": STORY, "constraints": only, "stop_tokens": (dog, ids[b" time"])}
    [(text, logprobs, end)] = await told(pool, **asked)
    assert (text, end.reason, end.stop) == ("a small", "stop", "")
    assert logprobs[-1].token == b" dog" and len(logprobs) == end.usage.completion_tokens
    [(text, _, end)] = await told(pool, **asked, min_tokens=9)
    assert (text, end.reason) == ("a small dog", "stop"), "what it has to be comes first"
    early = Sampling(temperature=0, logit_bias=((dog, 100.0),))
    [(text, _, end)] = await told(pool, **asked | {"constraints": (), "sampling": early})
    assert (text, end.usage.completion_tokens) == ("", 1)
    late = {"constraints": (), "sampling": early, "min_tokens": 4, "max_tokens": 9}
    [(text, _, end)] = await told(pool, **asked | late)
    assert end.usage.completion_tokens == 5 and "dog" not in text


async def test_what_cannot_be_told_is_refused(pool):
    context = pool.status().info.context
    most = MOST // (21 * 8)
    assert most < context
    for fields, field in (
        ({"prompt": (1,) * (most + 1), "echo": True, "logprobs": 20, "n": 8}, "logprobs"),
        ({"prompt": STORY, "max_tokens": 0}, "max_tokens"),
        ({"messages": QUESTION, "echo": True}, "echo"),
        ({"prompt": STORY, "stop_tokens": (2**31 - 1,)}, "stop_token_ids"),
    ):
        with pytest.raises(BadRequest) as refusal:
            await told(pool, **fields)
        assert refusal.value.field == field
    with pytest.raises(InferenceError):
        await told(pool, prompt=STORY, logprobs=21)
    assert pool.status().restarts == 0


def test_a_step_has_no_more_rows_of_logits_than_memory_is_planned_for():
    assert ROWS <= DRAFTS


def test_what_is_impossible_has_a_number_all_the_same():
    row = np.array([2.0, -np.inf, 2.0], np.float32)
    assert score(row, 1, 2) == (
        LEAST,
        [(0, pytest.approx(-np.log(2))), (2, pytest.approx(-np.log(2)))],
    )
    assert np.isnan(score(np.array([1.0, np.nan], np.float32), 0, 0)[0])
    assert score(np.zeros(4, np.float32), 2, 20)[1] == [
        (i, pytest.approx(-np.log(4))) for i in range(4)
    ]


def test_a_prompt_whose_logits_are_no_numbers_ends_with_an_error(llama):
    """Also where they are those of a chunk that draws nothing."""
    engine = Engine(llama)
    seq = Sequence(id=1, tokens=[*range(1000, 1040)], limit=50, sampling=SamplingParams())
    seq.prompt_logprobs = Ledger(0)
    seq.prompt_logprobs.add(b"", TokenLogprob(b"", None))
    scheduler = scheduler_for(llama)
    scheduler.add([seq])
    plan = scheduler.plan(0.0)
    logits = llama.logits
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llama, "logits", lambda: logits() * np.nan)
        [progress] = scheduler.commit(plan, engine.step(plan), 0.0)
    assert progress.fault.code == "numerical_error" and scheduler.idle
    llama.keep(0, 0)
