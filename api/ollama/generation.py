"""`POST /api/chat` and `/api/generate`: body -> `GenerationRequest`.

Both are pure but for their routes. Without a message or a prompt nothing is generated: such a
request asks for the model to be loaded, which it is. `keep_alive` is ignored, as one model stays.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final
from uuid import uuid4

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import Field

from api.body import Text, WireModel, Word, read
from api.document import JSON, Operation, body_schema
from api.fields import EFFORTS, Alternatives
from api.ollama.encoder import ChatLine, Encoder, GenerateLine, loaded
from api.ollama.errors import LINES
from api.ollama.fields import (
    Format,
    Images,
    OfferedTool,
    Options,
    SentMessage,
    Think,
)
from api.ollama.models import known
from api.streaming import Call, answer
from inference import GenerationRequest, Message, Pool, PoolStatus

# Fields we know and do not do, with the values that ask for nothing.
REFUSED: Final[Mapping[str, tuple[Any, ...]]] = {
    "suffix": ("",),
    "template": ("",),
    "context": ([],),
}
_NOW_GONE: Final = (0, "0", "0s")

router = APIRouter()


@router.post("/api/chat")
async def chat(http: Request) -> Response:
    pool: Pool = http.app.state.pool
    return await answer(http, "ollama_chat", partial(understand_chat, pool.status()))


@router.post("/api/generate")
async def generate(http: Request) -> Response:
    pool: Pool = http.app.state.pool
    return await answer(http, "ollama_generate", partial(understand_generate, pool.status()))


class GenerateBase(WireModel):
    """The fields of both endpoints."""

    model: Word | None = None
    stream: bool = True
    options: Options = Options()
    think: Think = None
    format: Format = ()
    logprobs: bool = False
    top_logprobs: Alternatives = 0

    def shared(self, model: str) -> dict[str, Any]:
        """The fields of a `GenerationRequest` that both endpoints say alike."""
        return {
            "id": uuid4().hex,
            "model": model,
            "thinking": None if self.think is None else bool(self.think),
            "thinking_budget": EFFORTS.get(self.think) if isinstance(self.think, str) else None,
            "constraints": self.format,
            "logprobs": self.top_logprobs if self.logprobs else None,
            **self.options.meant(),
        }


class ChatAsked(GenerateBase):
    messages: list[SentMessage] = Field([], max_length=2048)
    tools: list[OfferedTool] = Field([], max_length=128)

    def begins(self) -> bool:
        """Whether the last message is the beginning of the answer."""
        last = self.messages[-1]
        return last.role == "assistant" and not (last.tool_calls or self.format)


class GenerateAsked(GenerateBase):
    prompt: Text = ""
    system: Text = ""
    raw: bool = False
    images: Images = None


def understand_chat(now: PoolStatus, raw: dict[str, Any], _: str) -> Call | Response:
    """Raises `BadRequest` naming the field that is wrong, and `UnknownModel`."""
    body = read(ChatAsked, raw, REFUSED)
    model = known(body.model, now)
    if not body.messages:
        return _loaded(raw, body.model or model, ChatLine)
    request = GenerationRequest(
        messages=tuple(message.meant() for message in body.messages),
        tools=tuple(tool.meant() for tool in body.tools),
        continued=body.begins(),
        **body.shared(model),
    )
    return Call((request,), Encoder(body.model or model, ChatLine), body.stream)


def understand_generate(now: PoolStatus, raw: dict[str, Any], _: str) -> Call | Response:
    """Raises `BadRequest` naming the field that is wrong, and `UnknownModel`."""
    body = read(GenerateAsked, raw, REFUSED)
    model = known(body.model, now)
    if not body.prompt:
        return _loaded(raw, body.model or model, GenerateLine)
    if body.raw:
        asked: dict[str, Any] = {"prompt": body.prompt}
    else:
        system = (Message("system", body.system),) if body.system else ()
        asked = {"messages": (*system, Message("user", body.prompt))}
    request = GenerationRequest(**asked, **body.shared(model))
    return Call((request,), Encoder(body.model or model, GenerateLine), body.stream)


def _loaded(
    raw: Mapping[str, Any], model: str, kind: type[ChatLine] | type[GenerateLine]
) -> Response:
    line = loaded(model, kind, "unload" if raw.get("keep_alive") in _NOW_GONE else "load")
    return Response(msgspec.json.encode(line), media_type=JSON)


def _operation(path: str, summary: str, body: type[GenerateBase], line: type) -> Operation:
    return Operation(
        path,
        summary,
        {200: {JSON: line, LINES: line}},
        (400, 404, 408, 413, 429, 500, 503),
        partial(body_schema, body, REFUSED),
        methods=("post",),
    )


OPERATIONS: Final = (
    _operation(
        "/api/chat",
        "A conversation continued by the model, as Ollama does it",
        ChatAsked,
        ChatLine,
    ),
    _operation(
        "/api/generate",
        "A prompt answered by the model, as Ollama does it",
        GenerateAsked,
        GenerateLine,
    ),
)
