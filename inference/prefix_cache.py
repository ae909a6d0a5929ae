"""Which tokens lie in which KV slot, and which idle slot a new prompt should take.

Every slot's cells belong to a running sequence or, when that has finished, to the cache: its
tokens stay until another prompt takes the slot, and a prompt that begins with them need not
compute them again. Knows token ids and slot numbers only.
"""


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


class PrefixCache:
    """Slots `0..slots-1`; each is free to take or held by a running sequence."""

    def __init__(self, slots: int) -> None:
        self._resident: list[list[int]] = [[] for _ in range(slots)]
        self._prompt = [0] * slots  # how many of a slot's tokens were asked, not answered
        self._idle = dict.fromkeys(range(slots))  # insertion order: least recently used first

    @property
    def cells(self) -> int:
        """Cells that hold cached tokens of idle slots."""
        return sum(len(self._resident[slot]) for slot in self._idle)

    def acquire(self, tokens: list[int]) -> tuple[int, int] | None:
        """Take an idle slot for a prompt: `(slot, tokens already computed)`, or None.

        The longest match wins, if it is half of the prompt or half of the slot's own prompt: a
        shorter one would destroy more than it saves (answers do not count, for a template may
        write them down differently next time). Else an empty slot, else the one used longest
        ago. At least one token is left to compute, for without it there are no logits.
        """
        if not self._idle:
            return None
        matches = {slot: common_prefix(self._resident[slot], tokens[:-1]) for slot in self._idle}

        def worth(slot: int) -> tuple[int, bool]:
            good = 2 * matches[slot] >= min(self._prompt[slot], len(tokens))
            return matches[slot] if good else 0, not self._resident[slot]

        slot = max(self._idle, key=worth)  # the first of equals: the oldest
        del self._idle[slot]
        return slot, matches[slot]

    def release(self, slot: int, tokens: list[int], prompt: int) -> None:
        """Give a slot back whose KV cells now hold `tokens`, the first `prompt` of them asked."""
        self._resident[slot] = tokens
        self._prompt[slot] = prompt
        self._idle[slot] = None
