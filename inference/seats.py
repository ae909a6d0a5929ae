"""Which models are in memory: who waits for one, who uses it, who has to go for another.

Models are loaded one after the other, as a plan has to see what memory the one before took. No
model goes while somebody has a lease of it. Knows no names and reads no files.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from inference.catalogue import require, without_folders
from inference.deployment import Deployment
from inference.errors import (
    DeadlineExceeded,
    DoesNotFit,
    InferenceError,
    NotReady,
    Overloaded,
    ShuttingDown,
    UnknownModel,
)
from inference.model import Model
from inference.pool import DRAINING, Pool
from inference.status import PoolStatus
from inference.types import Asked, GenerationRequest, LiveRequest
from inference.wire import Stats

FOR_EVER: Final = -1.0
FAILURE_HOLDS: Final = 5.0  # seconds in which nobody tries again
_COME_AGAIN: Final = 5  # seconds
_TOO_MANY: Final = "Too many requests wait for their models; please try again later."
_log = logging.getLogger(__name__)

Waiter = asyncio.Future[InferenceError | None]


@dataclass(slots=True, eq=False)
class Seat:
    """A model, and its pool if it is loaded; `about` is what is known of it meanwhile.

    `plan` makes its deployment; one without it could not come back, and so never goes. It stays for
    `stay` seconds after the last of its `leases`, which is `usual` until somebody wishes otherwise;
    negative is for ever.
    """

    about: PoolStatus
    plan: Callable[[], Deployment] | None
    usual: float
    stay: float
    model: Model | None = None
    pool: Pool | None = None
    loading: asyncio.Task[None] | None = None
    leases: int = 0
    idle_since: float = 0.0
    leaving: asyncio.TimerHandle | None = None
    failure: str = ""
    failed_until: float = 0.0

    @property
    def idle(self) -> bool:
        """Whether it is loaded and may go."""
        if self.pool is None or self.leases or self.plan is None:
            return False
        return self.pool.status().state != "loading"

    def status(self, draining: bool) -> PoolStatus:
        if self.pool is None and draining:
            return replace(self.about, state="draining", detail=DRAINING)
        if self.pool is None:
            return replace(self.about, state="loading") if self.loading else self.about
        expires_in = None if self.stay < 0 or self.plan is None else self.stay
        if self.leaving:
            expires_in = max(0.0, self.leaving.when() - _now())
        now = self.pool.status()
        return replace(now, expires_in=expires_in, restarts=self.about.restarts + now.restarts)


class Seats:
    """All models that were ever asked for, of which at most `most` are loaded at a time. `first` is
    loaded already, or loads; `pool_of` makes the pools of others. `queue` bounds the answers that
    wait for their model."""

    def __init__(
        self,
        first: Seat,
        pool_of: Callable[[Deployment], Pool],
        *,
        queue: int,
        most: int | None = None,
    ) -> None:
        self.all = {first.about.name: first}
        self._first = first
        self._pool_of = pool_of
        self._queue = queue
        self._most = most
        self._one_by_one = asyncio.Lock()
        self._endings: set[asyncio.Task[None]] = set()  # of workers whose memory is not back yet
        self._resting: set[asyncio.Task[None]] = set()  # until those that load are loaded
        self._waiting: dict[Waiter, tuple[Seat, Asked, float]] = {}  # since when
        self.draining = False

    def taken(self) -> list[Seat]:
        """Those whose model is loaded."""
        return [seat for seat in self.all.values() if seat.pool]

    def status(self, seat: Seat) -> PoolStatus:
        return seat.status(self.draining)

    def welcomes(self, seat: Seat) -> bool:
        """Whether a request for this model would be taken now."""
        if seat.pool:
            return seat.pool.ready
        return not self.draining and seat.failed_until <= _now()

    def drain(self) -> None:
        """Take no more requests; those that wait for their model have been taken."""
        self.draining = True
        for pool in self._pools():
            pool.drain()

    async def take(self, seat: Seat, request: Asked) -> tuple[Pool, float]:
        """The pool of a model, which stays until `leave`, and the seconds that took."""
        if self.draining:
            raise ShuttingDown(DRAINING)
        seat.leases += 1
        if request.keep_alive is not None:
            seat.stay = request.keep_alive
        if seat.leaving:
            seat.leaving.cancel()
            seat.leaving = None
        if seat.pool:
            return seat.pool, 0.0
        began = _now()
        try:
            return await self._loaded(seat, request), _now() - began
        except BaseException:
            self.leave(seat)
            raise

    def leave(self, seat: Seat) -> None:
        """A request has ended."""
        seat.leases -= 1
        seat.idle_since = _now()
        self.rest(seat)

    def unload(self, seat: Seat) -> asyncio.Task[None]:
        """End the worker of an idle model. From now on who asks for it has to wait."""
        assert seat.pool
        now, pool, seat.pool = seat.status(self.draining), seat.pool, None
        if seat.leaving:
            seat.leaving.cancel()
        seat.leaving, seat.stay = None, seat.usual
        seat.model, seat.about = pool.model, replace(gone(now), restarts=now.restarts)
        _log.info("%s has left.", seat.about.name)
        ending = asyncio.create_task(pool.close())
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        return ending

    def live(self) -> list[LiveRequest]:
        """All requests that are not answered yet; last those that wait for their model."""
        now, found = _now(), [one for pool in self._pools() for one in pool.live()]
        for seat, asked, since in self._waiting.values():
            found.append(LiveRequest(asked.id, seat.about.name, asked.tenant, now - since))
        return found

    def end(self, which: Callable[[Asked], bool], why: InferenceError) -> int:
        """End the requests of which `which` is true, wherever they are; how many there were."""
        running = sum(pool.end(which, why) for pool in self._pools())
        waiting = [waiter for waiter, (_, asked, _) in self._waiting.items() if which(asked)]
        return running + sum(_tell(waiter, why) for waiter in waiting)

    async def close(self, patience: float) -> None:
        self.draining = True
        for waiter in self._waiting:
            _tell(waiter, ShuttingDown(DRAINING))
        loads = [seat.loading for seat in self.all.values() if seat.loading]
        for task in (*loads, *self._resting):
            task.cancel()
        ends = [pool.close(patience) for pool in self._pools()]
        await asyncio.gather(*loads, *ends, *self._endings, return_exceptions=True)

    def _pools(self) -> list[Pool]:
        return [seat.pool for seat in self.all.values() if seat.pool]

    async def _loaded(self, seat: Seat, request: Asked) -> Pool:
        """Wait for the model, with all others who do."""
        self._admit(seat, request)
        if seat.loading is None:
            seat.loading = asyncio.create_task(self._load(seat))
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = seat, request, _now()
        try:
            async with asyncio.timeout(request.deadline):
                error = await waiter
        except TimeoutError:
            passed = f"The deadline of {request.deadline:.3g} seconds has passed"
            raise DeadlineExceeded(f"{passed} while the model was loading.") from None
        finally:
            del self._waiting[waiter]
        if error:
            raise error
        assert seat.pool
        return seat.pool

    def _admit(self, seat: Seat, request: Asked) -> None:
        left = seat.failed_until - _now()
        if left > 0:
            raise NotReady(seat.failure, retry_after=math.ceil(left))
        waiting = sum(_answers(asked) for _, asked, _ in self._waiting.values())
        if waiting and waiting + _answers(request) > self._queue:  # one may always wait
            raise Overloaded(_TOO_MANY, retry_after=_COME_AGAIN)

    async def _load(self, seat: Seat) -> None:
        """Load a model, and tell those who wait how it went."""
        error: InferenceError | None = None
        try:
            seat.pool = await self._new_pool(seat)
        except UnknownModel as unknown:
            error = unknown
        except InferenceError as known:
            error = _failed(seat, known)
        except Exception:
            _log.exception("%s could not be loaded.", seat.about.name)
            error = _failed(seat, NotReady("the server's log says why"))
        seat.loading = None
        for waiter, (wanted, _, _) in self._waiting.items():
            if wanted is seat:
                _tell(waiter, error)
        self.rest(seat)

    async def _new_pool(self, seat: Seat) -> Pool | None:
        """None if nobody waits for it any more when its turn comes."""
        if seat.model:
            await asyncio.to_thread(require, seat.model)  # what is not here waits for nobody
        async with self._one_by_one:
            if not seat.leases:
                return None
            pool = self._pool_of(await self._deployment(seat))
            try:
                await pool.start()
                await pool.until_ready()
            except BaseException:
                await pool.close(patience=0)
                raise
            _log.info("%s is loaded.", seat.about.name)
            return pool

    async def _deployment(self, seat: Seat) -> Deployment:
        """A plan that fits; who was idle for longest has to go until there is one."""
        assert seat.plan
        if self._first.pool:
            with contextlib.suppress(NotReady):
                await self._first.pool.until_ready()
        while True:
            if self._endings:
                await asyncio.wait(self._endings)
            if self._most and len(self.taken()) >= self._most:
                self._make_room(NotReady(f"only {self._most} models may be loaded at a time"))
                continue
            try:
                return await asyncio.to_thread(seat.plan)
            except DoesNotFit as error:
                self._make_room(error)

    def _make_room(self, why: InferenceError) -> None:
        """Raises NotReady where nobody may go, and `why` where nobody is there."""
        taken = self.taken()
        if not taken:
            raise why
        idle = [seat for seat in taken if seat.idle]
        if not idle:
            names = " and ".join(seat.about.name for seat in taken)
            raise NotReady(f"there is no room beside {names}, in use; please try again later")
        self.unload(min(idle, key=lambda seat: seat.idle_since))

    def rest(self, seat: Seat) -> None:
        """If nobody uses it any more, it goes when its time is over, which begins once it is
        loaded."""
        if seat.leases or seat.pool is None or seat.plan is None or seat.stay < 0:
            return
        if not seat.idle:
            waiting = asyncio.create_task(self._rest_once_loaded(seat, seat.pool))
            self._resting.add(waiting)
            waiting.add_done_callback(self._resting.discard)
            return
        if seat.leaving:
            seat.leaving.cancel()
        loop = asyncio.get_running_loop()
        seat.leaving = loop.call_later(seat.stay, self._leave, seat)

    async def _rest_once_loaded(self, seat: Seat, pool: Pool) -> None:
        with contextlib.suppress(NotReady):
            await pool.until_ready()
        if seat.idle and seat.pool is pool:
            self.rest(seat)

    def _leave(self, seat: Seat) -> None:
        if seat.idle:
            self.unload(seat)


def gone(now: PoolStatus) -> PoolStatus:
    """What is still true of a model without its worker."""
    return replace(
        now,
        state="unloaded",
        detail="",
        info=None,
        cells=0,
        restarts=0,
        stats=Stats(),
        on_gpu=0,
        expires_in=None,
    )


def _failed(seat: Seat, error: InferenceError) -> NotReady:
    """What those are told who wait for a model; who asks again soon is told the same."""
    _log.error("%s could not be loaded: %s", seat.about.name, error.message)
    reason = error.message.removeprefix(f"{seat.about.name}: ")
    if seat.model:
        reason = without_folders(reason, seat.model)
    seat.failure = f"{seat.about.name} could not be loaded: {reason}"
    seat.failed_until = _now() + FAILURE_HOLDS
    return NotReady(seat.failure, retry_after=math.ceil(FAILURE_HOLDS))


def _answers(request: Asked) -> int:
    return request.n if isinstance(request, GenerationRequest) else 1


def _tell(waiter: Waiter, outcome: InferenceError | None) -> bool:
    """Whether it was not told before."""
    if waiter.done():
        return False
    waiter.set_result(outcome)
    return True


def _now() -> float:
    return asyncio.get_running_loop().time()
