"""Stands before every route: who is let in, in whose name, and how often.

Decides by the path that the router will see and by headers, never by a URL put together from
both: `Host` is the client's to choose. What a path needs is deny by default, so a new route is
closed before anybody thinks of it. An answer's parts pass through untouched.
"""

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import (
    KeysUnreadable,
    NotAdmin,
    NotJson,
    WrongHost,
    WrongKey,
    error_response,
)
from api.keys import Key, KeyFile
from api.limits import Limits
from api.origins import Reach
from api.paths import meant
from inference import InferenceError, Models

PUBLIC: Final = frozenset({"/", "/health", "/ready"})
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
_READ: Final = frozenset(
    {
        b"host",
        b"origin",
        b"sec-fetch-site",
        b"authorization",
        b"x-api-key",
        b"content-type",
        b"content-encoding",
    }
)

Headers = Mapping[bytes, bytes]


class Guard:
    """ASGI middleware. Leaves `tenant` and `trusted` in the request's state."""

    def __init__(self, app: ASGIApp, reach: Reach, keys: KeyFile | None) -> None:
        self._app = app
        self._reach = reach
        self._keys = keys
        self._limits = Limits()
        self._enter: ASGIApp = self._with_key
        if reach.origins:
            self._enter = CORSMiddleware(
                self._with_key,
                allow_origins=reach.origins,
                allow_methods=("GET", "HEAD", "POST", "DELETE"),
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
        try:
            key = self._caller(scope, scope["onebox.headers"])
            _check_type(scope, scope["onebox.headers"])
            usage = key and self._limits.usage(key)
            if usage:
                usage.begin()
        except InferenceError as error:
            await _refuse(error, scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            if usage:
                usage.end()

    def _caller(self, scope: Scope, headers: Headers) -> Key | None:
        """The key a request came with, where it needs one. Raises what stands against it."""
        path, state = scope["path"], scope.setdefault("state", {})
        locked = self._keys is not None and self._keys.required()
        state.update(tenant="", trusted=not locked)
        if self._keys is None or not locked:
            return None
        secret = _credential(headers)
        key = self._keys.find(secret) if secret else None
        state["trusted"] = key is not None
        if path in PUBLIC:
            return None
        if key is None:
            raise self._refusal(scope, secret)
        if is_for_admins(path) and not key.admin:
            raise NotAdmin("This address needs an API key with the scope admin.")
        state["tenant"] = key.tenant
        return key

    def _refusal(self, scope: Scope, secret: bytes | None) -> InferenceError:
        if self._keys and self._keys.damaged:
            return KeysUnreadable("The server cannot read its key file; its log says why.")
        if secret is None:
            return WrongKey("An API key is needed, as Authorization: Bearer KEY or x-api-key: KEY.")
        # A right key would have passed: whoever shares an address with a guesser is not locked out.
        self._limits.failed(scope["client"][0] if scope.get("client") else "")
        return WrongKey("This API key is not valid here.")


def is_for_admins(path: str) -> bool:
    return path in ADMIN or path == OPERATOR or path.startswith(f"{OPERATOR}/")


async def expel_revoked(models: Models, keys: KeyFile) -> None:
    """End what a key has asked for, running or recorded, soon after it was taken away."""
    while True:
        await asyncio.sleep(_LOOK_EVERY)
        try:
            if keys.required() and not keys.damaged:  # a damaged file does not say who is left
                models.expel(keys.tenants)
        except Exception:  # nobody would notice that nobody looks any more
            _log.exception("Removed keys could not be looked for.")


def _read(scope: Scope) -> Headers:
    """The headers that decide; what is there twice becomes a list, which is never a right value."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _READ:
            found[name] = found[name] + b"," + value if name in found else value
    return found


def _credential(headers: Headers) -> bytes | None:
    """The one key that is shown; None if none is, b"" if it is malformed or there are two."""
    shown = {headers[b"x-api-key"]} if b"x-api-key" in headers else set()
    if b"authorization" in headers:
        scheme, _, secret = headers[b"authorization"].partition(b" ")
        shown.add(secret.strip() if scheme.lower() == b"bearer" else b"")
    if not shown:
        return None
    return shown.pop() if len(shown) == 1 else b""


def _check_type(scope: Scope, headers: Headers) -> None:
    """Raises `NotJson`: what a page may send without asking first, forms and text, is not JSON.

    Ollama's own examples say nothing of the type; no browser sends such a request without a word of
    where it comes from.
    """
    if scope.get("method") != "POST":
        return
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise NotJson("Compressed bodies are not understood: send it without Content-Encoding.")
    from_a_page = b"origin" in headers or b"sec-fetch-site" in headers
    if scope["path"].startswith("/api/") and not from_a_page:
        return
    if not _JSON.fullmatch(headers.get(b"content-type", b"").lower()):
        raise NotJson("The body must be JSON: send it with Content-Type: application/json.")


async def _refuse(error: InferenceError, scope: Scope, receive: Receive, send: Send) -> None:
    extensions = scope.get("extensions") or {}
    if scope["type"] == "websocket" and "websocket.http.response" not in extensions:
        await send({"type": "websocket.close", "code": 1008})  # before accept: a plain 403
    else:
        await error_response(error, scope["path"])(scope, receive, send)
