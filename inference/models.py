"""Many models behind the face of one pool: each request goes to the model that it names.

Finds what a name means, asks `Seats` for its pool, and tells what there is. Knows no HTTP and no
frames.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Container
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Final, Generic, TypeVar

from inference.catalogue import Catalogue, require
from inference.config import Config
from inference.deployment import Deployment, prepare
from inference.errors import Cancelled, InferenceError, Revoked, UnknownModel
from inference.pool import Pool
from inference.pulls import PullProgress, Pulls
from inference.seats import FOR_EVER, Seat, Seats, gone
from inference.status import PoolStatus, unloaded
from inference.types import (
    Asked,
    EmbeddingRequest,
    Embeddings,
    Finished,
    GenerationEvent,
    GenerationRequest,
    LiveRequest,
    ModelInfo,
)

Request = TypeVar("Request", GenerationRequest, EmbeddingRequest)
_CANCELLED: Final = "An operator ended this request."
_REVOKED: Final = "The API key of this request is no longer valid."


class Models:
    """`first`, which is there from the start and stays, and what `config` lists beside it.

    `again` plans `first` once more, should it have had to go; without that it never goes. `queue`
    bounds the answers that wait for models, and those of each model that wait for a slot. With
    `tuned`, models run with the settings that `onebox tune` found; `in_process` is as for `Pool`.
    """

    def __init__(
        self,
        first: Pool,
        config: Config | None = None,
        again: Callable[[], Deployment] | None = None,
        *,
        tuned: bool = True,
        queue: int = 256,
        in_process: bool = False,
    ) -> None:
        now = first.status()
        self._config = config
        self._tuned = tuned
        self._catalogue = Catalogue(config, now.name, now.aliases)
        self._first = Seat(gone(now), again, usual=FOR_EVER, stay=FOR_EVER, pool=first)
        pool_of = partial(Pool, queue=queue, in_process=in_process)
        most = config.server.max_models if config else None
        self._seats = Seats(self._first, pool_of, queue=queue, most=most)
        self._pulls = Pulls()

    async def start(self) -> None:
        """Begin to load the first model; `until_ready` waits for the end of it."""
        if self._first.pool:
            await self._first.pool.start()

    async def until_ready(self) -> None:
        """Wait for the first model. Raises NotReady with the reason when it cannot be loaded."""
        if self._first.pool:
            await self._first.pool.until_ready()

    def drain(self) -> None:
        """Take no more requests; those that run go on, and those that wait for their model."""
        self._seats.drain()

    async def close(self, patience: float = 10.0) -> None:
        """End all workers, by force after `patience` seconds; requests that still run, and
        downloads, end with an error."""
        self._pulls.close()
        await self._seats.close(patience)

    def expel(self, tenants: Container[str]) -> None:
        """End the requests of tenants that are none of these with `Revoked`."""

        def strange(asked: Asked) -> bool:
            return bool(asked.tenant) and asked.tenant not in tenants

        self._seats.end(strange, Revoked(_REVOKED))

    def requests(self) -> list[LiveRequest]:
        """All requests that are not answered yet, also those that wait for their model."""
        return self._seats.live()

    def cancel(self, id: str) -> bool:
        """End the request of this id with `Cancelled`, wherever it is; whether there was one."""
        return self._seats.end(lambda asked: asked.id == id, Cancelled(_CANCELLED)) > 0

    @property
    def ready(self) -> bool:
        """Whether a request that names no model would be taken."""
        return self._seats.welcomes(self._first)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """As `Pool.generate`, by the model that the request names.

        Raises UnknownModel as well where that is not on this machine, and NotReady where it cannot
        be loaded.
        """
        async with (
            self._lease(request) as (pool, asked, waited),
            aclosing(pool.generate(asked)) as events,
        ):
            async for event in events:
                yield _after(waited, event) if waited else event

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """As `Pool.embed`. Raises as `generate`, too."""
        async with self._lease(request) as (pool, asked, waited):
            return replace(await pool.embed(asked), load=waited)

    async def count(self, request: GenerationRequest) -> int:
        """As `Pool.count`. Raises as `generate`, too."""
        async with self._lease(request) as (pool, asked, _):
            return await pool.count(asked)

    async def tokenize(self, request: GenerationRequest) -> list[int]:
        """As `Pool.tokenize`. Raises as `generate`, too."""
        async with self._lease(request) as (pool, asked, _):
            return await pool.tokenize(asked)

    async def detokenize(self, request: GenerationRequest) -> str:
        """As `Pool.detokenize`. Raises as `generate`, too."""
        async with self._lease(request) as (pool, asked, _):
            return await pool.detokenize(asked)

    async def load(self, request: GenerationRequest) -> float:
        """Load the model that a request names, if it is not; the seconds that took. Raises as
        `generate`."""
        async with self._lease(request) as (pool, _, waited):
            await pool.until_ready()
            return waited

    async def unload(self, name: str | None) -> bool:
        """End the worker of a model: now, or when nobody uses it any more; whether there is one.
        Raises UnknownModel."""
        seat = self._seat(name)
        if not (seat.pool or seat.loading):
            return False
        seat.stay = 0.0
        if seat.idle:
            await asyncio.wait({self._seats.unload(seat)})
        else:
            self._seats.rest(seat)
        return True

    def pull(self, name: str | None) -> AsyncGenerator[PullProgress, None]:
        """Bring the weights of a listed model here, and verify them.

        Raises UnknownModel at once, later what `Pulls.watch` does.
        """
        model = self._catalogue.find(name)
        return self._pulls.watch(model.source) if model else _nothing()

    def name_of(self, wanted: object) -> str:
        """The name of the model that a request means, or of the first if it means none."""
        try:
            return self._seat(wanted if isinstance(wanted, str) else None).about.name
        except UnknownModel:
            return self._first.about.name

    def status(self, name: str | None = None) -> PoolStatus:
        """How a model does. Raises UnknownModel."""
        return self._seats.status(self._seat(name))

    def loaded(self) -> list[PoolStatus]:
        return [self._seats.status(seat) for seat in self._seats.taken()]

    def present(self) -> list[PoolStatus]:
        """Those that are loaded, and those that load."""
        there = [seat for seat in self._seats.all.values() if seat.pool or seat.loading]
        return [self._seats.status(seat) for seat in there]

    async def listing(self) -> list[PoolStatus]:
        """The first model, then all others that are on this machine."""
        here = await asyncio.to_thread(self._catalogue.here)
        listed = {self._first.about.name: self.status()}
        for model, size in here:
            seat = self._seats.all.get(model.name)
            now = self._seats.status(seat) if seat else unloaded(model)
            listed[model.name] = replace(now, size=size)
        for now in self.loaded():
            listed.setdefault(now.name, now)
        return [*listed.values()]

    async def installed(self, name: str | None) -> PoolStatus:
        """How a model does. Raises UnknownModel for one that is not on this machine."""
        seat = self._seat(name)
        if seat.model and not seat.pool:
            await asyncio.to_thread(require, seat.model)
        return self._seats.status(seat)

    async def described(self, name: str | None) -> PoolStatus:
        """As `installed`; before a model is loaded its `info` is what its file says, and nobody
        knows yet what context it will have."""
        seat, now = self._seat(name), await self.installed(name)
        if now.info or seat.model is None:
            return now
        try:
            header = await asyncio.to_thread(self._catalogue.look, seat.model)
        except InferenceError:
            return now
        info = ModelInfo(
            name=now.name,
            architecture=header.architecture,
            context=header.context,
            slots=0,
            vocabulary=header.vocabulary,
            parameters=header.parameters,
            size=header.size,
            dimensions=header.embedding if header.pooling else 0,
        )
        embeds = bool(header.pooling)
        return replace(now, info=info, quant=header.quant, size=header.size, embeds=embeds)

    def _seat(self, name: str | None) -> Seat:
        """Raises UnknownModel for what is not listed."""
        model = self._catalogue.find(name)
        if model is None or self._config is None:
            return self._first
        if model.name not in self._seats.all:
            plan = partial(prepare, self._config, model.name, tuned=self._tuned)
            stay = self._config.server.keep_alive
            self._seats.all[model.name] = Seat(unloaded(model), plan, stay, stay, model)
        return self._seats.all[model.name]

    def _lease(self, request: Request) -> "Lease[Request]":
        return Lease(self._seats, self._seat(request.model), request)


class Lease(Generic[Request]):
    """The use of a model for one request: its pool, what that is asked, and the seconds that were
    waited for it.

    To enter it loads the model if it has to. That raises ShuttingDown, Overloaded,
    DeadlineExceeded, Cancelled, Revoked, UnknownModel where the weights are not here, and NotReady
    where they cannot be loaded.
    """

    def __init__(self, seats: Seats, seat: Seat, request: Request) -> None:
        self._seats = seats
        self._seat = seat
        self._request: Request = request

    async def __aenter__(self) -> tuple[Pool, Request, float]:
        request = self._request
        pool, waited = await self._seats.take(self._seat, request)
        left = request.deadline and max(1e-3, request.deadline - waited)
        return pool, replace(request, model=None, deadline=left, waited=waited), waited

    async def __aexit__(self, *_: object) -> None:
        self._seats.leave(self._seat)


def _after(waited: float, event: GenerationEvent) -> GenerationEvent:
    if isinstance(event, Finished):
        return replace(event, timings=replace(event.timings, load=waited))
    return event


async def _nothing() -> AsyncGenerator[PullProgress, None]:
    """The steps of a pull of what is here."""
    return
    yield PullProgress()
