"""Whose a request is: by the key, the one-time token or the cookie that comes with it.

A key in a header was put there on purpose, and so was a token; a cookie is added by browsers, to
whatever a page asks for, so it counts only where nothing else is shown and the page is our own.
Two keys are none. Knows no path.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode

from api.errors import KeysUnreadable, WrongKey
from api.keys import Key, KeyFile
from api.limits import Limits
from api.origins import is_own_page
from api.store.logins import Logins
from inference import InferenceError

COOKIE: Final = "onebox"
READ: Final = frozenset({b"authorization", b"x-api-key", b"cookie"})
_TOKEN: Final = "token"

Headers = Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Shown:
    """What a request shows of itself; `b""` is a key that is malformed, or two."""

    secret: bytes | None = None
    token: bytes | None = None
    cookie: bytes | None = None

    @property
    def only_cookie(self) -> bytes | None:
        """The cookie that it rests on."""
        return self.cookie if self.secret is None and self.token is None else None


class Admission:
    """The keys of a server, and what stands for them; `limits` are what each may do."""

    def __init__(self, keys: KeyFile | None) -> None:
        self.limits = Limits()
        self.logins: Logins | None = None  # until the database is open
        self._keys = keys

    def required(self) -> bool:
        """Whether requests need a key now."""
        return self._keys is not None and self._keys.required()

    def find(self, shown: Shown) -> Key | None:
        """The key that is meant, as of the last `required`. A token is good for this once."""
        if self._keys is None:
            return None
        if shown.secret is not None:
            return None if shown.token is not None else self._keys.find(shown.secret)
        if self.logins is None:
            return None
        if shown.token is not None:
            return self._keys.of(self.logins.tokens.take(shown.token))
        return self._keys.of(self.logins.tenant_of(shown.cookie or b""))

    def log_in(self, secret: bytes, address: str) -> Key:
        """The key that `secret` is, or is a token of. Raises as `refusal`."""
        key = self.find(Shown(secret=secret)) or self.find(Shown(token=secret))
        if key is None:
            raise self.refusal(Shown(secret=secret), address)
        return key

    def refusal(self, shown: Shown, address: str) -> InferenceError:
        """Why nobody is found. Raises `TooManyRequests` for who guesses."""
        if self._keys and self._keys.damaged:
            return KeysUnreadable("The server cannot read its key file; its log says why.")
        if shown.secret is None and shown.token is None:  # a cookie may just be old
            return WrongKey("An API key is needed, as Authorization: Bearer KEY or x-api-key: KEY.")
        # A right key would have passed: whoever shares an address with a guesser is not locked out.
        self.limits.failed(address)
        return WrongKey("This API key is not valid here.")


def shown_in(headers: Headers, token: bytes | None) -> Shown:
    cookie = _cookie(headers) if is_own_page(headers) else None
    return Shown(_secret(headers), token, cookie)


def without_token(query: bytes) -> tuple[bytes, bytes | None]:
    """A query without its token, which nobody behind needs to see, and the token; `b""` where there
    are two."""
    if _TOKEN.encode() not in query:
        return query, None
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    tokens = [value for name, value in pairs if name == _TOKEN]
    if not tokens:
        return query, None
    rest = urlencode([(name, value) for name, value in pairs if name != _TOKEN])
    return rest.encode(), tokens[0].encode() if len(tokens) == 1 else b""


def _secret(headers: Headers) -> bytes | None:
    """The one key that is shown; None if none is, b"" if it is malformed or there are two."""
    shown = {headers[b"x-api-key"]} if b"x-api-key" in headers else set()
    if b"authorization" in headers:
        scheme, _, secret = headers[b"authorization"].partition(b" ")
        shown.add(secret.strip() if scheme.lower() == b"bearer" else b"")
    if not shown:
        return None
    return shown.pop() if len(shown) == 1 else b""


def _cookie(headers: Headers) -> bytes | None:
    """Our cookie; None where there are several, of which one is a neighbour's on this host."""
    pairs = [pair.strip().partition(b"=") for pair in headers.get(b"cookie", b"").split(b";")]
    values = {value for name, _, value in pairs if name == COOKIE.encode()}
    return values.pop() if len(values) == 1 else None
