"""How much one key may do at once and in a minute, and how often one address may guess wrong.

A minute is the last sixty seconds at any moment, not a calendar's. Knows no HTTP.
"""

import math
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

from api.errors import TooManyRequests
from api.keys import Key

MINUTE: Final = 60.0
FAILURES: Final = 20
_MAX_PEERS: Final = 1024

Clock = Callable[[], float]


class Recent:
    """The moments of the last `limit` events."""

    def __init__(self, limit: int, clock: Clock) -> None:
        self._limit = limit
        self._clock = clock
        self._moments: deque[float] = deque(maxlen=limit)

    def check(self, message: str) -> None:
        """Raises `TooManyRequests` if there were `limit` events within the last minute."""
        if len(self._moments) == self._limit:
            left = self._moments[0] + MINUTE - self._clock()
            if left > 0:
                raise TooManyRequests(message, retry_after=math.ceil(left))

    def note(self) -> None:
        self._moments.append(self._clock())


class Usage:
    """What one key does: `begin` a request, and `end` it when its answer has ended."""

    def __init__(self, key: Key, clock: Clock) -> None:
        self._key = key
        self._running = 0
        self._recent = Recent(key.per_minute, clock) if key.per_minute else None

    def begin(self) -> None:
        """Raises `TooManyRequests`."""
        limit, minute = self._key.concurrent, self._key.per_minute
        if self._running >= limit:
            raise TooManyRequests(f"This key may have {limit} requests running at the same time.")
        if self._recent:
            self._recent.check(f"This key may send {minute} requests in a minute.")
            self._recent.note()
        self._running += 1

    def end(self) -> None:
        self._running -= 1


class Limits:
    """The use of all keys, and the failures of the addresses that failed last."""

    def __init__(self, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._usages: dict[Key, Usage] = {}
        self._failures: dict[str, Recent] = {}

    def usage(self, key: Key) -> Usage:
        usage = self._usages.get(key)
        if usage is None:
            usage = self._usages[key] = Usage(key, self._clock)
        return usage

    def failed(self, peer: str) -> None:
        """Note that `peer` showed a wrong key. Raises `TooManyRequests` if it does so too often."""
        recent = self._failures.pop(peer, None) or Recent(FAILURES, self._clock)
        self._failures[peer] = recent
        if len(self._failures) > _MAX_PEERS:
            del self._failures[next(iter(self._failures))]
        recent.check("Too many wrong API keys came from this address.")
        recent.note()
