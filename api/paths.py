"""The ways in which clients join a base URL and an address, as the one address that is meant.

Only the addresses of the dialects are written in several ways; all others are matched whole.
"""

from typing import Final

_GATEWAY: Final = frozenset(  # addresses of our own below /api/v1
    {
        "agents",
        "chat",
        "health",
        "links",
        "login",
        "logout",
        "me",
        "models",
        "operator",
        "sessions",
    }
)
_BELOW_V1: Final = ("chat", "completions", "embeddings", "messages", "models", "responses")


def meant(path: str) -> str:
    """`path` with `/v1` once where it is missing, twice or below `/api`, but for our own addresses,
    and with no slash at its end or beside another."""
    parts = [part for part in path.split("/") if part]
    while parts[:2] in (["v1", "v1"], ["api", "v1"]) and not _is_own(parts):
        del parts[0]
    match parts:
        case ["v1" | "api", *_]:
            return "/" + "/".join(parts)
        case [first, *_] if first in _BELOW_V1:
            return "/v1/" + "/".join(parts)
    return path


def _is_own(parts: list[str]) -> bool:
    return parts[:2] == ["api", "v1"] and not _GATEWAY.isdisjoint(parts[2:3])
