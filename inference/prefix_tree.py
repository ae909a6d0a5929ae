"""A radix tree over KV cells: which sequence id holds which tokens, and how many cells that takes.

A node is a run of cells with the tokens computed into them; the path from a root to a node is a
prefix, and every id that holds one ends at the end of some node. Where nobody ends there are two
ways on, so the tree is no deeper than there are ids. Cells that ids share exist once. Prefixes of
different salts never meet. Knows token ids and sequence ids, not what they are for.
"""

from collections.abc import Iterable, Iterator


def common_prefix(a: list[int], b: list[int]) -> int:
    """Length of the longest common prefix of two token lists."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    low, high = 0, n  # a[:low] == b[:low] always, a[:high] != b[:high] always
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


class Node:
    """A run of cells that hold `tokens`, from position `start` on."""

    __slots__ = ("children", "holders", "parent", "start", "tokens")

    def __init__(self, parent: "Node | None", start: int, tokens: list[int]) -> None:
        self.parent = parent
        self.start = start
        self.tokens = tokens
        self.children: list[Node] = []
        self.holders: set[int] = set()  # ids that end here

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    @property
    def used(self) -> bool:
        return bool(self.children or self.holders)

    def path(self) -> Iterator["Node"]:
        """This node and those above it, without the root."""
        node = self
        while node.parent:
            yield node
            node = node.parent


class PrefixTree:
    """`size` counts distinct cells: what the unified KV layout has in use."""

    def __init__(self) -> None:
        self._roots: dict[str, Node] = {}
        self._at: dict[int, Node] = {}
        self.size = 0

    def length(self, id: int) -> int:
        """How many tokens `id` holds."""
        return self._at[id].end if id in self._at else 0

    def read(self, id: int) -> tuple[list[int], str]:
        """The tokens that `id` holds, and their salt."""
        path = list(self._at[id].path())
        salt = next(salt for salt, root in self._roots.items() if root is path[-1].parent)
        return [token for node in reversed(path) for token in node.tokens], salt

    def match(self, tokens: list[int], salt: str = "") -> tuple[int, int]:
        """`(id, length)` of the longest prefix of `tokens` that is held; length 0 for none."""
        root = self._roots.get(salt)
        node, length = self._deepest(root, tokens, 0) if root else (None, 0)
        while node and not node.holders:
            node = node.children[0]
        return (min(node.holders), length) if node and length else (-1, 0)

    def extend(self, id: int, tokens: list[int], salt: str = "") -> None:
        """`id` holds further `tokens`; `salt` matters for its first ones."""
        node = self._at.get(id) or self._roots.setdefault(salt, Node(None, 0, []))
        if node.parent and not node.children and node.holders == {id}:
            node.tokens += tokens
        else:
            self._leave(id)
            self._settle(id, self._child(node, list(tokens)))
        self.size += len(tokens)

    def fork(self, source: int, target: int, length: int) -> None:
        """`target`, which holds nothing, shares the first `length` cells of `source`."""
        assert target not in self._at and 0 < length <= self.length(source)
        node = next(n for n in self._at[source].path() if n.start < length)
        self._settle(target, node if node.end == length else self._split(node, length))

    def trim(self, id: int, length: int) -> None:
        """`id` keeps its first `length` tokens; cells that nobody holds any more are free."""
        if length >= self.length(id):
            return
        node = self._leave(id)
        assert node
        while node.start >= length and node.parent:
            parent = node.parent
            self._prune(node)
            node = parent
        if not length:
            self._prune(node)
        elif node.used:
            self._settle(id, node if node.end == length else self._split(node, length))
            self._merge(node)
        else:
            self.size -= node.end - length
            del node.tokens[length - node.start :]
            self._settle(id, node)

    def own(self, id: int) -> int:
        """How many cells at the end of `id` nobody else holds."""
        node = self._at.get(id)
        return len(node.tokens) if node and not node.children and node.holders == {id} else 0

    def ancestors(self, id: int) -> set[int]:
        """Other ids all of whose cells `id` holds too."""
        path = self._at[id].path() if id in self._at else ()
        return {holder for node in path for holder in node.holders} - {id}

    def held(self, ids: Iterable[int], source: int = -1, length: int = 0) -> int:
        """Distinct cells that `ids` hold, and a fork of `source` at `length` would."""
        nodes = {node for id in ids if id in self._at for node in self._at[id].path()}
        fork = self._at[source].path() if length else ()
        more = (min(node.end, length) - node.start for node in fork if node not in nodes)
        return sum(len(node.tokens) for node in nodes) + sum(n for n in more if n > 0)

    def _deepest(self, node: Node, tokens: list[int], depth: int) -> tuple[Node, int]:
        """The node where the longest match ends, below `node`, and its length."""
        best = node, depth
        for child in node.children:
            if depth < len(tokens) and child.tokens[0] == tokens[depth]:
                run = common_prefix(child.tokens, tokens[depth : depth + len(child.tokens)])
                found = child, depth + run
                if run == len(child.tokens):
                    found = self._deepest(child, tokens, depth + run)
                best = max(best, found, key=lambda pair: pair[1])
        return best

    def _child(self, node: Node, tokens: list[int]) -> Node:
        child = Node(node, node.end, tokens)
        node.children.append(child)
        return child

    def _split(self, node: Node, length: int) -> Node:
        """Cut `node` at position `length`; the upper part, which takes its place."""
        assert node.parent
        cut = length - node.start
        upper = Node(node.parent, node.start, node.tokens[:cut])
        upper.children.append(node)
        siblings = node.parent.children
        siblings[siblings.index(node)] = upper
        node.parent, node.start, node.tokens = upper, length, node.tokens[cut:]
        return upper

    def _merge(self, node: Node) -> None:
        """Let the only child of `node` take its place too, if nobody ends between them."""
        if not node.parent or node.holders or len(node.children) != 1:
            return
        [child] = node.children
        child.parent, child.start = node.parent, node.start
        child.tokens = node.tokens + child.tokens
        siblings = node.parent.children
        siblings[siblings.index(node)] = child

    def _settle(self, id: int, node: Node) -> None:
        node.holders.add(id)
        self._at[id] = node

    def _leave(self, id: int) -> Node | None:
        node = self._at.pop(id, None)
        if node:
            node.holders.discard(id)
        return node

    def _prune(self, node: Node) -> None:
        if node.used:
            self._merge(node)
        elif node.parent:
            node.parent.children.remove(node)
            self.size -= len(node.tokens)
        else:
            self._roots = {salt: root for salt, root in self._roots.items() if root is not node}
