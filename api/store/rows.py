"""Records as rows of their tables: a column for each field, JSON where SQLite has no type for it.

Knows no query.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
from msgspec.json import Decoder

from api.store.records import Call, Settings, Usage

_READ: Final[dict[str, Callable[[Any], Any]]] = {
    "settings": Decoder(Settings).decode,
    "tool_calls": Decoder(tuple[Call, ...]).decode,
    "usage": Decoder(Usage).decode,
    "facts": Decoder(tuple[str, ...]).decode,
    "shared": bool,
}

Record = TypeVar("Record", bound=msgspec.Struct)


def columns(kind: type[msgspec.Struct]) -> str:
    return ", ".join(kind.__struct_fields__)


def marks(kind: type[msgspec.Struct]) -> str:
    """Places for the `values` of a record."""
    return ", ".join("?" * len(kind.__struct_fields__))


def values(record: msgspec.Struct) -> tuple[Any, ...]:
    """What is in its row, in the order of its fields."""
    return tuple(map(_written, msgspec.structs.astuple(record)))


def record_of(kind: type[Record], row: tuple[Any, ...]) -> Record:
    said = zip(kind.__struct_fields__, row, strict=True)
    return kind(**{name: _read(name, value) for name, value in said})


def as_json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def _written(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else as_json(value)


def _read(name: str, value: Any) -> Any:
    return value if value is None or name not in _READ else _READ[name](value)
