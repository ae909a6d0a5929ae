"""An event loop without a clock and without I/O: where nothing is left to do now, it is at once
the time of the next timer. Runs are as fast as their code and alike to the last event."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class Stuck(Exception):
    """Somebody waits, and nothing will ever happen again."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Time begins at 0. It is its own selector, which never finds anything ready."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._selector = self

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None) -> tuple[()]:
        if timeout is None:
            raise Stuck
        self._now += timeout
        return ()

    def _process_events(self, _: tuple[()]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """`main` from start to end. Raises Stuck."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
