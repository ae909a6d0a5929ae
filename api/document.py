"""`GET /openapi.json`: what every route takes and gives, as an OpenAPI document.

Each room of routes says it in `OPERATIONS`, with the very types that it reads and writes; they
become JSON schemas when somebody asks for the first time. What the guard refuses is said here, once
for all of them. Knows no field of any dialect.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Response
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from api import __version__
from api.admission import COOKIE
from api.dialects import dialect_of
from api.errors import RETRIED
from api.guard import PUBLIC

JSON, TEXT, MARKDOWN = "application/json", "text/plain", "text/markdown"
COMPONENTS: Final = "#/components/schemas/"

Schema = dict[str, Any]
Takes = Callable[[], Schema]


@dataclass(frozen=True, slots=True)
class Operation:
    """What one route takes and gives.

    `gives` is status -> media type -> the type written, or that of each event of a stream;
    `refuses` are the statuses whose body is an error. `takes` makes the schema of the body.
    """

    path: str
    summary: str
    gives: Mapping[int, Mapping[str, Any]]
    refuses: tuple[int, ...] = ()
    takes: Takes | None = None
    methods: tuple[str, ...] = ("get",)
    headers: tuple[str, ...] = ()
    queries: tuple[str, ...] = ()

    @property
    def refusals(self) -> list[int]:
        """Its own statuses, and those of the guard before it."""
        statuses = {*self.refuses, 403, 421}
        if self.path not in PUBLIC:
            statuses |= {401, 429, 503}
        if "post" in self.methods:
            statuses.add(415)
        return sorted(statuses)

    @property
    def answers(self) -> dict[int, Mapping[str, Any]]:
        return {**self.gives, **{status: {JSON: self.error_type} for status in self.refusals}}

    @property
    def error_type(self) -> type:
        return dialect_of(self.path).error_type


_OWN: Final = Operation("/openapi.json", "This document", {200: {JSON: Schema}})
_KEYS: Final = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "cookie": {"type": "apiKey", "in": "cookie", "name": COOKIE},
}


def install(app: FastAPI, operations: Sequence[Operation]) -> None:
    """Serve the document of all `operations`."""

    @cache
    def encoded() -> bytes:
        return msgspec.json.encode(document([*operations, _OWN]))

    @app.get("/openapi.json")
    async def openapi() -> Response:
        return Response(encoded(), media_type=JSON)


def document(operations: Sequence[Operation]) -> Schema:
    """The OpenAPI document of `operations`; a key is needed where the server has any."""
    answers = [by.values() for operation in operations for by in operation.answers.values()]
    written = list(dict.fromkeys(type for types in answers for type in types))
    schemas, components = msgspec.json.schema_components(
        written, ref_template=COMPONENTS + "{name}"
    )
    schema_of = dict(zip(written, schemas, strict=True))
    paths: Schema = {}
    for operation in operations:
        described = _operation(operation, schema_of)
        if operation.takes:
            body = operation.takes()
            components |= body.pop("$defs", {})
            described["requestBody"] = {"required": True, "content": {JSON: {"schema": body}}}
        paths.setdefault(operation.path, {}).update(dict.fromkeys(operation.methods, described))
    return {
        "openapi": "3.1.0",
        "info": {"title": "Onebox", "version": __version__},
        "security": [{}, *({name: []} for name in _KEYS)],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _KEYS},
    }


def body_schema(model: type[BaseModel], refused: Mapping[str, tuple[Any, ...]]) -> Schema:
    """The JSON schema of a body in which the `refused` fields may only have the values that are
    given, or be null."""
    found = model.model_json_schema(ref_template=COMPONENTS + "{model}", schema_generator=_Untitled)
    fields = found["properties"]
    for field, neutral in refused.items():
        fields[field] = {"enum": [*neutral, None]}
    return found


class _Untitled(GenerateJsonSchema):
    def field_title_should_be_set(self, _: Any) -> bool:
        return False


def _operation(operation: Operation, schema_of: Mapping[Any, Schema]) -> Schema:
    """One operation without its body."""
    names = [(name, "path") for name in re.findall(r"{(\w+)}", operation.path)]
    names += [(name, "header") for name in operation.headers]
    names += [(name, "query") for name in operation.queries]
    text = {"type": "string"}
    return {
        "summary": operation.summary,
        "parameters": [
            {"name": name, "in": place, "required": place == "path", "schema": text}
            for name, place in names
        ],
        "responses": {
            str(status): _response(operation, status, by_media, schema_of)
            for status, by_media in operation.answers.items()
        },
    }


def _response(
    operation: Operation, status: int, by_media: Mapping[str, Any], schema_of: Mapping[Any, Schema]
) -> Schema:
    error = {"$ref": f"{COMPONENTS}{operation.error_type.__name__}"}
    stream = dialect_of(operation.path).media
    content = {
        media: _streamed(schema_of[type], error) if media == stream else {"schema": schema_of[type]}
        for media, type in by_media.items()
    }
    response: Schema = {"description": HTTPStatus(status).phrase, "content": content}
    if status in operation.refusals and status in RETRIED:
        seconds = {"required": True, "schema": {"type": "integer", "minimum": 1}}
        response["headers"] = {"Retry-After": seconds}
    return response


def _streamed(schema: Schema, error: Schema) -> Schema:
    """OpenAPI 3.1 has no schema for the events of a stream; ours says what is in each, be it an
    event or a line."""
    return {"x-event-data": {"anyOf": [schema, error]}}
