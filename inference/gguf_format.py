"""The GGUF file format, read from untrusted files: metadata and tensor table, not the data.

Every count, length and offset is checked before it is followed, so that a damaged or hostile file
costs one `BadModelFile` and nothing else. Token lists are walked, not built, which keeps a
vocabulary of 151,936 under 0.1 s. Format: the GGUF page of the ggml project, versions 2 and 3,
little endian. This module does not know what any key means beyond the alignment.
"""

import math
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import NoReturn

from inference.errors import BadModelFile

MAX_ENTRIES = 65_536  # metadata entries, and tensors
MAX_KEY = 65_536  # bytes
MAX_STRING = 1 << 20  # bytes
MAX_ARRAY = 1 << 24  # elements
MAX_ALIGNMENT = 65_536  # bytes
MAX_NAME = 63  # bytes, of llama.cpp
MAX_HEADER = 256 << 20  # bytes; a vocabulary of 262,144 takes ten
KEPT_ELEMENTS = 1024  # longer arrays are skipped; per-layer figures are shorter

I32, F32, STRING, ARRAY = 5, 6, 8, 9
SCALARS = {
    0: Struct("<B"),
    1: Struct("<b"),
    2: Struct("<H"),
    3: Struct("<h"),
    4: Struct("<I"),
    5: Struct("<i"),
    6: Struct("<f"),
    7: Struct("<?"),
    10: Struct("<Q"),
    11: Struct("<q"),
    12: Struct("<d"),
}
U32, U64 = SCALARS[4], SCALARS[10]

# Tensor type -> weights per block, bytes per block (ggml.h, ggml-common.h).
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    9: (32, 40), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18),
    21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),
    28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
    40: (64, 36), 41: (128, 18),
}  # fmt: skip


Stamp = tuple[int, int, int]
"""Inode, size and time of the last change: another file in the same place has another one."""


def stamp_of(status: os.stat_result) -> Stamp:
    return status.st_ino, status.st_size, status.st_mtime_ns


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: ggml type, dimensions (fastest first), offset in the data and size in bytes."""

    name: str
    type: int
    dims: tuple[int, ...]
    offset: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Array:
    """An array of the metadata; `type` is that of its elements, `values` is empty where they were
    skipped."""

    type: int
    length: int
    values: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class GgufFile:
    """The checked header of a file of `size` bytes."""

    path: Path
    size: int
    stamp: Stamp
    metadata: dict[str, object]
    tensors: tuple[TensorInfo, ...]


def damaged(path: Path, what: str) -> BadModelFile:
    return BadModelFile(f"{path} is damaged: {what}; fetch it again or choose another file.")


class _Cursor:
    """Reads forward through an untrusted header; a fault is a `BadModelFile` naming the file."""

    def __init__(self, path: Path, size: int, data: mmap.mmap) -> None:
        self.path = path
        self.size = size
        self.data = data  # the beginning of the file
        self.place = 0

    def fault(self, what: str) -> NoReturn:
        raise damaged(self.path, what)

    def beyond(self, place: int) -> NoReturn:
        """The header goes on at `place`, where nothing can be read."""
        if place <= self.size:
            self.fault(f"its header is larger than {MAX_HEADER >> 20} MiB")
        self.truncated(f"at least {place:,} bytes")

    def truncated(self, expected: str) -> NoReturn:
        raise BadModelFile(
            f"{self.path} is truncated: expected {expected}, found {self.size:,} bytes; the "
            "download is probably incomplete, so fetch it again."
        )

    def advance(self, count: int) -> int:
        """Step over `count` bytes and say where they begin."""
        begin = self.place
        self.place += count
        if self.place > len(self.data):
            self.beyond(self.place)
        return begin

    def number(self, kind: Struct) -> int:
        return int(self.scalar(kind))

    def scalar(self, kind: Struct) -> int | float | bool:
        value: int | float | bool = kind.unpack_from(self.data, self.advance(kind.size))[0]
        return value

    def count(self, most: int, what: str) -> int:
        value = self.number(U64)
        if value > most:
            self.fault(f"it claims {value:,} {what} and at most {most:,} are allowed")
        return value

    def string(self, most: int = MAX_STRING) -> str:
        length = self.count(most, "bytes in one string")
        begin = self.advance(length)
        return self.data[begin : begin + length].decode("utf-8", "replace")

    def skip_strings(self, count: int) -> None:
        """Step over `count` strings; written flat because it runs for every token."""
        data, place, unpack, end = self.data, self.place, U64.unpack_from, len(self.data) - 8
        for _ in range(count):
            if place > end:
                self.beyond(place + 8)
            length = unpack(data, place)[0]
            if length > MAX_STRING:
                self.fault(f"it claims a string of {length:,} bytes")
            place += 8 + length
        self.place = place
        self.advance(0)

    def value(self) -> object:
        kind = self.number(U32)
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return self.array()
        return self.scalar(self.known(kind))

    def array(self) -> Array:
        kind = self.number(U32)
        length = self.count(MAX_ARRAY, "elements in one array")
        if kind == STRING:
            self.skip_strings(length)
            return Array(kind, length)
        element = self.known(kind)
        if length <= KEPT_ELEMENTS:
            return Array(kind, length, tuple(self.scalar(element) for _ in range(length)))
        self.advance(length * element.size)
        return Array(kind, length)

    def known(self, kind: int) -> Struct:
        if kind not in SCALARS:
            self.fault(f"it holds a value of the unknown type {kind}")
        return SCALARS[kind]


def read(path: Path) -> GgufFile:
    """The header of the GGUF file at `path`, after checking that all its tensors are inside.

    Raises `BadModelFile` with one sentence when the file cannot be read, is no GGUF of version 2
    or 3, is truncated, or says something impossible.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not status.st_size:
                raise BadModelFile(f"{path} is empty; fetch it again.")
            length = min(status.st_size, MAX_HEADER)
            with mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ) as data:
                return _read(_Cursor(path, status.st_size, data), stamp_of(status))
    except OSError as error:
        raise BadModelFile(f"{path} cannot be read: {error.strerror}.") from error


def _read(cursor: _Cursor, stamp: Stamp) -> GgufFile:
    _check_magic(cursor)
    tensor_count = cursor.count(MAX_ENTRIES, "tensors")
    metadata = dict(_entries(cursor, cursor.count(MAX_ENTRIES, "metadata entries")))
    tensors = tuple(_tensor(cursor) for _ in range(tensor_count))
    if len({tensor.name for tensor in tensors}) < tensor_count:
        cursor.fault("two of its tensors have the same name")
    _check_data(cursor, _alignment(cursor, metadata), tensors)
    return GgufFile(cursor.path, cursor.size, stamp, metadata, tensors)


def _check_magic(cursor: _Cursor) -> None:
    begin = cursor.advance(4)
    if cursor.data[begin : begin + 4] != b"GGUF":
        raise BadModelFile(f"{cursor.path} is not a GGUF file; choose a file that ends in .gguf.")
    version = cursor.number(U32)
    if version not in (2, 3):
        raise BadModelFile(
            f"{cursor.path} is GGUF version {version}, and only 2 and 3 (little endian) can be "
            "read; convert it again with a current llama.cpp."
        )


def _entries(cursor: _Cursor, count: int) -> Iterator[tuple[str, object]]:
    seen = set()
    for _ in range(count):
        key = cursor.string(MAX_KEY)
        if not key or key in seen:
            cursor.fault(f"its metadata key {printable(key)!r} is empty or appears twice")
        seen.add(key)
        yield key, cursor.value()


def _tensor(cursor: _Cursor) -> TensorInfo:
    name = cursor.string(MAX_NAME)
    rank = cursor.number(U32)
    if not 1 <= rank <= 4:
        cursor.fault(f"the tensor {printable(name)!r} has {rank} dimensions")
    dims = tuple(cursor.count(1 << 40, "elements in one dimension") for _ in range(rank))
    kind, offset = cursor.number(U32), cursor.number(U64)
    if kind not in BLOCKS:
        cursor.fault(f"the tensor {printable(name)!r} has the unknown type {kind}")
    per_block, block_bytes = BLOCKS[kind]
    elements = math.prod(dims)
    if not elements or elements >= 1 << 63 or dims[0] % per_block:
        cursor.fault(f"the tensor {printable(name)!r} has the impossible dimensions {dims}")
    return TensorInfo(name, kind, dims, offset, elements // per_block * block_bytes)


def _alignment(cursor: _Cursor, metadata: dict[str, object]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= MAX_ALIGNMENT:
        cursor.fault("its alignment is not a number it can be")
    if alignment & (alignment - 1):
        cursor.fault(f"its alignment {alignment} is not a power of two")
    return alignment


def _check_data(cursor: _Cursor, alignment: int, tensors: tuple[TensorInfo, ...]) -> None:
    for tensor in tensors:
        if tensor.offset % alignment:
            cursor.fault(f"the tensor {printable(tensor.name)!r} is not aligned")
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        if tensor.offset < end:
            cursor.fault(f"the tensor {printable(tensor.name)!r} overlaps another one")
        end = tensor.offset + tensor.bytes
    expected = -(-cursor.place // alignment) * alignment + end
    if expected > cursor.size:
        cursor.truncated(f"{expected:,} bytes")


def printable(text: str, most: int = 100) -> str:
    """Untrusted text made fit for a terminal: printable, so many characters at most."""
    return "".join(char for char in text[:most] if char.isprintable())
