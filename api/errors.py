"""Turns what went wrong into an HTTP answer, in the shape of the dialect that was spoken.

The one place that knows which error has which status. Bodies stay small and never repeat what
the client sent. Knows no route and no shape.
"""

from collections.abc import Mapping
from typing import Final

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException

from api.dialect import Problem
from api.dialects import dialect_of
from api.json_reply import JsonReply
from api.store.errors import (
    NameTaken,
    SearchTooLong,
    SessionBusy,
    StoreFailed,
    StoreFull,
    UnknownAgent,
    UnknownMessage,
    UnknownSession,
)
from inference import (
    BadRequest,
    Cancelled,
    ContextTooLong,
    DeadlineExceeded,
    DownloadError,
    InferenceError,
    NotReady,
    NumericalError,
    Overloaded,
    Poisonous,
    Revoked,
    ShuttingDown,
    UnknownModel,
    WorkerLost,
)

MAX_MESSAGE, MAX_PARAM = 500, 100  # characters
RETRIED: Final = (429, 503)  # the answer says when to come again


class BodyTooLarge(InferenceError):
    code = "body_too_large"


class NotJson(InferenceError):
    code = "unsupported_media_type"


class WrongHost(InferenceError):
    """The request names another server: DNS rebinding looks like this, and so does a typo."""

    code = "unknown_host"


class ForeignOrigin(InferenceError):
    """A browser sends this for a page that is neither ours nor one we trust."""

    code = "foreign_origin"


class WrongKey(InferenceError):
    code = "invalid_api_key"


class NotAdmin(InferenceError):
    code = "admin_only"


class TooManyRequests(Overloaded):
    code = "rate_limit_exceeded"


class KeysUnreadable(InferenceError):
    code = "keys_unreadable"


class NoWebSocket(InferenceError):
    code = "unknown_url"

    def __init__(self) -> None:
        super().__init__("There is no WebSocket at this address.")


class ClientGone(InferenceError):
    """The client hung up; nobody reads the answer (499 is nginx's number for it)."""

    code = "client_gone"


class TurnStopped(InferenceError):
    """Somebody else ended it while it waited."""

    code = "stopped"

    def __init__(self) -> None:
        super().__init__("The answer was stopped before it began.")


class UnknownStream(InferenceError):
    code = "stream_not_found"

    def __init__(self) -> None:
        super().__init__("There is no such stream; it has ended, or was left alone for too long.")


class UnknownResponse(InferenceError):
    code = "response_not_found"

    def __init__(self) -> None:
        super().__init__("There is no such response; it was not stored, was deleted, or is gone.")


class UnknownPrevious(BadRequest):
    """The response that a request goes on from is not there."""

    code = "previous_response_not_found"


class UnknownItem(BadRequest):
    """An item that a request refers to is not there."""

    code = "item_not_found"


class NotOffered(InferenceError):
    """Known, and not done here."""

    code = "not_offered"


class StreamGone(InferenceError):
    code = "stream_gone"

    def __init__(self) -> None:
        super().__init__("The stream is there, but not from that event on any more.")


class BadHttp(InferenceError):
    code = "bad_http"


class HeaderTooLarge(InferenceError):
    code = "header_too_large"


class TooSlow(InferenceError):
    code = "request_timeout"


class TooManyConnections(InferenceError):
    code = "too_many_connections"


_STATUS: Final[Mapping[type[InferenceError], int]] = {
    BadHttp: 400,
    BadRequest: 400,
    ContextTooLong: 400,
    Revoked: 401,
    WrongKey: 401,
    ForeignOrigin: 403,
    NotAdmin: 403,
    UnknownItem: 400,
    UnknownMessage: 400,
    UnknownPrevious: 400,
    NoWebSocket: 404,
    UnknownAgent: 404,
    UnknownModel: 404,
    UnknownResponse: 404,
    UnknownSession: 404,
    UnknownStream: 404,
    DeadlineExceeded: 408,  # as OpenAI's, whose clients try again; no fault of the server's
    TooSlow: 408,
    NameTaken: 409,
    SessionBusy: 409,
    TurnStopped: 409,
    StoreFull: 409,
    StreamGone: 410,
    BodyTooLarge: 413,
    NotJson: 415,
    WrongHost: 421,
    Overloaded: 429,
    TooManyRequests: 429,
    HeaderTooLarge: 431,
    ClientGone: 499,
    NotOffered: 501,
    DownloadError: 502,
    KeysUnreadable: 503,
    NotReady: 503,
    ShuttingDown: 503,
    SearchTooLong: 503,
    StoreFailed: 503,
    TooManyConnections: 503,
    WorkerLost: 503,
}
# After these the connection is of no more use.
_LAST: Final = (BadHttp, TooSlow, BodyTooLarge, HeaderTooLarge, ShuttingDown, TooManyConnections)
UNFORESEEN: Final = InferenceError("Something broke inside the server; its log says what.")


def status_of(error: InferenceError) -> int:
    """The HTTP status an error has, or would have had if the answer had not begun."""
    return _STATUS.get(type(error), 500)


def problem_of(error: InferenceError) -> Problem:
    """What is told of an error: at most 4 KiB as JSON."""
    return _problem(status_of(error), error.code, error.message, error.field)


def error_response(error: InferenceError, path: str = "") -> JsonReply:
    """The answer to a request for `path`, as far as that is known."""
    status = status_of(error)
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status in RETRIED:
        headers["Retry-After"] = str(getattr(error, "retry_after", 1))
    if isinstance(error, Cancelled | NumericalError | Poisonous):
        headers["x-should-retry"] = "false"  # heeded by the clients of OpenAI and Anthropic
    if isinstance(error, _LAST):
        headers["Connection"] = "close"
    return JsonReply(dialect_of(path).error(problem_of(error)), status, headers)


def install(app: FastAPI) -> None:
    """Give errors that no endpoint caught the same shape: routing, and anything unforeseen."""

    async def refused(http: Request, error: InferenceError) -> JsonReply:
        return error_response(error, http.scope["path"])

    async def misrouted(http: Request, error: HTTPException) -> JsonReply:
        message = "This address does not exist; the API is under /v1, and Ollama's under /api."
        if error.status_code == 405:
            message = "This address exists, but not with this HTTP method."
        body = dialect_of(http.scope["path"]).error(
            _problem(error.status_code, "unknown_url", message, None)
        )
        return JsonReply(body, error.status_code, error.headers)

    async def unforeseen(http: Request, _: Exception) -> JsonReply:
        return error_response(UNFORESEEN, http.scope["path"])

    app.exception_handler(InferenceError)(refused)
    app.exception_handler(HTTPException)(misrouted)
    app.exception_handler(Exception)(unforeseen)


def _problem(status: int, code: str, message: str, field: str | None) -> Problem:
    message = message if len(message) <= MAX_MESSAGE else message[:MAX_MESSAGE] + "..."
    return Problem(status, code, message, field and field[:MAX_PARAM])
