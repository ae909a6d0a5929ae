"""`/api/v1/operator`: what an operator sees of the server, and what they can do about it.

The guard lets admins in and nobody else. Says of a request how far it is and never what is in it.
"""

import logging
from typing import Final, TypedDict

from fastapi import APIRouter, Request, Response
from prometheus_client import Histogram

from api import __version__
from api.document import JSON, Operation
from api.gateway.machine import Card, Machine, Used, resident
from api.json_reply import JsonReply
from api.keys import called
from api.log_tail import LogTail
from api.metrics import Metrics
from inference import LiveRequest, Models, PoolStatus

router = APIRouter()
_log = logging.getLogger(__name__)


class Model(TypedDict):
    """One that is loaded, or is being loaded; tokens count since its worker started. `memory` are
    bytes of the process `pid`, `vram` those of its weights on a graphics card. It leaves in
    `expires_in` seconds, if it does."""

    name: str
    state: str
    detail: str
    slots: int
    running: int
    waiting: int
    kv_used: int
    kv_total: int
    restarts: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    preemptions: int
    pid: int | None
    memory: int | None
    vram: int
    expires_in: float | None


class Asked(TypedDict):
    """A request that is not answered yet: `seconds` old, `tokens` generated so far. `tenant` is the
    name of a key."""

    id: str
    model: str
    tenant: str
    seconds: float
    tokens: int
    state: str


class Spread(TypedDict):
    """A histogram: how many took so many seconds or fewer; `count` is how many there are."""

    buckets: list[tuple[float, int]]
    count: int
    sum: float


class Logged(TypedDict):
    """`time` in Unix seconds."""

    time: float
    level: str
    logger: str
    text: str


class View(TypedDict):
    version: str
    uptime: float
    models: list[Model]
    requests: list[Asked]
    ttft: Spread
    itl: Spread
    cpu_percent: float
    vram: list[Card]
    memory: Used
    log: list[Logged]


class Outcome(TypedDict):
    cancelled: bool


OPERATIONS: Final = (
    Operation("/api/v1/operator", "What an operator sees", {200: {JSON: View}}),
    Operation(
        "/api/v1/operator/requests/{id}/cancel",
        "End a request; whether it was there",
        {200: {JSON: Outcome}},
        methods=("post",),
    ),
    Operation(
        "/api/v1/operator/models/{name}/unload",
        "Take a model out of memory: now, or when nobody uses it any more",
        {204: {}},
        (404,),
        methods=("post",),
    ),
)


@router.get("/api/v1/operator")
async def view(http: Request) -> Response:
    state = http.app.state
    models: Models = state.models
    machine: Machine = state.machine
    metrics: Metrics = state.metrics
    tail: LogTail = state.log
    seen, present = await machine.look(), models.present()
    taken = await resident(now.pid for now in present if now.pid)
    return JsonReply(
        View(
            version=__version__,
            uptime=round(machine.up, 1),
            models=[_model(now, taken) for now in present],
            requests=[*map(_asked, models.requests())],
            ttft=_spread(metrics.first_token),
            itl=_spread(metrics.inter_token),
            cpu_percent=seen.cpu_percent,
            vram=seen.vram,
            memory=seen.memory,
            log=[
                Logged(time=x.time, level=x.level, logger=x.logger, text=x.text)
                for x in tail.lines()
            ],
        )
    )


@router.post("/api/v1/operator/requests/{id}/cancel")
async def cancel(http: Request, id: str) -> Response:
    models: Models = http.app.state.models
    cancelled = models.cancel(id)
    if cancelled:
        _log.warning("%s ended the request %s.", _who(http), id)
    return JsonReply(Outcome(cancelled=cancelled))


@router.post("/api/v1/operator/models/{name:path}/unload")
async def unload(http: Request, name: str) -> Response:
    """Raises `UnknownModel`."""
    models: Models = http.app.state.models
    if await models.unload(name):
        _log.warning("%s unloads %s.", _who(http), models.name_of(name))
    return Response(status_code=204)


def _who(http: Request) -> str:
    return called(http.state.tenant) or "An operator"


def _model(now: PoolStatus, taken: dict[int, int]) -> Model:
    return Model(
        name=now.name,
        state=now.state,
        detail=now.detail,
        slots=now.slots,
        running=now.stats.running,
        waiting=now.stats.waiting,
        kv_used=now.stats.cells,
        kv_total=now.cells,
        restarts=now.restarts,
        prompt_tokens=now.stats.prompt_tokens,
        cached_tokens=now.stats.cached_tokens,
        completion_tokens=now.stats.completion_tokens,
        preemptions=now.stats.preemptions,
        pid=now.pid,
        memory=taken.get(now.pid) if now.pid else None,
        vram=now.on_gpu,
        expires_in=now.expires_in,
    )


def _asked(request: LiveRequest) -> Asked:
    return Asked(
        id=request.id,
        model=request.model,
        tenant=called(request.tenant),
        seconds=round(request.seconds, 3),
        tokens=request.tokens,
        state="running" if request.running else "waiting",
    )


def _spread(histogram: Histogram) -> Spread:
    """What is in a histogram now; its last bucket, which has no bound, is its `count`."""
    [family] = histogram.collect()
    found = Spread(buckets=[], count=0, sum=0.0)
    for sample in family.samples:
        if sample.name.endswith("_sum"):
            found["sum"] = sample.value
        elif sample.name.endswith("_count"):
            found["count"] = int(sample.value)
        elif sample.labels.get("le", "+Inf") != "+Inf":
            found["buckets"].append((float(sample.labels["le"]), int(sample.value)))
    return found
