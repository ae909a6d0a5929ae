"""The page at `/` and the files that it consists of. Knows nothing of what the page does."""

from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from api.document import TEXT, Operation
from api.page.files import FILES, INDEX, File

_READ: Final = ("get", "head")

OPERATIONS: Final = (
    Operation(
        "/",
        "The page, for who takes HTML; for everybody else one line: it runs",
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
        for path, file in FILES.items()
    ),
)

router = APIRouter()


@router.api_route("/", methods=["GET", "HEAD"])
async def root(http: Request) -> Response:
    """Programs made for Ollama look for these very words."""
    if "text/html" in http.headers.get("accept", ""):
        return _answer(http, INDEX)
    return PlainTextResponse("Ollama is running", headers={"Vary": "Accept"})


def _route(file: File) -> Callable[[Request], Awaitable[Response]]:
    async def give(http: Request) -> Response:
        return _answer(http, file)

    return give


for _path, _file in FILES.items():
    router.add_api_route(_path, _route(_file), methods=["GET", "HEAD"])


def _answer(http: Request, file: File) -> Response:
    """A browser asks each time, and is told in one line that nothing has changed."""
    headers = {"Cache-Control": "no-cache", "ETag": file.tag, "Vary": "Accept"}
    known = http.headers.get("if-none-match", "").split(",")
    if file.tag in (tag.strip().removeprefix("W/") for tag in known):
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media, headers=headers)
