"""`GET /api/v1/health`: how the server does, for programs that watch it and for the page."""

from typing import Final, TypedDict

from fastapi import APIRouter, Request, Response

from api import __version__
from api.document import JSON, Operation
from api.gateway.machine import Card, Machine, Used
from api.json_reply import JsonReply
from inference import Models, PoolStatus

router = APIRouter()


class Load(TypedDict):
    """Over all models that are loaded; `kv_*` in tokens, `cpu_percent` of the whole box."""

    running: int
    waiting: int
    slots: int
    kv_used: int
    kv_total: int
    cpu_percent: float


class Health(TypedDict):
    """`status` is "ok" where a request that names no model would be taken, else what that model is
    at; `model` is its name, `uptime` in seconds."""

    status: str
    model: str
    version: str
    uptime: float
    load: Load
    vram: list[Card]
    memory: Used


OPERATIONS: Final = (Operation("/api/v1/health", "How the server does", {200: {JSON: Health}}),)


@router.get("/api/v1/health")
async def health(http: Request) -> Response:
    models: Models = http.app.state.models
    machine: Machine = http.app.state.machine
    seen, now = await machine.look(), models.status()
    return JsonReply(
        Health(
            status="ok" if models.ready else now.state,
            model=now.name,
            version=__version__,
            uptime=round(machine.up, 1),
            load=_load(models.loaded(), seen.cpu_percent),
            vram=seen.vram,
            memory=seen.memory,
        )
    )


def _load(loaded: list[PoolStatus], cpu_percent: float) -> Load:
    return Load(
        running=sum(now.stats.running for now in loaded),
        waiting=sum(now.stats.waiting for now in loaded),
        slots=sum(now.slots for now in loaded),
        kv_used=sum(now.stats.cells for now in loaded),
        kv_total=sum(now.cells for now in loaded),
        cpu_percent=cpu_percent,
    )
