"""API keys: a file that holds their SHA-256, and a server's live view of it.

A secret has 256 random bits, so one fast hash hides it as well as a slow one would. It is shown
when it is made and is nowhere afterwards. Knows no HTTP.
"""

import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from inference import ConfigError

CONCURRENT: Final = 32
MOST: Final = 1_000_000
_LOOK_EVERY: Final = 0.5  # seconds; a look costs as much as all else that guards a request
_NAME: Final = r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"
_Count = Annotated[int, Meta(ge=1, le=MOST)]
_log = logging.getLogger(__name__)


class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may ask, and how much: requests in a minute (None: any number) and at the same time."""

    name: Annotated[str, Meta(pattern=_NAME)]
    sha256: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    admin: bool = False
    per_minute: _Count | None = None
    concurrent: _Count = CONCURRENT

    @property
    def tenant(self) -> str:
        """In whose name it asks: a name that is taken away and given again is somebody else's."""
        return f"{self.name}:{self.sha256[:16]}"


def called(tenant: str) -> str:
    """What people call the key of a tenant; "" for nobody's."""
    return tenant.rpartition(":")[0]


class KeyFile:
    """The keys in a file as it was half a second ago or later.

    Fails closed: once there were keys, a key is needed until the server ends, and nobody has one
    while the file is gone or cannot be read.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = monotonic) -> None:
        """Raises ConfigError if there is a file that cannot be read."""
        self._path = path
        self._clock = clock
        self._next_look = clock() + _LOOK_EVERY
        self._stamp = self._stamp_now()
        self._keys = load(path)
        self._required = bool(self._keys)
        self.damaged = False

    def required(self) -> bool:
        """Whether requests need a key now."""
        if (now := self._clock()) >= self._next_look:
            self._next_look = now + _LOOK_EVERY
            if (stamp := self._stamp_now()) != self._stamp:
                self._stamp = stamp
                self._reload()
        return self._required

    @property
    def tenants(self) -> set[str]:
        """Of all keys, as of the last `required`."""
        return {key.tenant for key in self._keys}

    def find(self, secret: bytes) -> Key | None:
        """The key with this secret, as of the last `required`."""
        digest = hashlib.sha256(secret).hexdigest()
        return next((key for key in self._keys if hmac.compare_digest(key.sha256, digest)), None)

    def of(self, tenant: str | None) -> Key | None:
        """The key in whose name somebody asks, as of the last `required`."""
        return next((key for key in self._keys if key.tenant == tenant), None)

    def _stamp_now(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _reload(self) -> None:
        try:
            self._keys, self.damaged = load(self._path), False
        except ConfigError as error:
            self._keys, self.damaged = (), True
            _log.error("Every request is refused: %s", error.message)
        self._required = self._required or self.damaged or bool(self._keys)


def place() -> Path:
    """The key file of this user; XDG base directory specification."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "onebox" / "keys.json"


def load(path: Path) -> tuple[Key, ...]:
    """The keys in `path`, none if it is not there. Raises ConfigError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[Key, ...])
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The key file {path} cannot be read ({error}); "
            "repair it, or remove it and add the keys again."
        ) from error


def add(
    path: Path,
    name: str,
    *,
    admin: bool = False,
    per_minute: int | None = None,
    concurrent: int = CONCURRENT,
) -> str:
    """Make a key and store its hash in `path`; the secret. Raises ConfigError."""
    if not re.match(_NAME, name):
        raise ConfigError(
            "A key's name has 1 to 64 letters, digits, dots, dashes or underscores, "
            "and begins with a letter or a digit."
        )
    secret = f"ob-{secrets.token_urlsafe(32)}"
    key = Key(
        name=name,
        sha256=hashlib.sha256(secret.encode()).hexdigest(),
        admin=admin,
        per_minute=per_minute,
        concurrent=concurrent,
    )

    def with_it(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        if any(known.name == name for known in keys):
            raise ConfigError(f"There is a key called {name} already; remove it first.")
        return (*keys, key)

    _change(path, with_it)
    return secret


def remove(path: Path, name: str) -> None:
    """Take the key called `name` away. Raises ConfigError."""

    def without_it(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        left = tuple(key for key in keys if key.name != name)
        if len(left) == len(keys):
            raise ConfigError(f"There is no key called {name!r}; `onebox keys list` shows all.")
        return left

    _change(path, without_it)


def _change(path: Path, change: Callable[[tuple[Key, ...]], tuple[Key, ...]]) -> None:
    """Replace the file, whole or not at all; one at a time."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            _write(path, change(load(path)))
            _confirm(path, folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ConfigError(
            f"The keys cannot be stored in {path} ({error.strerror}); "
            "name another file with server.keys in models.yaml."
        ) from error


def _confirm(path: Path, folder: int) -> None:
    """Tells of a disk that does not. No error: the change is made, and a new secret is needed."""
    try:
        os.fsync(folder)
    except OSError as error:
        _log.warning(
            "The keys in %s are changed, but the disk did not confirm it (%s); "
            "after a power cut, look at them with `onebox keys list`.",
            path,
            error.strerror,
        )


def _write(path: Path, keys: tuple[Key, ...]) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with open(os.open(partial, flags, 0o600), "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(keys)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
