"""Downloads that clients ask for: each on a thread, watched by all who want the same file.

One that nobody watches any more ends, and what has arrived is kept: the next goes on there. Knows
neither names nor HTTP.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from inference.errors import DownloadError, InferenceError, ShuttingDown
from inference.hub import pull
from inference.model import Source

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How many of `size` bytes are here. `sha256` is what they must have; until the hub has said
    so it is "". Then nothing is known, or nothing is missing and the file is only verified."""

    sha256: str = ""
    done: int = 0
    size: int = 0


class Pulls:
    """All downloads that run, of which no two are of the same file."""

    def __init__(self) -> None:
        self._running: dict[Source, _Pull] = {}

    async def watch(self, source: Source) -> AsyncGenerator[PullProgress, None]:
        """Pull a file, or look on if somebody does; ends when it is here and verified.

        A slow reader misses steps. Raises what `hub.pull` does, and ShuttingDown.
        """
        watched = self._running.get(source) or self._begin(source)
        watched.watchers += 1
        try:
            while not watched.ended:
                changed = watched.changed
                yield watched.now
                if not watched.ended:
                    await changed.wait()
            if watched.error:
                raise watched.error
        finally:
            watched.watchers -= 1

    def close(self) -> None:
        """End all."""
        for running in [*self._running.values()]:
            running.end(ShuttingDown("The server is shutting down; what has arrived is kept."))

    def _begin(self, source: Source) -> "_Pull":
        begun = self._running[source] = _Pull(source, partial(self._running.pop, source, None))
        # A process that ends does not wait for a daemon, and this one may wait long for a hub.
        threading.Thread(target=begun.run, daemon=True).start()
        return begun


class _Pull:
    """One download. `changed` is set, and replaced, at every step. Its thread looks at `watchers`
    and has `_sha256` for itself."""

    def __init__(self, source: Source, forget: Callable[[], object]) -> None:
        self._source = source
        self._forget = forget
        self._loop = asyncio.get_running_loop()
        self._sha256 = ""
        self.watchers = 0
        self.now = PullProgress()
        self.ended = False
        self.error: InferenceError | None = None
        self.changed = asyncio.Event()

    def run(self) -> None:
        """On its thread, from start to end."""
        error: InferenceError | None = None
        try:
            pull(self._source, self._progress, self._announced)
        except InferenceError as known:
            error = known
        except Exception:
            _log.exception("A download failed.")
            error = DownloadError("The download failed; the server's log says why.")
        self._tell(self.end, error)

    def end(self, error: InferenceError | None) -> None:
        if not self.ended:
            self.ended, self.error = True, error
            self._forget()
            self._changed()

    def _announced(self, sha256: str, size: int) -> None:
        self._sha256 = sha256
        self._tell(self._note, PullProgress(sha256, 0, size))

    def _progress(self, done: int, size: int) -> None:
        if not self.watchers:
            raise DownloadError("Nobody waits for this download any more; what is here is kept.")
        self._tell(self._note, PullProgress(self._sha256, done, size))

    def _tell(self, what: Callable[[Any], None], value: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server has ended
            self._loop.call_soon_threadsafe(what, value)

    def _note(self, now: PullProgress) -> None:
        self.now = now
        self._changed()

    def _changed(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()
