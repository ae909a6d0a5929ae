"""`GET /api/v1/models`: as under `/v1`, where the page and other clients of the gateway look."""

from dataclasses import replace
from typing import Final

from fastapi import APIRouter

from api.openai import models

router = APIRouter()
router.add_api_route("/api/v1/models", models.listing)
router.add_api_route("/api/v1/models/{name:path}", models.one)

OPERATIONS: Final = tuple(
    replace(operation, path=f"/api{operation.path}") for operation in models.OPERATIONS
)
