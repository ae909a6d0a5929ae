"""Keeps responses for those who come back to them: in memory, bounded, each for its tenant alone.

A response is kept with all that it went on from, so that it needs no other one. Of those who have
too much, whoever has most loses what was not used for longest. Knows no shape and no HTTP.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Final

from api.errors import UnknownResponse

MAX_RESPONSES: Final = 1024
MAX_BYTES: Final = 64 << 20
KEEP_SECONDS: Final = 24 * 3600.0  # without use
_PER_ITEM: Final = 256  # bytes that Python takes beside the text


@dataclass(frozen=True, slots=True)
class Kept:
    """A response as JSON, and the items of its conversation by their ids, as JSON: the first
    `inputs` are what it answered, the others the answer."""

    response: bytes
    items: Mapping[str, bytes]
    inputs: int

    @property
    def size(self) -> int:
        """Bytes, as if no other response had items in common."""
        return len(self.response) + sum(_PER_ITEM + len(item) for item in self.items.values())


class Store:
    """The responses of a server, by tenant and id; `clock` counts seconds."""

    def __init__(
        self,
        most: int = MAX_RESPONSES,
        room: int = MAX_BYTES,
        keep: float = KEEP_SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._most = most
        self._room = room
        self._keep = keep
        self._clock = clock
        self._kept: dict[tuple[str, str], tuple[Kept, float]] = {}  # least recently used first
        self._bytes: Counter[str] = Counter()

    def keep(self, tenant: str, id: str, kept: Kept) -> None:
        """Keep a response, unless it alone is too large."""
        self._expire()
        if kept.size > self._room:
            return
        self._bytes[tenant] += kept.size
        self._kept[tenant, id] = kept, self._clock()
        while len(self._kept) > self._most or self._bytes.total() > self._room:
            self._make_room()

    def find(self, tenant: str, id: str) -> Kept:
        """Raises UnknownResponse, also for those of other tenants."""
        self._expire()
        if (tenant, id) not in self._kept:
            raise UnknownResponse
        kept, _ = self._kept.pop((tenant, id))
        self._kept[tenant, id] = kept, self._clock()
        return kept

    def forget(self, tenant: str, id: str) -> None:
        """Raises UnknownResponse, also for those of other tenants."""
        self._expire()
        if (tenant, id) not in self._kept:
            raise UnknownResponse
        self._drop((tenant, id))

    def _make_room(self) -> None:
        greediest = max(self._bytes, key=self._bytes.__getitem__)
        self._drop(next(key for key in self._kept if key[0] == greediest))

    def _expire(self) -> None:
        oldest = self._clock() - self._keep
        while self._kept and (key := next(iter(self._kept))) and self._kept[key][1] < oldest:
            self._drop(key)

    def _drop(self, key: tuple[str, str]) -> None:
        kept, _ = self._kept.pop(key)
        self._bytes[key[0]] -= kept.size
        if not self._bytes[key[0]]:
            del self._bytes[key[0]]
