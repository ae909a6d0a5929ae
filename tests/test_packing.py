"""Whose inputs go into which call."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from inference.errors import DeadlineExceeded
from inference.packing import Batch, Job, Packer

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=12)


def job(id: int, *lengths: int, tenant: str = "", **more) -> Job:
    inputs = deque((place, [*range(length)]) for place, length in enumerate(lengths))
    return Job(id, inputs, tenant=tenant, **more)


def packer(*jobs: Job, slots: int = 4, cells: int = 64, batch: int = 16, whole: bool = False):
    made = Packer(slots, cells, batch, whole=whole)
    for one in jobs:
        made.add(one)
    return made


def calls(made: Packer) -> list[Batch]:
    """All that follow, until nobody waits."""
    batches = []
    while made.line:
        batches.append(made.plan())
        assert batches[-1].parts, "nobody goes on, and somebody waits"
        made.commit(batches[-1])
    return batches


def ends(batches: list[Batch]) -> list[tuple[int, int]]:
    """Requests and places of the inputs, as they end."""
    return [(p.row.job.id, p.row.index) for b in batches for p in b.parts if p.last]


@given(st.lists(LENGTHS, min_size=1, max_size=5), st.booleans(), st.integers(1, 4))
def test_every_token_is_computed_once_within_the_bounds(requests, whole, tenants):
    size = 40 if whole else 16
    made = Packer(4, 64, size, whole=whole)
    for id, lengths in enumerate(requests):
        made.add(job(id, *lengths, tenant=str(id % tenants)))
    held: dict[int, int] = {}  # by slot
    done: dict[tuple[int, int], int] = {}
    while made.line:
        batch = made.plan()
        for slot in batch.cleared:
            held.pop(slot, None)
        assert 0 < batch.tokens <= size
        for part in batch.parts:
            key = part.row.job.id, part.row.index
            assert part.start == done.get(key, 0) == held.get(part.row.slot, 0)
            done[key] = held[part.row.slot] = part.start + part.count
            assert part.last or not whole
        assert len(held) <= 4 and sum(held.values()) <= made.used <= 64
        made.commit(batch)
    assert made.used == 0
    wanted = {(i, n): length for i, asked in enumerate(requests) for n, length in enumerate(asked)}
    assert done == wanted


def test_a_request_of_many_inputs_does_not_hold_up_another():
    made = packer(job(1, *[4] * 100))
    made.commit(made.plan())
    made.add(job(2, 4, 4))
    assert (2, 1) in ends([made.plan()])


def test_inputs_of_a_request_are_begun_in_their_order():
    assert ends(calls(packer(job(1, *[5] * 20)))) == [(1, place) for place in range(20)]


def test_a_long_input_takes_turns_with_short_ones():
    made = packer(job(1, 500), job(2, *[20] * 5), cells=1000, batch=100)
    first, second, *_ = calls(made)
    assert [part.count for part in first.parts] == [50, 20, 20, 10]
    assert ends([first, second]) == [(2, place) for place in range(5)]


def test_tenants_share_the_tokens_however_much_they_ask_for():
    greedy = [job(id, *[8] * 30, tenant="greedy") for id in range(5)]
    made = packer(*greedy)
    made.commit(made.plan())
    made.add(job(9, *[8] * 6, tenant="modest"))
    had = {"greedy": 0, "modest": 0}
    for _ in range(6):
        batch = made.plan()
        for part in batch.parts:
            had[part.row.job.tenant] += part.count
        made.commit(batch)
    assert had["modest"] == 48 == had["greedy"]


def test_an_input_that_waits_for_cells_is_not_passed_for_ever():
    """These two never end in the same call, and what one of them leaves is too little."""
    made = packer(job(1, *[47] * 50), job(2, *[32] * 50), cells=140)
    for _ in range(2):
        made.commit(made.plan())
    made.add(job(3, 121))
    assert ends(calls(made)).index((3, 0)) < 8


def test_who_hangs_up_leaves_slots_and_cells():
    made = packer(job(1, 30, 30), job(2, 60), cells=64)
    held = {part.row.slot for part in made.plan().parts}
    assert made.used == 30
    made.cancel(1)
    assert made.used == 0
    batch = made.plan()
    assert set(batch.cleared) == held and batch.ids == [2]
    made.cancel(2)
    made.cancel(3)
    assert made.plan() == Batch(()) and not made.line


def test_slots_to_clear_are_not_forgotten_while_nobody_asks():
    made = packer(job(1, 4))
    [part] = made.plan().parts
    made.commit(Batch((part,)))
    assert made.plan().cleared == ()
    made.add(job(2, 4))
    assert made.plan().cleared == (part.row.slot,)


def test_a_request_ends_when_its_time_has_passed():
    made = packer(job(1, 30, deadline=5.0), job(2, 4, deadline=9.0))
    made.plan()
    assert made.late(4.9) == []
    [(id, fault)] = made.late(5.0)
    assert id == 1 and isinstance(fault, DeadlineExceeded)
    assert [one.id for one in made.line] == [2]


def test_an_input_that_has_to_be_whole_waits_for_the_next_call_and_goes_first():
    made = packer(job(1, 10), job(2, 10), job(3, 6, 6), whole=True)
    first, second = calls(made)
    assert ends([first]) == [(1, 0), (3, 0)]
    assert ends([second]) == [(2, 0), (3, 1)]


def test_slots_are_used_again():
    batches = calls(packer(job(1, *[1] * 50), slots=3))
    slots = [part.row.slot for batch in batches for part in batch.parts]
    assert set(slots) == {0, 1, 2} and len(slots) == 50
