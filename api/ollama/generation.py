"""`POST /api/chat` and `/api/generate`: body -> `GenerationRequest`.

Both are pure but for their routes. Without a message or a prompt nothing is generated: such a
request asks for the model to be loaded, or to go where `keep_alive` is 0.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final
from uuid import uuid4

from fastapi import APIRouter, Request, Response
from pydantic import Field

from api.body import Text, WireModel, Word, read
from api.document import JSON, Operation, body_schema
from api.fields import EFFORTS, Alternatives
from api.json_reply import JsonReply
from api.keep_alive import KeepAlive
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
from api.streaming import Call, Errand, Meant, answer
from inference import GenerationRequest, Message, Models

# Fields we know and do not do, with the values that ask for nothing.
REFUSED: Final[Mapping[str, tuple[Any, ...]]] = {
    "suffix": ("",),
    "template": ("",),
    "context": ([],),
}

router = APIRouter()


@router.post("/api/chat")
async def chat(http: Request) -> Response:
    return await answer(http, "ollama_chat", understand_chat)


@router.post("/api/generate")
async def generate(http: Request) -> Response:
    return await answer(http, "ollama_generate", understand_generate)


class GenerateBase(WireModel):
    """The fields of both endpoints."""

    model: Word | None = None
    stream: bool = True
    options: Options = Options()
    think: Think = None
    format: Format = ()
    keep_alive: KeepAlive | None = None
    logprobs: bool = False
    top_logprobs: Alternatives = 0

    def about(self) -> dict[str, Any]:
        """The fields of a `GenerationRequest` that say nothing of an answer."""
        return {"id": uuid4().hex, "model": self.model or None, "keep_alive": self.keep_alive}

    def shared(self) -> dict[str, Any]:
        """The fields of a `GenerationRequest` that both endpoints say alike."""
        return {
            **self.about(),
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


def understand_chat(raw: dict[str, Any], served: str) -> Call | Errand:
    """Raises `BadRequest` naming the field that is wrong."""
    body = read(ChatAsked, raw, REFUSED)
    model = body.model or served
    if not body.messages:
        return partial(_come_or_go, body, model, ChatLine)
    request = GenerationRequest(
        messages=tuple(message.meant() for message in body.messages),
        tools=tuple(tool.meant() for tool in body.tools),
        continued=body.begins(),
        **body.shared(),
    )
    return Call((request,), Encoder(model, ChatLine), body.stream)


def understand_generate(raw: dict[str, Any], served: str) -> Call | Errand:
    """Raises `BadRequest` naming the field that is wrong."""
    body = read(GenerateAsked, raw, REFUSED)
    model = body.model or served
    if not body.prompt:
        return partial(_come_or_go, body, model, GenerateLine)
    if body.raw:
        asked: dict[str, Any] = {"prompt": body.prompt}
    else:
        system = (Message("system", body.system),) if body.system else ()
        asked = {"messages": (*system, Message("user", body.prompt))}
    request = GenerationRequest(**asked, **body.shared())
    return Call((request,), Encoder(model, GenerateLine), body.stream)


async def _come_or_go(
    body: GenerateBase,
    model: str,
    kind: type[ChatLine] | type[GenerateLine],
    models: Models,
    meant: Meant,
) -> Response:
    """Answers once the model is there; or gone, unless somebody uses it."""
    request = meant(GenerationRequest(**body.about()))
    if body.keep_alive == 0:
        await models.unload(request.model)
        line = loaded(model, kind, "unload")
    else:
        seconds = await models.load(request)
        line = loaded(model, kind, "load", seconds)
    return JsonReply(line)


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
