"""`GET /v1/models`: the one model that is served, by its name and its aliases."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from inference import Pool, PoolStatus, UnknownModel

router = APIRouter()


@router.get("/v1/models")
async def listing(http: Request) -> Response:
    pool: Pool = http.app.state.pool
    return JSONResponse({"object": "list", "data": [_card(pool.status())]})


@router.get("/v1/models/{name:path}")
async def one(http: Request, name: str) -> Response:
    """The model under its name or an alias; raises `UnknownModel`."""
    pool: Pool = http.app.state.pool
    now = pool.status()
    if name not in (now.name, "default", *now.aliases):
        raise UnknownModel(f"No model of that name is served; this is {now.name}.", "model")
    return JSONResponse(_card(now))


def _card(now: PoolStatus) -> dict[str, Any]:
    card = {"id": now.name, "object": "model", "created": 0, "owned_by": "onebox"}
    card["aliases"] = list(now.aliases)
    if now.info is not None:
        card["max_model_len"] = card["context_length"] = now.info.context
        card["meta"] = {
            "architecture": now.info.architecture,
            "n_vocab": now.info.vocabulary,
            "n_params": now.info.parameters,
            "size": now.info.size,
        }
    return card
