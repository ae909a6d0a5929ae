"""Anthropic's error object, and what its streams carry beside an answer."""

from collections.abc import Mapping
from typing import Final, Literal, TypedDict

from api.dialect import Dialect, Problem, named_event

_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class Cause(TypedDict):
    type: str
    message: str


class AnthropicError(TypedDict):
    """The error object of Anthropic's API reference."""

    type: Literal["error"]
    error: Cause
    request_id: None


def _error(problem: Problem) -> AnthropicError:
    other = "api_error" if problem.status >= 500 else "invalid_request_error"
    kind = _TYPES.get(problem.status, other)
    cause = Cause(type=kind, message=problem.message)
    return AnthropicError(type="error", error=cause, request_id=None)


def _broken(problem: Problem) -> list[bytes]:
    return [named_event("error", _error(problem))]


ANTHROPIC: Final = Dialect(
    AnthropicError, _error, _broken, ping=named_event("ping", {"type": "ping"})
)
