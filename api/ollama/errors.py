"""Ollama's error object, and how its streams are framed: a line of JSON for every event."""

from typing import Final, TypedDict

import msgspec

from api.dialect import Dialect, Problem

LINES: Final = "application/x-ndjson"
# There is no comment in JSON, so it is an answer that goes on by nothing, in both shapes.
_PING: Final = {
    "model": "",
    "created_at": "1970-01-01T00:00:00Z",
    "message": {"role": "assistant", "content": ""},
    "response": "",
    "done": False,
}


class OllamaError(TypedDict):
    error: str


def framed(line: object) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def _error(problem: Problem) -> OllamaError:
    return OllamaError(error=problem.message)


def _broken(problem: Problem) -> list[bytes]:
    return [framed(_error(problem))]


OLLAMA: Final = Dialect(OllamaError, _error, _broken, ping=framed(_PING), media=LINES)
