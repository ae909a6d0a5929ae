"""The page at `/` and the files that it consists of, as they are in `static/`.

They are read once, when the server starts. Knows nothing of what the page does.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from api.document import TEXT, Operation

_STATIC: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_READ: Final = ("get", "head")


@dataclass(frozen=True, slots=True)
class File:
    content: bytes
    media: str
    tag: str

    @classmethod
    def of(cls, path: Path) -> "File":
        content = path.read_bytes()
        return cls(content, _TYPES[path.suffix], f'"{sha256(content).hexdigest()[:32]}"')


_FILES: Final = {
    f"/page/{path.name}": File.of(path)
    for path in sorted(_STATIC.iterdir())
    if path.suffix in _TYPES
}
_INDEX: Final = _FILES.pop("/page/index.html")
PATHS: Final[frozenset[str]] = frozenset(_FILES)

OPERATIONS: Final = (
    Operation(
        "/",
        "The page, for who takes HTML; one line for everybody else: it runs",
        {200: {TEXT: str, "text/html": str}},
        methods=_READ,
    ),
    *(
        Operation(
            path,
            "A file of the page",
            {200: {file.media.partition(";")[0]: str}},
            methods=_READ,
        )
        for path, file in _FILES.items()
    ),
)

router = APIRouter()


@router.api_route("/", methods=["GET", "HEAD"])
async def root(http: Request) -> Response:
    """Programs made for Ollama look for these very words."""
    if "text/html" in http.headers.get("accept", ""):
        return _answer(http, _INDEX)
    return PlainTextResponse("Ollama is running", headers={"Vary": "Accept"})


def _route(file: File) -> Callable[[Request], Awaitable[Response]]:
    async def give(http: Request) -> Response:
        return _answer(http, file)

    return give


for _path, _file in _FILES.items():
    router.add_api_route(_path, _route(_file), methods=["GET", "HEAD"])


def _answer(http: Request, file: File) -> Response:
    """A browser asks each time, and is told in one line that nothing has changed."""
    headers = {"Cache-Control": "no-cache", "ETag": file.tag, "Vary": "Accept"}
    tags = http.headers.get("if-none-match", "").split(",")
    if file.tag in (tag.strip().removeprefix("W/") for tag in tags):
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media, headers=headers)
