"""What the header of a GGUF file says about its model: dimensions, quantisation, chat template.

Also what follows from the dimensions alone: bytes of weights, and of keys and values per token.
This module knows the names of the metadata keys; it knows neither llama.cpp nor how much memory
there is. A mixture of experts says so through its expert figures.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from inference.errors import BadModelFile
from inference.gguf_format import (
    F32,
    I32,
    STRING,
    Array,
    GgufFile,
    Stamp,
    TensorInfo,
    damaged,
    printable,
    read,
)
from inference.types import Pooling

KvType = Literal["f16", "q8_0"]
KV_TYPES: tuple[KvType, ...] = get_args(KvType)

MAX_FIGURE = 1 << 24  # of anything a model counts: layers, heads, tokens
MAX_LAYERS = 512  # of llama.cpp
MAX_TEMPLATE = 256 << 10  # characters
UNKNOWN_QUANT = 1024

# <architecture>.pooling_type, how an embedding model makes one vector of many (llama.h).
POOLINGS: dict[int, Pooling] = {0: "", 1: "mean", 2: "cls", 3: "last"}

# Lists of the vocabulary -> the types their elements can have; numbers are one for each token.
_LISTS = {"tokens": {STRING}, "merges": {STRING}, "scores": {F32, I32}, "token_type": {I32}}

# general.file_type -> the label people know (llama.h, llama_ftype).
QUANTS = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4", 39: "NVFP4",
    40: "Q1_0",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """What a GGUF header says; sizes in bytes, lengths in tokens or elements.

    `quant` is the label of the file type ("Q4_K_M"), `context` the length the model was trained
    for; the expert figures are 0 for a dense model. `pooling` is empty unless it is an embedding
    model; where one is not `causal`, tokens see those that follow as well.
    """

    path: Path
    size: int
    stamp: Stamp
    architecture: str
    name: str
    quant: str
    layers: int
    embedding: int
    feed_forward: int
    heads: int
    kv_heads: int
    key_size: int
    value_size: int
    vocabulary: int
    context: int
    experts: int
    experts_used: int
    expert_feed_forward: int
    pooling: Pooling
    causal: bool
    chat_template: str | None
    tensors: tuple[TensorInfo, ...]

    @property
    def whole_inputs(self) -> bool:
        """Whether all tokens of an input have to be computed in one call to be made a vector of."""
        return self.pooling in ("mean", "cls") or self.encodes

    @property
    def encodes(self) -> bool:
        """Whether it is an embedding model whose tokens see all of an input: nothing is kept."""
        return bool(self.pooling) and not self.causal

    @property
    def parameters(self) -> int:
        return sum(math.prod(tensor.dims) for tensor in self.tensors)

    @property
    def weight_bytes(self) -> int:
        return sum(tensor.bytes for tensor in self.tensors)

    def kv_bytes_per_token(self, kv_type: KvType) -> int:
        """Keys and values of one token over all layers; q8_0 stores 32 numbers in 34 bytes."""
        if self.encodes:
            return 0
        numbers = self.layers * self.kv_heads * (self.key_size + self.value_size)
        return numbers * 34 // 32 if kv_type == "q8_0" else numbers * 2


def read_header(path: Path) -> GgufHeader:
    """What the GGUF file at `path` says about its model; all its tensors are inside the file.

    Raises `BadModelFile` with one sentence when the file cannot be read, is truncated or damaged,
    or is no language model.
    """
    file = read(path)
    if _number(file, "split.count", 1) > 1:
        raise BadModelFile(
            f"{path} is one part of a split model; merge the parts with llama-gguf-split first."
        )
    own = _text(file, "general.architecture") + "."
    embedding = _number(file, own + "embedding_length")
    heads = _number(file, own + "attention.head_count")
    key_size = _number(file, own + "attention.key_length", embedding // heads)
    return GgufHeader(
        path=path,
        size=file.size,
        stamp=file.stamp,
        architecture=own[:-1],
        name=_text(file, "general.name") or path.stem,
        quant=QUANTS.get(_number(file, "general.file_type", UNKNOWN_QUANT, least=0), "unknown"),
        layers=_number(file, own + "block_count", most=MAX_LAYERS),
        embedding=embedding,
        feed_forward=_number(file, own + "feed_forward_length", 0, least=0),
        heads=heads,
        kv_heads=_number(file, own + "attention.head_count_kv", heads),
        key_size=key_size,
        value_size=_number(file, own + "attention.value_length", key_size),
        vocabulary=_vocabulary(file),
        context=_number(file, own + "context_length"),
        experts=_number(file, own + "expert_count", 0, least=0),
        experts_used=_number(file, own + "expert_used_count", 0, least=0),
        expert_feed_forward=_number(file, own + "expert_feed_forward_length", 0, least=0),
        pooling=_pooling(file, own),
        causal=file.metadata.get(own + "attention.causal") is not False,
        chat_template=_template(file),
        tensors=file.tensors,
    )


def _text(file: GgufFile, key: str) -> str:
    value = file.metadata.get(key)
    return printable(value) if isinstance(value, str) else ""


def _pooling(file: GgufFile, own: str) -> Pooling:
    pooling = POOLINGS.get(_number(file, own + "pooling_type", 0, least=0))
    if pooling is None:
        raise BadModelFile(f"{file.path} is a reranker, which is not supported; choose another.")
    return pooling


def _template(file: GgufFile) -> str | None:
    value = file.metadata.get("tokenizer.chat_template")
    if not isinstance(value, str):
        return None
    if len(value) > MAX_TEMPLATE:
        raise damaged(file.path, f"its chat template is longer than {MAX_TEMPLATE:,} characters")
    return value


def _vocabulary(file: GgufFile) -> int:
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, Array) or not tokens.length:
        raise damaged(file.path, "it has no list of tokens")
    for name, types in _LISTS.items():
        found = file.metadata.get(key := f"tokenizer.ggml.{name}")
        if found is None:
            continue
        if not isinstance(found, Array) or found.type not in types:
            raise damaged(file.path, f"its {key!r} is not a list of the type it should be")
        if STRING not in types and found.length < tokens.length:
            raise damaged(file.path, f"its {key!r} is shorter than its list of tokens")
    return tokens.length


def _number(
    file: GgufFile, key: str, default: int | None = None, least: int = 1, most: int = MAX_FIGURE
) -> int:
    """A whole number of the metadata, or the largest where each layer has its own."""
    value = file.metadata.get(key, default)
    if value is None:
        raise damaged(file.path, f"it does not say {key!r}")
    values = value.values if isinstance(value, Array) else (value,)
    numbers = [number for number in values if isinstance(number, int)]
    if len(numbers) < len(values) or not least <= max(numbers, default=-1) <= most:
        raise damaged(file.path, f"its {key!r} is not a number it can be")
    return max(numbers)
