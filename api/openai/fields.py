"""The fields of a conversation that clients write in more than one way.

Each is read into one shape, and its JSON schema says which ways there are. Upper case, where it is
read like lower case, is in no schema.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, WithJsonSchema

from api.body import INT32, Text, flag, json_text
from api.fields import STRING

_ROLES: Final[Mapping[str, str]] = {"developer": "system", "function": "tool"}
_RESERVED: Final = frozenset({"self", "messages", "tools", "add_generation_prompt"})


def _role(role: Any) -> Any:
    return _ROLES.get(role.lower(), role.lower()) if isinstance(role, str) else role


def _arguments(arguments: Any) -> Any:
    """Arguments as JSON text; some clients send the object itself, or [] for an empty one."""
    if isinstance(arguments, dict):
        return json_text(arguments)
    return "{}" if arguments in ("", []) else arguments


def _template_kwargs(kwargs: Any) -> Any:
    if not isinstance(kwargs, dict) or len(kwargs) > 16:
        raise ValueError("Input should be an object of at most 16 entries")
    if not all(isinstance(value, str | int | float | None) for value in kwargs.values()):
        raise ValueError("Every value should be a text, a number or a boolean")
    thinking = kwargs.get("enable_thinking")
    if isinstance(flag(thinking), str):
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
Arguments = Annotated[
    Text,
    BeforeValidator(_arguments),
    WithJsonSchema({**STRING, "type": ["string", "object", "array"], "maxItems": 0}),
]
