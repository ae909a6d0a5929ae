"""Reads a request body: bounded bytes in, a checked JSON object or a typed model out.

Replaces the framework's own parsing, which answers 500 to NaN and to lone surrogates and echoes
the input of a rejected field. Knows no field of any dialect.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Annotated, Any, ClassVar, Final, TypeVar, Union, get_args, get_origin

from fastapi import Request
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from starlette.requests import ClientDisconnect

from api.errors import BodyTooLarge, ClientGone
from inference import BadRequest

MAX_BODY: Final = 4 << 20
# A client that still writes when the connection closes may never see the refusal.
MAX_DRAINED: Final = 32 << 20
MAX_DEPTH: Final = 64
SPELLED: Final = {"enum": ["true", "false", 1, 0]}
_FLAGS: Final = {"true": True, "false": False}
_NULL: Final = {"type": "null"}
_NUMBER: Final = re.compile(r"-?[0-9]{1,19}(\.[0-9]{1,19})?")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def json_text(value: Any) -> str:
    """`value` as JSON, as a model reads it best: other alphabets are no escapes."""
    return json.dumps(value, ensure_ascii=False)


def _schema_text(schema: Any) -> Any:
    return json_text(schema) if isinstance(schema, dict) else schema


def flag(said: Any) -> Any:
    """A boolean that is spelled out, or 1 or 0, as one; anything else as it is."""
    if isinstance(said, str):
        return _FLAGS.get(said.lower(), said)
    return bool(said) if type(said) is int and said in (0, 1) else said


def number(said: Any) -> Any:
    """A number that is spelled out as one; anything else as it is."""
    if not (isinstance(said, str) and _NUMBER.fullmatch(said)):
        return said
    return float(said) if "." in said else int(said)


def _stop_at_first_error(schema: Any) -> None:
    """Of every list and object in a core schema."""
    if isinstance(schema, dict):
        if schema.get("type") in ("list", "tuple", "dict"):
            schema["fail_fast"] = True
        for part in schema.values():
            _stop_at_first_error(part)
    elif isinstance(schema, list):
        for part in schema:
            _stop_at_first_error(part)


class WireModel(BaseModel):
    """A strict model of a request: exact types, finite numbers, unknown fields ignored.

    Null says nothing, and booleans and numbers may be spelled out; of numbers the schema does not
    tell. Every field of a model says how large it may be; tests see to it. Of a list or an object
    only the first element that is wrong is told: an error for each would take far more memory than
    the body.
    """

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True)
    _plain: ClassVar[Mapping[str, Callable[[Any], Any]]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        fields = {field.alias or name: field for name, field in cls.model_fields.items()}
        kinds = {name: _kinds(field.annotation) for name, field in fields.items()}
        cls._plain = {
            name: flag if bool in kind else number
            for name, kind in kinds.items()
            if kind & {bool, int, float} and str not in kind
        }

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _stop_at_first_error(handler.resolve_ref_schema(schema))
        return schema

    @model_validator(mode="before")
    @classmethod
    def _said(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        said = {field: value for field, value in body.items() if value is not None}
        for field in cls._plain.keys() & said.keys():
            said[field] = cls._plain[field](said[field])
        return said

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core)
        inner = handler.resolve_ref_schema(schema)
        for field, about in inner.get("properties", {}).items():
            spelled = [SPELLED] if cls._plain.get(field) is flag else []
            null = [] if field in inner.get("required", ()) else [_NULL]
            inner["properties"][field] = _or(about, spelled + null)
        return schema


def _kinds(annotation: Any) -> set[type]:
    """The plain types of which the value of a field may be."""
    match get_origin(annotation):
        case None:
            return {annotation} if isinstance(annotation, type) else set()
        case origin if origin is Annotated:
            return _kinds(get_args(annotation)[0])
        case origin if origin in (Union, UnionType):
            return set().union(*map(_kinds, get_args(annotation)))
    return set()


def _or(schema: dict[str, Any], more: list[dict[str, Any]]) -> dict[str, Any]:
    """`schema`, or what one of `more` allows."""
    known = schema.get("anyOf", [schema])
    new = [one for one in more if one not in known]
    around = schema if "anyOf" in schema else {}
    return around | {"anyOf": [*known, *new]} if new else schema


Model = TypeVar("Model", bound=WireModel)
INT32: Final = 2**31 - 1
Text = Annotated[str, Field(max_length=MAX_BODY)]
Word = Annotated[str, Field(max_length=256)]
SchemaText = Annotated[
    str,
    Field(min_length=1, max_length=2 * MAX_BODY),  # an object is longer when it is written again
    BeforeValidator(_schema_text),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "object", "maxProperties": MAX_BODY},
                {"type": "string", "minLength": 1, "maxLength": MAX_BODY},
            ]
        }
    ),
]


async def read_object(http: Request, hold: Callable[[int], None]) -> dict[str, Any]:
    """The JSON object in a request's body, see `parse_object`; `hold` is told of bytes that are
    kept, and may raise.

    Raises `BodyTooLarge` over 4 MiB, without keeping the rest or waiting for its end, and
    `ClientGone` if the client hangs up meanwhile.
    """
    return parse_object(await read_bytes(http, hold))


async def read_bytes(http: Request, hold: Callable[[int], None], most: int = MAX_BODY) -> bytes:
    """A request's body of at most `most` bytes. Raises as `read_object`."""
    declared = http.headers.get("content-length", "0")
    body, size = bytearray(), int(declared) if declared.isdecimal() else 0
    try:
        if size <= MAX_DRAINED:
            size = 0
            async for chunk in http.stream():
                size += len(chunk)
                if size > MAX_DRAINED:
                    break
                if size <= most:
                    hold(len(chunk))
                    body += chunk
    except ClientDisconnect:
        raise ClientGone("The client hung up while sending its request.") from None
    if size > most:
        raise BodyTooLarge(f"The body is larger than {most >> 20} MiB.")
    return bytes(body)


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`.

    Raises `BadRequest` for anything else, and for what a strict reader would refuse: NaN and
    infinities, integers over 64 bits, lone surrogates, nesting over 64 levels.
    """
    value = _parse(body)
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object.")
    for field, content in value.items():
        _check(field, None)
        _check(content, field)
    return value


def validate(model: type[Model], body: Mapping[str, Any]) -> Model:
    """`body` as a `model`; raises `BadRequest` naming the first field that is wrong."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ").rstrip(".")
        raise BadRequest(f"{field}: {message}.", field) from None


def read(
    model: type[Model], raw: Mapping[str, Any], refused: Mapping[str, tuple[Any, ...]]
) -> Model:
    """`raw` as a `model`. Raises `BadRequest` naming the field that is wrong, or asks for what this
    server would silently not do: `refused` has the values that ask for nothing, as null does.
    """
    for field, neutral in refused.items():
        if raw.get(field) is not None and flag(raw[field]) not in neutral:
            raise BadRequest(f"{field} with this value is not supported yet; leave it out.", field)
    return validate(model, raw)


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise BadRequest("The body is not valid UTF-8.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise BadRequest(f"The body is not valid JSON: see {where}.") from None
    except ValueError:  # an integer of thousands of digits
        raise BadRequest("The body holds a number that is too large.") from None
    except RecursionError:
        raise BadRequest(f"The body is nested deeper than {MAX_DEPTH} levels.") from None


def _check(value: Any, field: str | None) -> None:
    """Refuse what Python's JSON reader lets through and a strict one would not."""
    level, depth = [value], 2  # the body itself is level 1
    while level:
        if depth > MAX_DEPTH:
            raise BadRequest(f"The body is nested deeper than {MAX_DEPTH} levels.", field)
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item.keys()
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif problem := _problem(item):
                raise BadRequest(f"{field or 'The body'}: {problem}.", field)
        level, depth = below, depth + 1


def _problem(scalar: Any) -> str | None:
    match scalar:
        case str() if _SURROGATE.search(scalar):
            return "text holds half of a surrogate pair"
        case float() if not math.isfinite(scalar):
            return "NaN and infinities are not JSON numbers"
        case int() if not -(2**63) <= scalar < 2**63:
            return "integers of more than 64 bits are not supported"
    return None
