"""Prompts whose tokens' log probabilities are wanted, under the scheduler and a fake engine."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.logprobs import Ledger
from inference.sequence import Sequence
from inference.types import TokenLogprob
from tests.fake_engine import VOCABULARY
from tests.scheduling import cheap_rows, expected, finish, machine, make_sequence, step

pytestmark = pytest.mark.usefixtures("short_prefixes_are_worth_a_copy")


def with_scores(id: int, prompt: list[int], answer: int, **kwargs) -> Sequence:
    seq = make_sequence(id, prompt, answer, echo="echo ", logprobs=Ledger(0), **kwargs)
    seq.prompt_logprobs = Ledger(0)
    seq.prompt_logprobs.add(b"", TokenLogprob(b"", None))
    return seq


prompts = st.lists(st.integers(1, 3), min_size=1, max_size=30)
asked = st.tuples(prompts, st.integers(0, 9), st.booleans())


@settings(max_examples=150)
@given(
    st.lists(asked, min_size=1, max_size=8),
    st.integers(1, 4),
    st.sampled_from(["unified", "streams"]),
    st.sampled_from([42, 64, 200]),
    st.fixed_dictionaries({"drafts": st.sampled_from([0, 16]), "host": st.sampled_from([0, 500])}),
    st.sets(st.integers(0, 40)),
)
def test_every_token_of_a_prompt_gets_its_own_once(requests, slots, layout, cells, how, aborted):
    """Also where cells are few, guesses right, prefixes there and steps interrupted."""
    scheduler, engine = machine(slots, layout, cells, seconds=cheap_rows, **how)
    make = {True: with_scores, False: make_sequence}
    sequences = [
        make[scored](id, prompt, answer if scored else answer + 1, arrived=float(id))
        for id, (prompt, answer, scored) in enumerate(requests)
    ]
    scheduler.add(sequences)
    for number in range(41):
        if number in aborted:
            plan = engine.draft(scheduler.plan(0.0))
            scheduler.commit(plan, engine.step(plan, aborted=True), 0.0)
        elif not scheduler.idle:
            step(scheduler, engine)
    finish(scheduler, engine)
    for seq, (prompt, answer, scored) in zip(sequences, requests, strict=True):
        assert seq.tokens == expected(prompt, answer if scored else answer + 1)
        if scored:
            first, *others = seq.prompt_logprobs.take()
            assert first.logprob is None and seq.echo == ""
            assert [-one.logprob for one in others] == list(range(1, len(prompt)))


def test_what_is_computed_already_is_computed_again_for_its_logits_and_shared_afterwards():
    for layout in ("unified", "streams"):
        scheduler, engine = machine(2, layout)
        prompt = [(7 * n) % VOCABULARY for n in range(1, 60)]
        first, scored, last = (
            make(id, prompt, 1)
            for id, make in enumerate((make_sequence, with_scores, make_sequence))
        )
        for seq in (first, scored, last):
            scheduler.add([seq])
            finish(scheduler, engine)
        assert (first.cached, scored.cached, last.cached) == (0, 0, len(prompt) - 1)


def test_the_prompt_is_all_that_is_answered_where_nothing_else_is_wanted():
    scheduler, engine = machine(2)
    seq = with_scores(1, [1, 2, 3], 0)
    scheduler.add([seq])
    [progress] = step(scheduler, engine)[1]
    assert (progress.text, progress.reason, seq.tokens) == ("echo ", "length", [1, 2, 3])
    assert scheduler.idle and scheduler.counters.completion_tokens == 0
