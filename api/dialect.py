"""What all answers of a dialect have in common: the look of an error, and how a stream is framed.

How events become frames is an encoder's, see `api.streaming`. Knows no dialect by name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

EVENTS: Final = "text/event-stream"
COMMENT: Final = b": ping\n\n"  # an event of a stream that nobody is told of


def named_event(name: str, data: object) -> bytes:
    """An event of a stream under a name of its own."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))


@dataclass(frozen=True, slots=True)
class Problem:
    """What every dialect tells of an error in its own words; `status` as of HTTP."""

    status: int
    code: str
    message: str
    field: str | None = None


@dataclass(frozen=True, slots=True)
class Dialect:
    """`error` makes the JSON value of a refusal, which is of type `error_type`, and `broken` the
    frames that end a stream with it. `ping` is what a stream carries while it is quiet, or what
    makes it.
    """

    error_type: type
    error: Callable[[Problem], Any]
    broken: Callable[[Problem], list[bytes]]
    ping: bytes | Callable[[], bytes] = COMMENT
    media: str = EVENTS

    @property
    def resumable(self) -> bool:
        """Whether its frames can be numbered."""
        return self.media == EVENTS
