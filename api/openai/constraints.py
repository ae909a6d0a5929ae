"""The fields of a body that say what an answer has to be, in OpenAI's and in vLLM's spelling.

Each is read into a `Constraint`. Knows neither whether it can be kept to nor how.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from api.body import SchemaText, Text, WireModel, Word
from api.document import Schema
from api.fields import TOOL_NAME
from inference import Constraint, ConstraintKind

MAX_SOURCE: Final = 64 << 10  # characters
MAX_CHOICES: Final = 1000

MAX_TOOLS: Final = 128
MODES: Final = {"auto": "auto", "none": "none", "required": "required", "any": "required"}

Source = Annotated[str, Field(min_length=1, max_length=MAX_SOURCE)]
Choices = Annotated[
    tuple[Annotated[str, Field(max_length=1024)], ...],
    Field(min_length=1, max_length=MAX_CHOICES),
    BeforeValidator(lambda choices: tuple(choices) if isinstance(choices, list) else choices),
]


class JsonSchemaBody(WireModel):
    name: Word | None = None
    description: Text | None = None
    strict: bool | None = None
    source: SchemaText = Field(alias="schema")


class ResponseFormat(WireModel):
    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"type": {"const": "json_schema"}}},
            "then": {
                "required": ["json_schema"],
                "properties": {"json_schema": {"type": "object"}},
            },
        }
    )
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaBody | None = None
    source: SchemaText | None = Field(None, alias="schema")  # of an object, as llama.cpp has it

    @model_validator(mode="after")
    def _has_a_schema(self) -> "ResponseFormat":
        if self.type == "json_schema" and not self.json_schema:
            raise ValueError("json_schema is missing")
        return self


class StructuredOutputs(WireModel):
    source: SchemaText | None = Field(None, alias="json")
    json_object: bool | None = None
    regex: Source | None = None
    choice: Choices | None = None
    grammar: Source | None = None


class Constraints(WireModel):
    """What both endpoints let a client ask for."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: SchemaText | None = None
    guided_regex: Source | None = None
    guided_choice: Choices | None = None
    guided_grammar: Source | None = None

    def constraints(self) -> tuple[Constraint, ...]:
        return (*self._formats(), *self._structured(), *self._guided())

    def _formats(self) -> Iterator[Constraint]:
        form, field = self.response_format, "response_format"
        if form and form.type == "json_object":
            source = form.source
            yield Constraint("schema", field, source) if source else Constraint("json", field)
        if form and form.type == "json_schema" and form.json_schema:
            yield Constraint("schema", field, form.json_schema.source)

    def _structured(self) -> Iterator[Constraint]:
        if said := self.structured_outputs:
            field = "structured_outputs"
            if said.json_object:
                yield Constraint("json", f"{field}.json_object")
            sources = (said.source, said.regex, said.grammar)
            yield from _constraints(f"{field}.", sources, said.choice)

    def _guided(self) -> Iterator[Constraint]:
        sources = (self.guided_json, self.guided_regex, self.guided_grammar)
        yield from _constraints("guided_", sources, self.guided_choice)


_NAMES: Final[Mapping[str, ConstraintKind]] = {
    "json": "schema",
    "regex": "regex",
    "grammar": "grammar",
}


def _constraints(
    prefix: str, sources: tuple[str | None, ...], choices: tuple[str, ...] | None
) -> Iterator[Constraint]:
    """Those that are said, of the three in the order of `_NAMES` and the choice."""
    for (name, kind), source in zip(_NAMES.items(), sources, strict=True):
        if source is not None:
            yield Constraint(kind, prefix + name, source)
    if choices is not None:
        yield Constraint("choice", f"{prefix}choice", choices=choices)


@dataclass(frozen=True, slots=True)
class Calling:
    """Whether tools are called: a mode, or `required` with the name of the one to call. Only those
    that are `allowed` are offered, if that is said."""

    mode: str = "auto"
    name: str = ""
    allowed: frozenset[str] | None = None

    @property
    def forced(self) -> bool:
        return self.mode == "required"


def calling_of(choice: Any) -> Calling:
    """Raises ValueError."""
    match choice:
        case str() if choice in MODES:
            return Calling(MODES[choice])
        case {"type": "allowed_tools", "allowed_tools": dict(said)}:
            return _allowed(said)
        case {"type": "allowed_tools"}:
            return _allowed(choice)
    if name := _named(choice):
        return Calling("required", name)
    raise ValueError('Input should be "auto", "none", "required" or functions of the tools')


def _named(choice: Any) -> str:
    """The function that is meant, as in a chat or as in OpenAI's Responses; "" if none is."""
    match choice:
        case {"type": "function", "function": {"name": str(name)}}:
            return name
        case {"type": "function", "name": str(name)}:
            return name
    return ""


def _allowed(said: dict[str, Any]) -> Calling:
    mode, tools = said.get("mode"), said.get("tools")
    if mode not in ("auto", "required"):
        raise ValueError('The mode of allowed_tools should be "auto" or "required"')
    if not isinstance(tools, list) or not 1 <= len(tools) <= MAX_TOOLS:
        raise ValueError(f"The tools of allowed_tools should be 1 to {MAX_TOOLS} functions")
    names = frozenset(map(_named, tools))
    if "" in names:
        raise ValueError("The tools of allowed_tools should be functions with a name")
    return Calling(mode, allowed=names)


ALLOWING: Final = {"const": "allowed_tools"}
_NAME: Final = {"type": "string", "pattern": TOOL_NAME}
_NAMED: Final = {"type": "object", "properties": {"name": _NAME}, "required": ["name"]}
_FUNCTION: Final = {
    "type": "object",
    "properties": {"type": {"const": "function"}, "function": _NAMED},
    "required": ["type", "function"],
}


def some_of(function: Schema, **more: Schema) -> Schema:
    """The JSON schema of functions that are allowed, each as `function` says."""
    tools = {"type": "array", "items": function, "minItems": 1, "maxItems": MAX_TOOLS}
    fields = {"mode": {"enum": ["auto", "required"]}, "tools": tools, **more}
    return {"type": "object", "properties": fields, "required": list(fields)}


ToolChoice = Annotated[
    Calling,
    BeforeValidator(calling_of),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(MODES)},
                _FUNCTION,
                {
                    "type": "object",
                    "properties": {"type": ALLOWING, "allowed_tools": some_of(_FUNCTION)},
                    "required": ["type", "allowed_tools"],
                },
            ]
        }
    ),
]
