"""Several prompts in one field, in OpenAI's four ways: a text, token ids, or a list of either."""

from typing import Annotated, Any, Final

from pydantic import Field

from api.body import INT32, MAX_BODY, Text
from api.openai.common import TokenId

Prompt = Text | Annotated[tuple[TokenId, ...], Field(max_length=MAX_BODY)]

_TOKEN: Final = {"type": "integer", "minimum": 0, "maximum": INT32}
_ONE: Final = (
    {"type": "string", "minLength": 1, "maxLength": MAX_BODY},
    {"type": "array", "items": _TOKEN, "minItems": 1, "maxItems": MAX_BODY},
)


def schema(most: int) -> dict[str, Any]:
    """The JSON schema of what `prompts` takes."""
    several = {"type": "array", "items": {"anyOf": _ONE}, "minItems": 1, "maxItems": most}
    return {"anyOf": [*_ONE, several]}


def prompts(value: Any, most: int) -> tuple[Prompt, ...]:
    """Up to so many, none of which is empty. Raises ValueError."""
    single = isinstance(value, str) or (isinstance(value, list) and _is_tokens(value))
    several = [value] if single else value
    if not isinstance(several, list) or not 1 <= len(several) <= most:
        raise ValueError(f"Input should be a text, token ids or a list of 1 to {most} such")
    if not all(prompt and (isinstance(prompt, str) or _is_tokens(prompt)) for prompt in several):
        raise ValueError("Every one should be a text or a list of token ids, and not empty")
    return tuple(p if isinstance(p, str) else tuple(p) for p in several)


def _is_tokens(value: Any) -> bool:
    tokens = isinstance(value, list) and value
    return bool(tokens) and all(type(t) is int and 0 <= t <= INT32 for t in value)
