"""`GET /openapi.json`: what every route takes and gives, as an OpenAPI document.

Each room of routes says it in `OPERATIONS`, with the very types that it reads and writes; they
become JSON schemas when somebody asks for the first time. Knows no field of any dialect.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Response

from api import __version__
from api.errors import RETRIED, ErrorBody

JSON, TEXT, EVENTS = "application/json", "text/plain", "text/event-stream"
COMPONENTS: Final = "#/components/schemas/"

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """What one path takes and gives.

    `gives` is status -> media type -> the type written, or that of each event of a stream;
    `refuses` are the statuses whose body is an error. `takes` makes the schema of the body.
    """

    summary: str
    gives: Mapping[int, Mapping[str, Any]]
    refuses: tuple[int, ...] = ()
    takes: Callable[[], Schema] | None = None
    methods: tuple[str, ...] = ("get",)

    @property
    def answers(self) -> dict[int, Mapping[str, Any]]:
        return {**self.gives, **{status: {JSON: ErrorBody} for status in self.refuses}}


Operations = Mapping[str, Operation]

_OWN: Final = {"/openapi.json": Operation("This document", {200: {JSON: Schema}})}


def install(app: FastAPI, operations: Iterable[Operations]) -> None:
    """Serve the document of all `operations`."""

    @cache
    def encoded() -> bytes:
        everything = {path: op for some in (*operations, _OWN) for path, op in some.items()}
        return msgspec.json.encode(document(everything))

    @app.get("/openapi.json")
    async def openapi() -> Response:
        return Response(encoded(), media_type=JSON)


def document(operations: Operations) -> Schema:
    """The OpenAPI document of `operations`, by path as the router spells it."""
    answers = [by.values() for op in operations.values() for by in op.answers.values()]
    written = list(dict.fromkeys(type for types in answers for type in types))
    schemas, components = msgspec.json.schema_components(
        written, ref_template=COMPONENTS + "{name}"
    )
    schema_of = dict(zip(written, schemas, strict=True))
    paths: Schema = {}
    for path, operation in operations.items():
        described = _operation(operation, schema_of)
        if operation.takes:
            body = operation.takes()
            components |= body.pop("$defs", {})
            described["requestBody"] = {"required": True, "content": {JSON: {"schema": body}}}
        paths[path.replace(":path}", "}")] = _item(path, operation, described)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Onebox", "version": __version__},
        "paths": paths,
        "components": {"schemas": components},
    }


def _item(path: str, operation: Operation, described: Schema) -> Schema:
    item: Schema = dict.fromkeys(operation.methods, described)
    if "{name" in path:
        name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
        item["parameters"] = [name]
    return item


def _operation(operation: Operation, schema_of: Mapping[Any, Schema]) -> Schema:
    responses = {}
    for status, by_media in operation.answers.items():
        content = {media: _media(media, schema_of[type]) for media, type in by_media.items()}
        response = {"description": HTTPStatus(status).phrase, "content": content}
        if status in RETRIED and status in operation.refuses:
            seconds = {"required": True, "schema": {"type": "integer", "minimum": 1}}
            response["headers"] = {"Retry-After": seconds}
        responses[str(status)] = response
    return {"summary": operation.summary, "responses": responses}


def _media(media: str, schema: Schema) -> Schema:
    """OpenAPI 3.1 has no schema for an event: a stream is a text, and ours says what is in it."""
    if media != EVENTS:
        return {"schema": schema}
    events = {"anyOf": [schema, {"$ref": f"{COMPONENTS}{ErrorBody.__name__}"}]}
    return {"schema": {"type": "string"}, "x-event-data": events}
