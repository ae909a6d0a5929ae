"""What a request for a response says of its tools, of its thoughts and of the form of its text."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from api.body import MAX_BODY, Text, WireModel, Word, json_text
from api.fields import TOOL_NAME, ToolName
from api.openai.constraints import ALLOWING, MAX_TOOLS, MODES, Calling, calling_of, some_of
from api.openai.functions import FunctionBody
from api.openai.responses.items import flat_name
from api.openai.thinking import ReasoningBody
from inference import Constraint, Tool

# Codex sends some of these in every request: a model that is not shown them calls none.
_LEFT_OUT: Final = (
    "custom",
    "image_generation",
    "local_shell",
    "tool_search",
    "web_search",
    "web_search_2025_08_26",
    "web_search_preview",
    "web_search_preview_2025_03_11",
)


def _known(tool: Any) -> Any:
    if isinstance(tool, dict) and tool.get("type") not in ("function", "namespace", *_LEFT_OUT):
        raise ValueError("Only functions are supported, no tools that the server would run")
    return tool


class FunctionTool(FunctionBody):
    type: Literal["function"]

    def written(self) -> dict[str, Any]:
        """As an answer repeats it."""
        return {"parameters": None, "strict": None, **self._written}

    def tool_in(self, namespace: str) -> Tool:
        """As the model is shown it: like a function of a chat."""
        name = flat_name(namespace, self.name)
        shown = {key: value for key, value in self._written.items() if key != "type"}
        return replace(self.tool(), name=name, written={**shown, "name": name})


class LeftOut(WireModel):
    """A tool that is not shown to the model."""

    type: Literal[_LEFT_OUT]  # type: ignore[valid-type]


Member = Annotated[
    Annotated[FunctionTool | LeftOut, Field(discriminator="type")], BeforeValidator(_known)
]


class Namespace(WireModel):
    """Tools under a common name; the model sees them under both."""

    type: Literal["namespace"]
    name: ToolName
    tools: list[Member] = Field([], max_length=MAX_TOOLS)

    def written(self) -> dict[str, Any]:
        """As an answer repeats it."""
        return {"type": self.type, "name": self.name, "tools": written(self.tools)}


ToolItem = Annotated[
    Annotated[FunctionTool | LeftOut | Namespace, Field(discriminator="type")],
    BeforeValidator(_known),
]
Tools = Annotated[list[ToolItem], Field(max_length=MAX_TOOLS)]


def written(tools: Iterable[FunctionTool | LeftOut | Namespace]) -> list[dict[str, Any]]:
    """As an answer repeats tools, those that are left out aside."""
    return [tool.written() for tool in tools if not isinstance(tool, LeftOut)]


def functions_of(tools: Iterable[ToolItem]) -> Iterator[tuple[str, FunctionTool]]:
    """Those that the model is shown, each with its namespace."""
    for tool in tools:
        match tool:
            case FunctionTool():
                yield "", tool
            case Namespace():
                for member in tool.tools:
                    if isinstance(member, FunctionTool):
                        yield tool.name, member


@dataclass(frozen=True, slots=True)
class Choosing:
    """Whether and which tools are called; `said` is how it was put."""

    calling: Calling
    said: Any


_FUNCTION: Final = {
    "type": "object",
    "properties": {"type": {"const": "function"}, "name": {"type": "string", "pattern": TOOL_NAME}},
    "required": ["type", "name"],
}
ToolChoice = Annotated[
    Choosing,
    BeforeValidator(lambda choice: Choosing(calling_of(choice), choice)),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(MODES)},
                _FUNCTION,
                some_of(_FUNCTION, type=ALLOWING),
            ]
        }
    ),
]


class ReasoningChoice(ReasoningBody):
    """A summary that is asked for is all that was thought."""

    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None

    @property
    def summarized(self) -> str | None:
        return self.summary or self.generate_summary


Schema = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "maxProperties": MAX_BODY})]


class TextFormat(WireModel):
    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"type": {"const": "json_schema"}}},
            "then": {"required": ["schema"], "properties": {"schema": {"type": "object"}}},
        }
    )
    type: Literal["text", "json_object", "json_schema"]
    name: Word | None = None
    description: Text | None = None
    strict: bool | None = None
    shape: Schema | None = Field(None, alias="schema")

    @model_validator(mode="after")
    def _has_a_schema(self) -> "TextFormat":
        if self.type == "json_schema" and self.shape is None:
            raise ValueError("schema is missing")
        return self

    def written(self) -> dict[str, Any]:
        """As an answer repeats it."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class TextBody(WireModel):
    """`verbosity` is ignored."""

    format: TextFormat | None = None

    def constraints(self) -> Iterator[Constraint]:
        form, field = self.format, "text.format"
        if form and form.type == "json_object":
            yield Constraint("json", field)
        if form and form.type == "json_schema":
            yield Constraint("schema", field, json_text(form.shape))


def _bounded(metadata: Any) -> Any:
    if not isinstance(metadata, dict) or len(metadata) > 16:
        raise ValueError("Input should be an object of at most 16 texts")
    for key, value in metadata.items():
        if len(key) > 64 or not isinstance(value, str) or len(value) > 512:
            raise ValueError("Keys should be up to 64 characters, and values texts of up to 512")
    return metadata


Metadata = Annotated[
    Mapping[str, str],
    BeforeValidator(_bounded),
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"maxLength": 64},
            "additionalProperties": {"type": "string", "maxLength": 512},
            "maxProperties": 16,
        }
    ),
]


def _included(include: Any) -> Any:
    if isinstance(include, list) and "message.output_text.logprobs" in include:
        raise ValueError("message.output_text.logprobs is not supported yet")
    return include


Include = Annotated[
    list[Word],
    Field(max_length=16),
    BeforeValidator(_included),
    WithJsonSchema(
        {
            "type": "array",
            "maxItems": 16,
            "items": {
                "type": "string",
                "maxLength": 256,
                "not": {"const": "message.output_text.logprobs"},
            },
        }
    ),
]
