"""Model files without weights, for tests: real headers over sparse files, and hand-made ones."""

import struct
from dataclasses import dataclass
from pathlib import Path

from benchmarks.synthetic import Shape, begin, tensors

ALIGNMENT = 32
U32, STRING, ARRAY = 4, 8, 9
F32 = 0


def write_header(path: Path, shape: Shape) -> Path:
    """A GGUF that every check of a reader accepts; its weights are a hole in the file."""
    begin(path, shape).close()
    length = -(-path.stat().st_size // ALIGNMENT) * ALIGNMENT
    for tensor in tensors(shape):
        length += -(-tensor.bytes // ALIGNMENT) * ALIGNMENT
    with path.open("r+b") as file:
        file.truncate(length)
    return path


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def u32(key: str, value: int) -> bytes:
    return string(key) + struct.pack("<II", U32, value)


def text(key: str, value: str) -> bytes:
    return string(key) + struct.pack("<I", STRING) + string(value)


def strings(key: str, values: list[str]) -> bytes:
    return array(key, STRING, len(values)) + b"".join(map(string, values))


def array(key: str, kind: int, length: int) -> bytes:
    """The beginning of an array; its elements follow."""
    return string(key) + struct.pack("<IIQ", ARRAY, kind, length)


def tensor(
    name: str = "token_embd.weight",
    dims: tuple[int, ...] = (8, 4),
    kind: int = F32,
    offset: int = 0,
) -> bytes:
    dimensions = struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
    return string(name) + dimensions + struct.pack("<IQ", kind, offset)


def figures() -> dict[str, bytes]:
    """The metadata that a model cannot do without, by key."""
    entries = {
        "general.architecture": text("general.architecture", "qwen3"),
        "tokenizer.ggml.tokens": strings("tokenizer.ggml.tokens", ["a", "b", "c", "d"]),
    }
    for name, value in (
        ("block_count", 1),
        ("embedding_length", 8),
        ("attention.head_count", 2),
        ("context_length", 64),
    ):
        entries[f"qwen3.{name}"] = u32(f"qwen3.{name}", value)
    return entries


@dataclass(frozen=True)
class Handmade:
    """The bytes of a GGUF, sound unless a field says otherwise."""

    metadata: tuple[bytes, ...] = tuple(figures().values())
    tensors: tuple[bytes, ...] = (tensor(),)
    magic: bytes = b"GGUF"
    version: int = 3
    tensor_count: int | None = None
    metadata_count: int | None = None
    data: bytes = bytes(8 * 4 * 4)

    def bytes(self) -> bytes:
        tensor_count = len(self.tensors) if self.tensor_count is None else self.tensor_count
        metadata_count = len(self.metadata) if self.metadata_count is None else self.metadata_count
        start = self.magic + struct.pack("<IQQ", self.version, tensor_count, metadata_count)
        header = start + b"".join(self.metadata) + b"".join(self.tensors)
        return header + bytes(-len(header) % ALIGNMENT) + self.data

    def at(self, path: Path) -> Path:
        path.write_bytes(self.bytes())
        return path
