"""The fields of a conversation that clients write in more than one way.

Each is read into one shape, and its JSON schema says which ways there are. Upper case, where it is
read like lower case, is in no schema.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, WithJsonSchema

from api.body import INT32, MAX_BODY, Text
from api.openai.common import SPELLED

_ROLES: Final[Mapping[str, str]] = {"developer": "system", "function": "tool"}
_TEXT_PARTS: Final = ("text", "input_text", "output_text")
_STRING: Final = {"type": "string", "maxLength": MAX_BODY}
_PART: Final = {
    "type": "object",
    "properties": {"type": {"enum": list(_TEXT_PARTS)}, "text": _STRING},
    "required": ["type", "text"],
}
_RESERVED: Final = frozenset({"self", "messages", "tools", "add_generation_prompt"})


def _role(role: Any) -> Any:
    return _ROLES.get(role.lower(), role.lower()) if isinstance(role, str) else role


def _text(content: Any) -> Any:
    """Content as one text; parts of it are lines."""
    if not isinstance(content, list):
        return "" if content is None else content
    return "\n".join(_part(part) for part in content)


def _part(part: Any) -> str:
    if isinstance(part, dict) and part.get("type") in _TEXT_PARTS:
        part = part.get("text")
    if not isinstance(part, str):
        raise ValueError("Only text parts are supported, no images, audio or files")
    return part


def _arguments(arguments: Any) -> Any:
    """Arguments as JSON text; some clients send the object itself, or [] for an empty one."""
    if isinstance(arguments, dict):
        return json.dumps(arguments, ensure_ascii=False)
    return "{}" if arguments in (None, "", []) else arguments


def _template_kwargs(kwargs: Any) -> Any:
    if not isinstance(kwargs, dict) or len(kwargs) > 16:
        raise ValueError("Input should be an object of at most 16 entries")
    if not all(isinstance(value, str | int | float | None) for value in kwargs.values()):
        raise ValueError("Every value should be a text, a number or a boolean")
    thinking = kwargs.get("enable_thinking")
    if isinstance(thinking, str) and thinking.lower() not in SPELLED:
        raise ValueError("enable_thinking should be a boolean")
    budget = kwargs.get("thinking_budget", 0)
    if budget is not None and not (type(budget) is int and -1 <= budget <= INT32):
        raise ValueError("thinking_budget should be a number of tokens, or -1")
    if _RESERVED & kwargs.keys():
        raise ValueError(f"Keys should not be any of {', '.join(sorted(_RESERVED))}")
    return kwargs


TemplateKwargs = Annotated[
    dict[str, Any],
    BeforeValidator(_template_kwargs),
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"not": {"enum": sorted(_RESERVED)}},
            "properties": {
                "enable_thinking": {
                    "anyOf": [{"type": ["boolean", "number", "null"]}, {"enum": ["true", "false"]}]
                },
                "thinking_budget": {"type": ["integer", "null"], "minimum": -1, "maximum": INT32},
            },
            "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
            "maxProperties": 16,
        }
    ),
]
Role = Annotated[
    Literal["system", "user", "assistant", "tool"],
    BeforeValidator(_role),
    WithJsonSchema({"enum": ["system", "user", "assistant", "tool", *_ROLES]}),
]
Content = Annotated[
    Text,
    BeforeValidator(_text),
    WithJsonSchema(
        {
            "anyOf": [
                _STRING,
                {"type": "null"},
                {"type": "array", "items": {"anyOf": [_STRING, _PART]}, "maxItems": MAX_BODY},
            ]
        }
    ),
]
Arguments = Annotated[
    Text,
    BeforeValidator(_arguments),
    WithJsonSchema({**_STRING, "type": ["string", "object", "array", "null"], "maxItems": 0}),
]
