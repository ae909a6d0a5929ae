"""What is guessed, and when guessing is worth it."""

from hypothesis import given
from hypothesis import strategies as st

from inference.cost_model import CallCost, CostModel, reach
from inference.history import NGRAM, History
from inference.sequence import Sequence
from inference.speculation import Speculation


def plain_guess(tokens: list[int], most: int) -> list[int]:
    """The definition, word for word."""
    for start in range(len(tokens) - NGRAM - 1, -1, -1):
        if tokens[start : start + NGRAM] == tokens[-NGRAM:]:
            guessed = tokens[start + NGRAM :][:most]
            return (guessed * most)[:most]
    return []


@given(st.lists(st.sampled_from([0, 1, 256, 65536]), max_size=40), st.integers(1, 8))
def test_a_guess_is_what_followed_the_last_occurrence(tokens, most):
    """Also where bytes of neighbouring tokens look like a token."""
    assert list(History().guess(tokens, most)) == plain_guess(tokens, most)


def test_a_history_that_grows_guesses_as_a_fresh_one_does():
    tokens, history = [], History()
    for token in [1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3]:
        tokens.append(token)
        assert history.guess(tokens, 4) == History().guess(tokens, 4)


def test_guesses_are_checked_against_what_is_said_whether_verified_or_not():
    history, tokens = History(), [7, 8, 9] * 3
    rates = []
    for token in [7, 8, 9, 7, 8, 9, 1, 2, 3, 4, 5, 6]:
        history.guess(tokens, 4)
        rates.append(history.rate.value)
        tokens.append(token)
    assert rates[:7] == sorted(rates[:7]) and rates[6] > 0.8
    assert rates[7] < rates[6]
    assert rates[8:] == [rates[7]] * 4, "without a precedent there is nothing to learn"


def teach(cost: CallCost, fixed: float, each: float) -> None:
    for rows in [1, 4, 9, 17] * 12:
        cost.observe(rows, reach(50, rows), fixed + each * rows)


def speculation(fixed: float, each: float, draft: float | None = None) -> Speculation:
    """Where a call takes `fixed + each * rows` seconds, and one of a draft model `draft`."""
    cost = CostModel(streams=True, draft=draft is not None)
    teach(cost.decode, fixed, each)
    if cost.draft:
        teach(cost.draft, draft, 0.0)
    return Speculation(cost, 16)


def repeating(count: int) -> list[Sequence]:
    return [Sequence(id=i, tokens=[1, 2, 3, 4] * 5, limit=100, computed=19) for i in range(count)]


def test_one_who_guesses_among_others_costs_them_a_pass_more():
    """In streams; if all guess, a pass does it."""
    seqs = repeating(3)
    for slot, seq in enumerate(seqs):
        seq.slot, seq.history.rate.value = slot, 0.95
    assert all(chunk.drafts for chunk in speculation(0.03, 0.001).chunks(seqs))
    for seq in seqs[1:]:
        seq.tokens = [*range(20)]
        seq.history = History()
    assert not any(chunk.drafts for chunk in speculation(0.03, 0.001).chunks(seqs))


def test_guesses_where_a_row_is_cheap_and_none_where_it_is_dear():
    [seq] = repeating(1)
    seq.history.rate.value = 0.95
    [cheap] = speculation(0.03, 0.001).chunks([seq])
    [dear] = speculation(0.0001, 0.03).chunks([seq])
    assert len(cheap.drafts) >= 7 and cheap.drafts[:4] == (1, 2, 3, 4)
    assert dear.drafts == ()


def test_a_full_batch_and_a_text_that_was_guessed_wrong_get_none():
    cheap = speculation(0.03, 0.001)
    assert not any(chunk.drafts for chunk in cheap.chunks(repeating(16)))
    [seq] = repeating(1)
    seq.history.rate.value = 0.1
    assert cheap.chunks([seq])[0].drafts == ()


def test_never_more_than_the_step_may_hold_nor_than_the_sequence_may_grow():
    cheap = speculation(0.03, 0.0001)
    assert sum(len(chunk.drafts) for chunk in cheap.chunks(repeating(4))) <= 16
    [seq] = repeating(1)
    seq.limit = len(seq.tokens) + 3
    assert len(cheap.chunks([seq])[0].drafts) <= 2


def strange() -> Sequence:
    """Nothing in it was said before."""
    return Sequence(id=0, tokens=list(range(20)), limit=100, computed=19)


def test_a_draft_model_is_asked_where_it_is_quick_and_the_text_so_far_does_not_tell():
    quick, slow = speculation(0.03, 0.001, 0.001), speculation(0.03, 0.001, 0.03)
    assert quick.chunks([strange()])[0].asked >= 3
    assert slow.chunks([strange()])[0].asked == 0
    [seq] = repeating(1)
    seq.history.rate.value = 0.95
    [chunk] = quick.chunks([seq])
    assert chunk.drafts and not chunk.asked
    seq.trust.value = 0.97
    [chunk] = quick.chunks([seq])
    assert chunk.asked and not chunk.drafts


def test_a_draft_model_that_was_wrong_rests_and_gets_another_chance():
    quick, seq = speculation(0.03, 0.001, 0.003), strange()
    seq.trust.checked([1], [2])
    seq.trust.checked([1], [2])
    asked = [quick.chunks([seq])[0].asked for _ in range(100)]
    assert asked[0] == 0 and asked[-1] > 0
