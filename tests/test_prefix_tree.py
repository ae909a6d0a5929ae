"""The prefix tree against a model without any cleverness: every id is a list of cells."""

import random

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inference.prefix_tree import PrefixTree, common_prefix

tokens = st.lists(st.integers(0, 2), max_size=40)
ids = st.integers(0, 5)
salts = st.sampled_from(["", "salt"])


@given(tokens, tokens)
def test_common_prefix_equals_the_plain_definition(a, b):
    n = common_prefix(a, b)
    assert a[:n] == b[:n]
    assert n == min(len(a), len(b)) or a[n] != b[n]


class TreeAgainstLists(RuleBasedStateMachine):
    """`lists[id]` holds (cell, token) pairs; a fork shares the cells."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = PrefixTree()
        self.lists: dict[int, list[tuple[object, int]]] = {id: [] for id in range(6)}
        self.salt: dict[int, str] = {}

    @rule(id=ids, more=tokens.filter(bool), salt=salts)
    def extend(self, id, more, salt):
        if not self.lists[id]:
            self.salt[id] = salt
        self.tree.extend(id, more, self.salt[id])
        self.lists[id] = self.lists[id] + [(object(), token) for token in more]

    @rule(source=ids, into=ids, data=st.data())
    def fork(self, source, into, data):
        if source != into and self.lists[source] and not self.lists[into]:
            length = data.draw(st.integers(1, len(self.lists[source])))
            self.tree.fork(source, into, length)
            self.lists[into] = self.lists[source][:length]
            self.salt[into] = self.salt[source]

    @precondition(lambda self: any(self.lists.values()))
    @rule(id=ids, data=st.data())
    def trim(self, id, data):
        length = data.draw(st.integers(0, len(self.lists[id])))
        self.tree.trim(id, length)
        self.lists[id] = self.lists[id][:length]

    @rule(prompt=tokens, salt=salts)
    def match(self, prompt, salt):
        found, length = self.tree.match(prompt, salt)
        held = {id: [t for _, t in cells] for id, cells in self.lists.items() if cells}
        best = max(
            (common_prefix(prompt, held[id]) for id in held if self.salt[id] == salt), default=0
        )
        assert length == best
        if length:
            assert held[found][:length] == prompt[:length] and self.salt[found] == salt
        else:
            assert found == -1

    @invariant()
    def cells_are_conserved(self):
        lists = self.lists.values()
        assert self.tree.size == len({cell for cells in lists for cell, _ in cells})
        assert all(self.tree.length(id) == len(cells) for id, cells in self.lists.items())

    @invariant()
    def where_nobody_ends_there_are_two_ways_on(self):
        nodes = {node for end in self.tree._at.values() for node in end.path()}
        assert all(node.holders or len(node.children) > 1 for node in nodes)

    @rule(some=st.sets(ids), source=ids, data=st.data())
    def held(self, some, source, data):
        length = data.draw(st.integers(0, len(self.lists[source])))
        lists = [self.lists[id] for id in some] + [self.lists[source][:length]]
        assert self.tree.held(some, source, length) == len({c for cells in lists for c, _ in cells})

    @rule(id=ids)
    def own(self, id):
        others = {c for other, cells in self.lists.items() if other != id for c, _ in cells}
        alone = [cell for cell, _ in self.lists[id] if cell not in others]
        assert self.tree.own(id) <= len(alone)
        assert bool(self.tree.own(id)) == bool(alone)


TestTreeAgainstLists = TreeAgainstLists.TestCase


def test_a_text_that_grows_token_by_token_leaves_no_chain():
    """Each holder goes on from the one before, which then lets go."""
    tree = PrefixTree()
    tree.extend(0, [1])
    for length in range(1, 3000):
        old, new = (length + 1) % 2, length % 2
        tree.fork(old, new, length)
        tree.extend(new, [1])
        tree.trim(old, 0)
    assert tree.match([1] * 3000) == (1, 3000)
    assert tree.size == 3000


def test_a_tree_that_is_left_is_empty():
    tree = PrefixTree()
    rng = random.Random(0)
    for id in range(50):
        tree.extend(id, [rng.randrange(3) for _ in range(20)], salt=str(id % 3))
    for id in range(50):
        tree.trim(id, 0)
    assert tree.size == 0 and not tree._roots and not tree._at
