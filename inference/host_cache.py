"""Prefixes that had to leave the KV cache and wait in host memory for a prompt that begins so.

Bounded in cells; the least recently used goes first. Knows what is stored under which key, not
where or how.
"""

from itertools import count

from inference.prefix_tree import PrefixTree


class HostCache:
    """At most `cells` cells; nothing is ever stored with 0."""

    def __init__(self, cells: int) -> None:
        self.cells = cells
        self._tree = PrefixTree()
        self._keys: dict[int, None] = {}  # least recently used first
        self._numbers = count()

    def match(self, tokens: list[int], salt: str) -> tuple[int, int]:
        """`(key, length)` of the longest prefix of `tokens` that is stored; length 0 for none."""
        return self._tree.match(tokens, salt)

    def length(self, key: int) -> int:
        """How many tokens are stored under `key`."""
        return self._tree.length(key)

    def add(self, tokens: list[int], salt: str) -> tuple[int, list[int]]:
        """A key to store `tokens` under, no more than `cells` and not stored yet, and keys to
        forget for it."""
        shorter, length = self.match(tokens, salt)
        forgotten = []
        if length and length == self.length(shorter):  # the same conversation, a turn ago
            forgotten.append(self._forget(shorter))
        while self._tree.size + len(tokens) > self.cells:
            forgotten.append(self._forget(next(iter(self._keys))))
        key = next(self._numbers)
        self._keys[key] = None
        self._tree.extend(key, tokens, salt)
        return key, forgotten

    def touch(self, key: int) -> None:
        """`key` was of use."""
        del self._keys[key]
        self._keys[key] = None

    def _forget(self, key: int) -> int:
        self._tree.trim(key, 0)
        del self._keys[key]
        return key
