"""Which slot a prompt takes."""

from hypothesis import given
from hypothesis import strategies as st

from inference.prefix_cache import PrefixCache, common_prefix

tokens = st.lists(st.integers(0, 2), max_size=40)


@given(tokens, tokens)
def test_common_prefix_equals_the_plain_definition(a, b):
    n = common_prefix(a, b)
    assert a[:n] == b[:n]
    assert n == min(len(a), len(b)) or a[n] != b[n]


def cache_of(*resident: list[int]) -> PrefixCache:
    """A cache whose slots hold these tokens, the first released longest ago."""
    cache = PrefixCache(len(resident))
    slots = [cache.acquire([9])[0] for _ in resident]
    for slot, held in zip(slots, resident, strict=True):
        cache.release(slot, held, len(held))
    return cache


def test_the_longest_match_wins():
    assert cache_of([1, 2], [1, 2, 3, 4], [1]).acquire([1, 2, 3, 4, 5]) == (1, 4)


def test_one_token_is_always_left_to_compute():
    assert cache_of([1, 2, 3]).acquire([1, 2, 3]) == (0, 2)


def test_a_short_match_does_not_destroy_a_long_conversation_while_a_slot_is_empty():
    assert cache_of([1, *range(100, 140)], []).acquire([1, 2, 3]) == (1, 0)


def test_a_question_is_reused_though_its_answer_was_long():
    cache = PrefixCache(2)
    slot, _ = cache.acquire([1, 2, 3])
    cache.release(slot, [1, 2, 3, *range(100, 140)], prompt=3)
    assert cache.acquire([1, 2, 3, *range(200, 220)]) == (slot, 3)


def test_without_a_match_the_slot_used_longest_ago_goes_first():
    cache = cache_of([1, 1], [2, 2], [3, 3])
    assert [cache.acquire([9, 9])[0] for _ in range(3)] == [0, 1, 2]


def test_a_full_house_gives_nothing():
    cache = PrefixCache(1)
    slot, _ = cache.acquire([1])
    assert cache.acquire([1]) is None
    cache.release(slot, [1, 2, 3], 3)
    assert cache.cells == 3
