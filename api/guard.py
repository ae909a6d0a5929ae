"""Stands before every route: who is let in, in whose name, and how often.

Decides by the path that the router will see and by headers, never by a URL put together from
both: `Host` is the client's to choose. What a path needs is deny by default, so a new route is
closed before anybody thinks of it. An answer's parts pass through untouched. Whose a request is
`api.admission` knows.
"""

import asyncio
import logging
import re
from collections.abc import Container, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Final, Protocol

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from api import admission
from api.admission import Admission, Headers, Shown, shown_in, without_token
from api.errors import NotAdmin, NotJson, WrongHost, error_response
from api.keys import Key, KeyFile
from api.limits import Usage
from api.origins import Reach
from api.page.files import PATHS
from api.paths import meant
from api.sockets import Sockets
from inference import InferenceError

PUBLIC: Final = frozenset({"/", "/health", "/ready", "/api/v1/login", "/api/v1/logout"}) | PATHS
ADMIN: Final = frozenset({"/metrics", "/api/pull"})
OPERATOR: Final = "/api/v1/operator"  # with all that is below it
# What a page of ours may do: nothing that did not come from here, and no text becomes script.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
HEADERS: Final = [  # of every answer
    ("Content-Security-Policy", POLICY),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),  # does not concern what CORS allows
]
_LOOK_EVERY: Final = 0.25  # seconds
_log = logging.getLogger(__name__)
_JSON: Final = re.compile(rb"application/([a-z0-9.!#$&^_-]+\+)?json[ \t]*(;[^,]*)?")
_READ: Final = admission.READ | {
    b"host",
    b"origin",
    b"sec-fetch-site",
    b"content-type",
    b"content-length",
    b"content-encoding",
    b"transfer-encoding",
}


class Guard:
    """ASGI middleware. Leaves in a request's state whose it is (`tenant`), whether it may use the
    operator's routes (`admin`) and learn what is not for everybody (`trusted`), and how many
    answers it may have at a time (`concurrent`, None for any number).

    A WebSocket is counted when it is answered: there is `answering`, to be called for a `with`
    block around each answer, which raises `TooManyRequests`.
    """

    def __init__(self, app: ASGIApp, reach: Reach, admission: Admission, sockets: Sockets) -> None:
        self._app = app
        self._reach = reach
        self._admission = admission
        self._sockets = sockets
        self._enter: ASGIApp = self._with_key
        if reach.origins:
            self._enter = CORSMiddleware(
                self._with_key,
                allow_origins=reach.origins,
                allow_methods=("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
                allow_headers=("*",),
                allow_private_network=True,
                expose_headers=("Retry-After",),
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            if not scope["path"].startswith("/"):
                raise WrongHost("Ask for a path, not for a whole URL.")
            scope["path"] = meant(scope["path"])
            headers = scope["onebox.headers"] = _read(scope)
            self._reach.check(headers)
        except InferenceError as error:
            await _refuse(error, scope, receive, send)
        else:
            await self._enter(scope, receive, send)

    async def _with_key(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = scope["onebox.headers"]
        try:
            shown = shown_in(headers, _token(scope))
            key = self._caller(scope, shown)
            _check_type(scope, headers)
            usage = self._admission.limits.usage(key) if key else None
            if scope["type"] == "http" and usage:
                usage.begin()
        except InferenceError as error:
            await _refuse(error, scope, receive, send)
            return
        if scope["type"] == "websocket":
            await self._on_socket(scope, receive, send, usage, shown)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            if usage:
                usage.end()

    async def _on_socket(
        self, scope: Scope, receive: Receive, send: Send, usage: Usage | None, shown: Shown
    ) -> None:
        state = scope["state"]
        busy = state.get("busy", nullcontext())
        state["answering"] = partial(_answering, usage, busy)
        with self._sockets.opened(state["tenant"], shown.only_cookie, send):
            await self._app(scope, receive, send)

    def _caller(self, scope: Scope, shown: Shown) -> Key | None:
        """The key a request came with, where it needs one. Raises what stands against it."""
        path, state = scope["path"], scope.setdefault("state", {})
        locked = self._admission.required()
        state.update(tenant="", trusted=not locked, admin=not locked, concurrent=None)
        if not locked:
            return None
        key = self._admission.find(shown)
        state["trusted"] = key is not None
        if path in PUBLIC:
            return None
        if key is None:
            raise self._admission.refusal(shown, address_of(scope))
        if is_for_admins(path) and not key.admin:
            raise NotAdmin("This address needs an API key with the scope admin.")
        state.update(tenant=key.tenant, admin=key.admin, concurrent=key.concurrent)
        return key


def is_for_admins(path: str) -> bool:
    return path in ADMIN or path == OPERATOR or path.startswith(f"{OPERATOR}/")


def address_of(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else ""


class Keeper(Protocol):
    """Of what belongs to tenants."""

    def expel(self, tenants: Container[str]) -> None: ...


async def expel_revoked(keys: KeyFile, *keepers: Keeper) -> None:
    """End what a key has asked for, running or recorded, soon after it was taken away."""
    while True:
        await asyncio.sleep(_LOOK_EVERY)
        try:
            if keys.required() and not keys.damaged:  # a damaged file does not say who is left
                for keeper in keepers:
                    keeper.expel(keys.tenants)
        except Exception:  # nobody would notice that nobody looks any more
            _log.exception("Removed keys could not be looked for.")


@contextmanager
def _answering(usage: Usage | None, busy: AbstractContextManager[Any]) -> Iterator[None]:
    if usage:
        usage.begin()
    try:
        with busy:
            yield
    finally:
        if usage:
            usage.end()


def _token(scope: Scope) -> bytes | None:
    """The one-time token of a request that may have one, which nobody sees any more."""
    path = scope["path"]
    if path in PUBLIC or not (path == "/ws" or _is_gateway(path)):
        return None
    scope["query_string"], token = without_token(scope["query_string"])
    return token


def _is_gateway(path: str) -> bool:
    return path.startswith("/api/v1/")


def _read(scope: Scope) -> Headers:
    """The headers that decide; what is there twice becomes a list, which is never a right value."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _READ:
            found[name] = found[name] + b"," + value if name in found else value
    return found


def _check_type(scope: Scope, headers: Headers) -> None:
    """Raises `NotJson`: what a page may send without asking first, forms and text, is not JSON.

    Ollama's own examples say nothing of the type; no browser sends such a request without a word of
    where it comes from. What has no body needs no type.
    """
    if scope.get("method") != "POST" or _has_no_body(headers):
        return
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise NotJson("Compressed bodies are not understood: send it without Content-Encoding.")
    from_a_page = b"origin" in headers or b"sec-fetch-site" in headers
    ollama = scope["path"].startswith("/api/") and not _is_gateway(scope["path"])
    if ollama and not from_a_page:
        return
    if not _JSON.fullmatch(headers.get(b"content-type", b"").lower()):
        raise NotJson("The body must be JSON: send it with Content-Type: application/json.")


def _has_no_body(headers: Headers) -> bool:
    return b"transfer-encoding" not in headers and headers.get(b"content-length", b"0") == b"0"


async def _refuse(error: InferenceError, scope: Scope, receive: Receive, send: Send) -> None:
    extensions = scope.get("extensions") or {}
    if scope["type"] == "websocket" and "websocket.http.response" not in extensions:
        await send({"type": "websocket.close", "code": 1008})  # before accept: a plain 403
    else:
        await error_response(error, scope["path"])(scope, receive, send)
