"""`POST /api/v1/chat/completions`: OpenAI's chat, which may go on with a stored session."""

from dataclasses import replace
from functools import partial
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from api.gateway.events import Compacted, Compacting
from api.gateway.turns import Turns
from api.gateway.wish import REFUSED, TurnBody, Wish, read, wish_of
from api.openai import chat
from api.openai.common import generation, schema
from api.openai.encoder import Choice, ChunkChoice, Encoder
from api.openai.replies import Head, Reply
from api.streaming import Call, Events, answer

router = APIRouter()

OPERATIONS: Final = (
    generation(
        "/api/v1/chat/completions",
        "A conversation, or a stored one under its session_id, continued by the model",
        partial(schema, TurnBody, REFUSED),
        Reply[Choice],
        Reply[ChunkChoice],
        refuses=(409,),
    ),
)


@router.post("/api/v1/chat/completions")
async def create(http: Request) -> Response:
    return await answer(http, "gateway", partial(_understand, http))


def _understand(http: Request, raw: dict[str, Any], served: str) -> Call:
    body = read(raw)
    head = Head.new("chatcmpl-", served)
    wish = wish_of(body, head.id, http.state.concurrent)
    if wish is None:
        return chat.call_of(body, head)
    head = replace(head, session=wish.session, message=wish.answer)
    call = chat.call_of(body, head)
    assert isinstance(call.encoder, Encoder)
    return replace(call, told=partial(_events, http, wish, call.encoder))


async def _events(http: Request, wish: Wish, encoder: Encoder) -> Events:
    """The events of a turn, which goes on when nobody reads them any more. Only now it is known
    which model the session has."""
    turns: Turns = http.app.state.turns
    turn = await turns.begin(wish, http.state.tenant, _nobody)
    encoder.head = replace(encoder.head, model=turn.asked.model)
    async for event in turn.follow():
        yield event


async def _nobody(_: Compacting | Compacted) -> None:
    """The shape of OpenAI's answers has no place for it; the session tells."""
