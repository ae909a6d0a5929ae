"""The fields of Ollama's bodies, and what they mean. Options that this server has no use for, such
as `num_ctx`, are ignored: the context is what the memory plan says.
"""

import json
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from api.body import INT32, MAX_BODY, Text, WireModel, Word
from inference import Constraint, Message, Sampling, Tool, ToolCall

_STRING: Final = {"type": "string", "maxLength": 256}
_TEXT: Final = {"type": "string", "maxLength": MAX_BODY}
_ROLES: Final = ("system", "user", "assistant", "tool")


def _stops(stop: Any) -> Any:
    if isinstance(stop, str):
        return (stop,)
    return tuple(stop) if isinstance(stop, list) else stop


def _no_images(images: Any) -> None:
    if images:
        raise ValueError("Images are not supported")


def _content(content: Any) -> Any:
    return "" if content is None else content


def _said(options: Any) -> Any:
    if not isinstance(options, dict):
        return options
    return {name: value for name, value in options.items() if value is not None}


Stops = Annotated[
    tuple[Annotated[str, Field(max_length=256)], ...],
    Field(max_length=16),
    BeforeValidator(_stops),
    WithJsonSchema({"anyOf": [_STRING, {"type": "array", "items": _STRING, "maxItems": 16}]}),
]
Images = Annotated[
    None,
    BeforeValidator(_no_images),
    WithJsonSchema({"anyOf": [{"type": "null"}, {"type": "array", "maxItems": 0}]}),
]
SCHEMA_OR_JSON: Final = {
    "anyOf": [{"enum": ["", "json"]}, {"type": "object", "maxProperties": MAX_BODY}]
}


def _format(form: Any) -> Any:
    if isinstance(form, dict):
        return (Constraint("schema", "format", _json(form)),)
    if form in ("", "json"):
        return (Constraint("json", "format"),) if form else ()
    raise ValueError('Input should be "json" or a JSON schema as an object')


Format = Annotated[tuple[Constraint, ...], BeforeValidator(_format), WithJsonSchema(SCHEMA_OR_JSON)]
Think = bool | Literal["low", "medium", "high", "max"] | None


class SentFunction(WireModel):
    name: Word
    arguments: dict[str, Any] = Field(default_factory=dict)


class SentCall(WireModel):
    id: Word | None = None
    function: SentFunction


class SentMessage(WireModel):
    role: Literal["system", "user", "assistant", "tool"]
    content: Annotated[
        Text,
        BeforeValidator(_content),
        WithJsonSchema({"anyOf": [_TEXT, {"type": "null"}]}),
    ] = ""
    thinking: Text | None = None
    images: Images = None
    tool_calls: list[SentCall] | None = Field(None, max_length=128)
    tool_call_id: Word | None = None
    tool_name: Word | None = None

    def meant(self) -> Message:
        calls = tuple(
            ToolCall(call.id or "", call.function.name, _json(call.function.arguments))
            for call in self.tool_calls or ()
        )
        thoughts, answers, name = self.thinking or "", self.tool_call_id or "", self.tool_name or ""
        return Message(self.role, self.content, thoughts, calls, answers, name)


class OfferedFunction(WireModel):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
    description: Text | None = None
    parameters: dict[str, Any] | None = None


class OfferedTool(WireModel):
    type: Literal["function"] = "function"
    function: OfferedFunction

    def meant(self) -> Tool:
        function = self.function
        return Tool(function.name, function.description or "", function.parameters or {})


class Options(WireModel):
    num_predict: Annotated[int, Field(ge=-2, le=INT32)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: Stops = ()
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=INT32)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Field(ge=0.01, le=10)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None

    def meant(self) -> dict[str, Any]:
        """The fields of a `GenerationRequest`; limits under 1 and seeds under 0 are none."""
        sampling = Sampling(
            temperature=self.temperature,
            top_k=None if self.top_k is None else max(self.top_k, 0),
            top_p=self.top_p,
            min_p=self.min_p,
            repeat_penalty=self.repeat_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            seed=self.seed if self.seed is None or self.seed >= 0 else None,
        )
        limit = self.num_predict if self.num_predict and self.num_predict > 0 else None
        stop = tuple(filter(None, self.stop))
        return {"sampling": sampling, "max_tokens": limit, "stop": stop}


SentOptions = Annotated[Options, BeforeValidator(_said)]


def _json(arguments: dict[str, Any]) -> str:
    return json.dumps(arguments, ensure_ascii=False)
