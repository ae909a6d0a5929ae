"""Thoughts end where their budget does, whatever happens to the answer on its way."""

import asyncio
import random
from dataclasses import replace

import pytest

from inference import GenerationRequest, Message, Pool, Sampling
from inference.budget import Block, Budget, Tags
from tests.scheduling import cheap_rows, finish, machine, make_sequence, step
from tests.test_recovery import answer, chat, kill_when

SUM = "What is 38 + 47?"
THOUGHTS, ANSWER = "8 + 7 = 15, 3 + 4 + 1 = 8.", "38 + 47 = 85"
LAST_WORDS = "So I answer with what I have so far."
OPEN, CLOSE, BLANK = 90, 91, 92
TAGS = Tags(OPEN, CLOSE, frozenset({BLANK}), ((80, b"80 "), (CLOSE, b"91 "), (81, b"81 ")))
WORDS = [token for token, _ in TAGS.last_words]


def thinker(opening, thoughts):
    """What a model says that thinks so long: an opening, thoughts that repeat, an answer."""
    said = [*opening, *(i % 3 + 1 for i in range(thoughts)), CLOSE]

    def following(tokens):
        rest = tokens[len(PROMPT) :]
        if CLOSE in rest:
            return (len(rest) - rest.index(CLOSE)) % 4 + 10
        return said[len(rest)] if len(rest) < len(said) else CLOSE

    return following


PROMPT = [5, 6, 7]


def expected(following, budget, inside, length):
    """The law, token by token: after so many thoughts come the last words."""
    tokens, thoughts, bound = list(PROMPT), 0, True
    while len(tokens) < len(PROMPT) + length:
        if inside and thoughts == budget:
            tokens += WORDS
            inside = bound = False
            continue
        tokens.append(token := following(tokens))
        if inside:
            thoughts, inside = thoughts + 1, token != CLOSE
            bound = inside
        elif bound and token == OPEN:
            inside = True
        else:
            bound = bound and token == BLANK
    return tokens[: len(PROMPT) + length]


@pytest.mark.parametrize("opening", [(), (OPEN,), (BLANK, BLANK, OPEN), (1, OPEN)], ids=str)
@pytest.mark.parametrize("thoughts", [0, 1, 9, 10, 11, 60])
@pytest.mark.parametrize("drafts", [0, 31])
def test_thoughts_are_as_long_as_they_may_be_and_no_longer(opening, thoughts, drafts):
    following, inside = thinker(opening, thoughts), not opening
    for budget in (1, 2, 10, 59):
        scheduler, engine = machine(2, following=following, seconds=cheap_rows, drafts=drafts)
        seq = make_sequence(1, PROMPT, 40, budget=Budget(TAGS, budget, inside))
        scheduler.add([seq])
        assert finish(scheduler, engine) == {1: "length"}
        assert seq.tokens == expected(following, budget, inside, 40)
        assert scheduler.counters.completion_tokens == 40
        assert not drafts or scheduler.counters.accepted


@pytest.mark.parametrize("layout", ["unified", "streams"])
def test_nobody_can_tell_what_befell_an_answer_with_a_budget(layout):
    """Crowds, full caches, guesses, steps that are broken off, and a worker that dies."""
    chance, preemptions = random.Random(3), 0
    for _ in range(40):
        following = thinker((BLANK, OPEN), chance.randrange(60))
        budgets = [chance.randrange(1, 50) for _ in range(6)]
        said, steps = [[] for _ in budgets], chance.randrange(60)
        for lasts in (steps, 10_000):
            scheduler, engine = machine(
                4,
                layout,
                chance.choice([150, 10_000]),
                following=following,
                seconds=cheap_rows,
                drafts=31,
                draft=True,
            )
            crowd = [
                make_sequence(i, PROMPT, 90, budget=Budget(TAGS, budget, False))
                for i, budget in enumerate(budgets)
            ]
            for seq in crowd:
                seq.resume(said[seq.id], [b"%d " % token for token in range(97)], 0.0)
            scheduler.add([seq for seq in crowd if len(said[seq.id]) < 90])
            while not scheduler.idle and (lasts := lasts - 1):
                if chance.random() < 0.1:
                    plan = engine.draft(scheduler.plan(0.0))
                    scheduler.commit(plan, engine.step(plan, aborted=True), 0.0)
                step(scheduler, engine)
            said = [seq.tokens[len(PROMPT) :] for seq in crowd]
            preemptions += scheduler.counters.preemptions
        for tokens, budget in zip(said, budgets, strict=True):
            assert tokens == expected(following, budget, False, 90)[len(PROMPT) :]
    assert preemptions or layout == "streams"


def test_the_last_words_end_where_the_answer_must():
    scheduler, engine = machine(1, following=thinker((OPEN,), 50))
    seq = make_sequence(1, PROMPT, 7, budget=Budget(TAGS, 5, False))
    scheduler.add([seq])
    assert finish(scheduler, engine) == {1: "length"}
    assert seq.tokens[-2:] == [2, WORDS[0]]


def thinking(budget: int | None, **kwargs):
    return chat(SUM, **{"thinking": True, "thinking_budget": budget} | kwargs)


async def said(pool: Pool, request) -> tuple[str, str, int]:
    """The thoughts and the text of its only choice, and how many tokens they have."""
    parts = dict(await answer(pool, request))
    thoughts, text = parts.get((0, "ReasoningDelta"), ""), parts.get((0, "TextDelta"), "")
    return thoughts, text, parts[0, "end"][2]


async def test_the_real_model_thinks_as_long_as_it_may(pool):
    thoughts, text, all_tokens = await said(pool, thinking(None))
    assert (thoughts, text) == (THOUGHTS, ANSWER)
    assert await said(pool, thinking(all_tokens)) == (thoughts, text, all_tokens)
    assert (await said(pool, thinking(0)))[0] == ""
    cut, _, tokens = await said(pool, thinking(6))
    assert THOUGHTS.startswith(cut.removesuffix(f"\n\n{LAST_WORDS}"))
    assert cut.endswith(LAST_WORDS)
    assert (await said(pool, thinking(6, max_tokens=tokens)))[0] == cut
    assert await said(pool, thinking(6, max_tokens=10)) == (cut[: cut.index("So") + 2], "", 10)


async def test_stop_strings_are_those_of_the_answer(pool):
    cut = await said(pool, thinking(6))
    for stop in ("8", "\n", "<", "think", "answer"):
        assert (await said(pool, thinking(None, stop=(stop,))))[0] == THOUGHTS
        assert (await said(pool, thinking(6, stop=(stop,))))[0] == cut[0]
    stopped = await said(pool, thinking(None, stop=(" = ",)))
    assert stopped[:2] == (THOUGHTS, "38 + 47")
    begun = (Message("user", SUM), Message("assistant", "<think>\n8 + 7 ="))
    goes_on = replace(thinking(None), messages=begun, continued=True)
    undisturbed = await said(pool, goes_on)
    assert await said(pool, replace(goes_on, stop=("1", "\n"))) == undisturbed


async def test_thoughts_that_a_prompt_opens_are_bounded_too(pool):
    begun = (Message("user", SUM), Message("assistant", "<think>\n8 + 7"))
    goes_on = replace(thinking(2), messages=begun, continued=True)
    assert (await said(pool, goes_on))[0].endswith(LAST_WORDS)


async def test_nobody_can_tell_that_the_worker_of_thoughts_was_killed(pool):
    drawn = Sampling(temperature=0.9, top_p=0.9, seed=7, repeat_penalty=1.1)
    requests = [thinking(budget, ignore_eos=True) for budget in range(1, 13)]
    requests += [thinking(budget, sampling=drawn, n=2) for budget in (1, 4, 7)]
    requests += [thinking(budget, stop=("So", "5")) for budget in (4, 7)]
    undisturbed = await asyncio.gather(*(answer(pool, request) for request in requests))
    before = pool.status().stats.completion_tokens
    running = [asyncio.create_task(answer(pool, request)) for request in requests]
    await kill_when(pool, before + 60)  # in the thoughts, and in the last words of some
    await kill_when(pool, 100)
    assert await asyncio.gather(*running) == undisturbed
    assert pool.status().restarts == 2


@pytest.mark.parametrize(("piece", "after"), [(b"a", 0), ("é".encode()[:1], 1), (b"\xff", 0)])
def test_the_last_words_wait_for_the_end_of_a_character(piece, after):
    seq = make_sequence(1, PROMPT, 90, budget=Budget(TAGS, 1, True))
    seq.say(1, piece)
    assert (seq.forced == ()) == bool(after)
    seq.say(2, "é".encode()[1:])
    assert seq.forced == TAGS.last_words


def test_the_last_words_do_not_wait_for_ever():
    seq = make_sequence(1, PROMPT, 90, budget=Budget(TAGS, 1, True))
    said = 0
    while not seq.forced:
        seq.say(1, "é".encode()[:1])
        said += 1
    assert 4 < said < 12


@pytest.mark.parametrize(
    ("answer", "inside", "outside"),
    [
        ([], 0, 0),
        ([BLANK, 5], 2, 0),
        ([5, 6, CLOSE, 7, CLOSE], 3, 0),
        ([OPEN, 5, CLOSE, 7], 3, 3),
        ([BLANK, OPEN, 5, CLOSE, 7], 4, 4),
        ([OPEN, 5], 2, 2),
        ([7, OPEN, 5, CLOSE], 4, 0),
        ([CLOSE, 7], 1, 0),
    ],
    ids=str,
)
def test_thoughts_are_counted_with_their_tags(answer, inside, outside):
    assert Block(TAGS, True).length(answer) == inside
    assert Block(TAGS, False).length(answer) == outside


async def test_the_real_model_counts_its_thoughts(pool):
    def counted(**kwargs):
        return used(pool, chat(SUM, **kwargs))

    block = GenerationRequest(id="test", prompt=f"<think>\n{THOUGHTS}\n</think>")
    assert (await counted(thinking=True)).reasoning_tokens == await pool.count(block)
    assert (await counted(thinking=False)).reasoning_tokens == 0
    cut = await counted(thinking=True, max_tokens=5)
    assert cut.reasoning_tokens == cut.completion_tokens == 5
    begun = (Message("user", SUM), Message("assistant", "38 +"))
    goes_on = replace(chat(SUM, thinking=True), messages=begun, continued=True)
    assert (await used(pool, goes_on)).reasoning_tokens == 0


async def used(pool: Pool, request):
    *_, last = [event async for event in pool.generate(request)]
    return last.usage
