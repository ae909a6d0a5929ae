"""Between the two threads of a worker: commands for the loop, and who waits for its step.

Knows neither what a command asks for nor how a step is computed.
"""

import queue
import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Inbox(Generic[Item]):
    """Commands for the step loop, left by the intake thread. `None` means: stop."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self.put = self._queue.put

    def take(self, patience: float | None) -> list[Item] | None:
        """All commands there are; waits so many seconds for one, where there is none, or for
        ever. None when the worker shall end."""
        commands: list[Item] = []
        try:
            while (command := self._queue.get(timeout=0 if commands else patience)) is not None:
                commands.append(command)
        except queue.Empty:
            return commands
        return None


class Audience:
    """Who waits for the step that runs; when the last one hangs up, `interrupt` ends it."""

    def __init__(self, interrupt: Callable[[bool], None]) -> None:
        self._interrupt = interrupt
        self._waiting: set[int] = set()
        self._lock = threading.Lock()

    def attends(self, ids: Iterable[int]) -> None:
        """A step for these requests begins."""
        with self._lock:
            self._waiting = set(ids)
            self._interrupt(False)

    def loses(self, id: int) -> None:
        """Request `id` was cancelled; called from the intake thread."""
        with self._lock:
            if id in self._waiting:
                self._waiting.remove(id)
                self._interrupt(not self._waiting)
