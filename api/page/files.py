"""The files of the page, as they are in `static/`: read once, when the server starts."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

_STATIC: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class File:
    """A file with the type of its content, and its ETag."""

    content: bytes
    media: str
    tag: str


def _read(path: Path) -> File:
    content = path.read_bytes()
    return File(content, _TYPES[path.suffix], f'"{sha256(content).hexdigest()[:32]}"')


INDEX: Final = _read(_STATIC / "index.html")
FILES: Final = {
    f"/page/{path.name}": _read(path)
    for path in sorted(_STATIC.iterdir())
    if path.suffix in _TYPES and path.suffix != ".html"
}
PATHS: Final[frozenset[str]] = frozenset(FILES)
