"""The fields of a body that say what an answer has to be, in OpenAI's and in vLLM's spelling.

Each is read into a `Constraint`. Knows neither whether it can be kept to nor how.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from api.body import SchemaText, Text, WireModel, Word
from api.fields import TOOL_NAME
from inference import Constraint, ConstraintKind

MAX_SOURCE: Final = 64 << 10  # characters
MAX_CHOICES: Final = 1000

_ANY: Final = ("auto", "none", "required")

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
            yield Constraint("json", field)
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
    """Whether tools are called: a mode, or `required` with the name of the one to call."""

    mode: str = "auto"
    name: str = ""

    @property
    def forced(self) -> bool:
        return self.mode == "required"


def calling_of(choice: Any) -> Calling:
    """Raises ValueError."""
    match choice:
        case str() if choice in _ANY:
            return Calling(choice)
        case {"type": "function", "function": {"name": str(name)}} if name:
            return Calling("required", name)
        case {"type": "function", "name": str(name)} if name:
            return Calling("required", name)
    raise ValueError('Input should be "auto", "none", "required" or a function of the tools')


_NAME: Final = {"type": "string", "pattern": TOOL_NAME}
_NAMED: Final = {
    "type": "object",
    "properties": {"name": _NAME},
    "required": ["name"],
}
ToolChoice = Annotated[
    Calling,
    BeforeValidator(calling_of),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(_ANY)},
                {
                    "type": "object",
                    "properties": {"type": {"const": "function"}, "function": _NAMED},
                    "required": ["type", "function"],
                },
            ]
        }
    ),
]
