"""Where a turn is to be, from the moment on when it is asked for: it can be stopped at any time."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from api.errors import TurnStopped
from api.gateway.turn import Turn


@dataclass(slots=True, eq=False)
class Place:
    """Of one turn of a tenant, once there is one."""

    tenant: str
    turn: Turn | None = None
    _opening: asyncio.Task[Any] | None = None
    _stopped: bool = False

    @contextmanager
    def opening(self) -> Iterator[None]:
        """The task at hand is about to have the turn. Raises TurnStopped if it is stopped first."""
        if self._stopped:
            raise TurnStopped
        self._opening = task = asyncio.current_task()
        assert task
        try:
            yield
        except asyncio.CancelledError:
            if not self._stopped:
                raise
            task.uncancel()
            raise TurnStopped from None
        finally:
            self._opening = None

    async def stop(self) -> None:
        """End the turn, even if it only waits; returns when one that runs has ended."""
        self._stopped = True
        if self.turn:
            await self.turn.stop()
        elif self._opening:
            self._opening.cancel()
