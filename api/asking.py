"""Answers a question about a prompt that needs the worker and no generation.

Like `api.streaming` it is counted, kept to its tenant, and given up when its client hangs up.
Knows no dialect.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

from fastapi import Request, Response

from api.body import read_object
from api.json_reply import JsonReply
from api.metrics import Meter
from api.streaming import meant, metered, unless_gone
from inference import GenerationRequest, Models

Understand = Callable[[dict[str, Any]], GenerationRequest]
Work = Callable[[Models, GenerationRequest], Awaitable[object]]


async def ask(http: Request, endpoint: str, understand: Understand, work: Work) -> Response:
    """What `work` makes of the prompt of a body that is understood, as JSON."""
    models: Models = http.app.state.models

    async def reply(meter: Meter) -> Response:
        request = understand(await read_object(http, meter.hold))
        request = meant(http, replace(request, id=f"ask-{uuid4().hex}"))
        told = await unless_gone(http, work(models, request))
        meter.end(200)
        return JsonReply(told)

    return await metered(http, endpoint, reply)
