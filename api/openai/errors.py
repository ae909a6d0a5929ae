"""OpenAI's error object, and how its streams end. Also what addresses without a dialect answer."""

from typing import Final, TypedDict

import msgspec

from api.dialect import Dialect
from api.dialect import Problem as Cause

DONE: Final = b"data: [DONE]\n\n"


class Problem(TypedDict):
    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(TypedDict):
    """The error object of OpenAI's API reference."""

    error: Problem


def framed(chunk: object) -> bytes:
    """A chunk as an event of a stream."""
    return b"data: %b\n\n" % msgspec.json.encode(chunk)


def _error(cause: Cause) -> ErrorBody:
    kind = "server_error" if cause.status >= 500 else "invalid_request_error"
    if cause.status == 429:
        kind = "rate_limit_error"
    return {
        "error": {
            "message": cause.message,
            "type": kind,
            "param": cause.field,
            "code": cause.code,
        }
    }


def _broken(cause: Cause) -> list[bytes]:
    return [framed(_error(cause)), DONE]


OPENAI: Final = Dialect(ErrorBody, _error, _broken)
