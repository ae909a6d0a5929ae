"""Fields that mean the same in every dialect, and their bounds.

The shape around them, and what only one vendor has, is said in that vendor's package.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from api.body import INT32, MAX_BODY, WireModel
from inference import Sampling

STRING: Final = {"type": "string", "maxLength": MAX_BODY}
TOOL_NAME: Final = "^[a-zA-Z0-9_.-]{1,128}$"
# Words for how much to think, and the tokens that each allows; None is without a bound.
EFFORTS: Final[Mapping[str, int | None]] = {
    "low": 1024,
    "medium": 8192,
    "high": None,
    "xhigh": None,
    "max": None,
}
_TEXT_PARTS: Final = ("text", "input_text", "output_text")
_PART: Final = {
    "type": "object",
    "properties": {"type": {"enum": list(_TEXT_PARTS)}, "text": STRING},
    "required": ["type", "text"],
}
_STOP: Final = {"type": "string", "maxLength": 256}


class OrText:
    """Says in a JSON schema that a list may be a text instead."""

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [STRING, handler(core)]}


def text_of(part: Any) -> str:
    """The text of one part of a content."""
    if isinstance(part, dict) and part.get("type") in _TEXT_PARTS:
        part = part.get("text")
    if not isinstance(part, str):
        raise ValueError("Only text is supported here, no images, audio or documents")
    return part


def joined(content: Any) -> Any:
    """Content as one text; parts of it are lines."""
    if not isinstance(content, list):
        return content
    return "\n".join(map(text_of, content))


def _strings(stop: Any) -> tuple[Any, ...]:
    if not isinstance(stop, str | list):
        raise ValueError("Input should be a string or a list of strings")
    strings = [stop] if isinstance(stop, str) else stop
    return tuple(string for string in strings if string != "")


Content = Annotated[
    str,
    Field(max_length=MAX_BODY),
    BeforeValidator(joined),
    WithJsonSchema(
        {
            "anyOf": [
                STRING,
                {"type": "array", "items": {"anyOf": [STRING, _PART]}, "maxItems": MAX_BODY},
            ]
        }
    ),
]
Stops = Annotated[
    tuple[Annotated[str, Field(max_length=256)], ...],
    Field(max_length=16),
    BeforeValidator(_strings),
    WithJsonSchema({"anyOf": [_STOP, {"type": "array", "items": _STOP, "maxItems": 16}]}),
]
ToolName = Annotated[str, Field(pattern=TOOL_NAME)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Repetition = Annotated[float, Field(ge=0.01, le=10)]
Alternatives = Annotated[int, Field(ge=0, le=20)]


class BasicSampling(WireModel):
    """`None` means "not said"."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=INT32)] | None = None

    def sampling(self) -> Sampling:
        """`top_k` -1 is 0, no limit."""
        top_k = None if self.top_k is None else max(self.top_k, 0)
        return Sampling(temperature=self.temperature, top_p=self.top_p, top_k=top_k)


class FullSampling(BasicSampling):
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repeat_penalty: Repetition | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None

    def sampling(self) -> Sampling:
        """A negative `seed` is no seed."""
        return replace(
            super().sampling(),
            seed=self.seed if self.seed is None or self.seed >= 0 else None,
            min_p=self.min_p,
            repeat_penalty=self.repeat_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
        )
