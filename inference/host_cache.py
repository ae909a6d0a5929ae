"""Prefixes that had to leave the KV cache and wait in host memory for a prompt that begins so.

Bounded in cells; the least recently used goes first. Knows what is stored under which key, not
where or how.
"""

from itertools import count

from inference.prefix_tree import PrefixTree


class HostCache:
    """At most `cells` cells; nothing is ever stored with 0."""

    def __init__(self, cells: int) -> None:
        self._cells = cells
        self._tree = PrefixTree()
        self._keys: dict[int, None] = {}  # least recently used first
        self._numbers = count()

    def match(self, tokens: list[int], salt: str) -> tuple[int, int]:
        """`(key, length)` of the longest prefix of `tokens` that is stored; length 0 for none."""
        return self._tree.match(tokens, salt)

    def add(self, tokens: list[int], salt: str) -> tuple[int | None, list[int]]:
        """A key to store `tokens` under, and keys to forget for it; None if it should not be
        stored: it is already, or larger than all there is."""
        if len(tokens) > self._cells or self.match(tokens, salt)[1] == len(tokens):
            return None, []
        forgotten = []
        while self._tree.size + len(tokens) > self._cells:
            forgotten.append(oldest := next(iter(self._keys)))
            self._tree.trim(oldest, 0)
            del self._keys[oldest]
        key = next(self._numbers)
        self._keys[key] = None
        self._tree.extend(key, tokens, salt)
        return key, forgotten

    def touch(self, key: int) -> None:
        """`key` was of use."""
        del self._keys[key]
        self._keys[key] = None
