"""The fields of Ollama's bodies, and what they mean. Options that this server has no use for, such
as `num_ctx`, are ignored: the context is what the memory plan says.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from api.body import INT32, MAX_BODY, Text, WireModel, Word, json_text
from api.fields import Content, FullSampling, Stops, ToolName
from inference import Constraint, Message, Tool, ToolCall


def _no_images(images: Any) -> None:
    if images:
        raise ValueError("Images are not supported")


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
        return (Constraint("schema", "format", json_text(form)),)
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
    content: Content = ""
    thinking: Text | None = None
    images: Images = None
    tool_calls: list[SentCall] | None = Field(None, max_length=128)
    tool_call_id: Word | None = None
    tool_name: Word | None = None

    def meant(self) -> Message:
        calls = tuple(
            ToolCall(call.id or "", call.function.name, json_text(call.function.arguments))
            for call in self.tool_calls or ()
        )
        thoughts, answers, name = self.thinking or "", self.tool_call_id or "", self.tool_name or ""
        return Message(self.role, self.content, thoughts, calls, answers, name)


class OfferedFunction(WireModel):
    name: ToolName
    description: Text | None = None
    parameters: dict[str, Any] | None = None


class OfferedTool(WireModel):
    type: Literal["function"] = "function"
    function: OfferedFunction

    def meant(self) -> Tool:
        function = self.function
        return Tool(function.name, function.description or "", function.parameters or {})


class Options(FullSampling):
    num_predict: Annotated[int, Field(ge=-2, le=INT32)] | None = None
    stop: Stops = ()
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None  # no bound in Ollama

    def meant(self) -> dict[str, Any]:
        """The fields of a `GenerationRequest`; limits under 1 are none."""
        limit = self.num_predict if self.num_predict and self.num_predict > 0 else None
        return {"sampling": self.sampling(), "max_tokens": limit, "stop": self.stop}
