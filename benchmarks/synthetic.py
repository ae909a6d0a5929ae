"""Writes GGUF files with the shape of a Qwen3 model and random weights.

Same tensors, same vocabulary size, same speed as the real model, and no meaning: for measuring
where the real weights cannot be had. Quantised blocks are drawn directly as random bytes with
one sane scale, so nothing is ever quantised and only one tensor is in memory at a time. This
module knows nothing of llama.cpp; the format is the `gguf` package's business.

    python -m benchmarks.synthetic 0.6b qwen3-0.6b-synthetic.gguf
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from gguf import (
    GGML_QUANT_SIZES,
    GGMLQuantizationType,
    GGUFWriter,
    LlamaFileType,
    PoolingType,
    TokenType,
)
from numpy.typing import NDArray

SPREAD = 0.02  # standard deviation of every weight: keeps logits finite at any depth
TRAINED_CONTEXT = 40_960
LETTERS = "etaoinshrdlcumwfgypbvkjxqz"
SPACE = "Ġ"

# Places after the ordinary tokens, as in Qwen3, whose 151,643 ordinary tokens they follow.
CONTROL = {0: "<|endoftext|>", 1: "<|im_start|>", 2: "<|im_end|>"}
MARKERS = {
    14: "<tool_call>",
    15: "</tool_call>",
    22: "<tool_response>",
    23: "</tool_response>",
    24: "<think>",
    25: "</think>",
}
SPECIALS = 293

CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}
{%- endif -%}
"""


@dataclass(frozen=True)
class Shape:
    """The dimensions of a Qwen3 model; the defaults are those that all sizes share."""

    name: str
    file_type: LlamaFileType
    layers: int
    hidden: int
    heads: int
    feed_forward: int
    tied: bool
    kv_heads: int = 8
    head_size: int = 128
    vocabulary: int = 151_936
    embedding: bool = False  # whether it is one for embeddings, pooled as Qwen3-Embedding is


@dataclass(frozen=True)
class Tensor:
    """Name, rows x columns (or columns alone) and storage type of one tensor."""

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType

    @property
    def bytes(self) -> int:
        weights, size = GGML_QUANT_SIZES[self.type]
        return math.prod(self.shape) // int(weights) * int(size)


PRESETS = {
    "tiny": Shape(
        name="Qwen3 tiny, synthetic",
        file_type=LlamaFileType.MOSTLY_Q8_0,
        layers=2,
        hidden=64,
        heads=4,
        feed_forward=128,
        tied=True,
        kv_heads=2,
        head_size=32,
        vocabulary=1024,
    ),
    "0.6b": Shape(
        name="Qwen3 0.6B, synthetic",
        file_type=LlamaFileType.MOSTLY_Q8_0,
        layers=28,
        hidden=1024,
        heads=16,
        feed_forward=3072,
        tied=True,
    ),
    "32b": Shape(
        name="Qwen3 32B, synthetic",
        file_type=LlamaFileType.MOSTLY_Q4_K_M,
        layers=64,
        hidden=5120,
        heads=64,
        feed_forward=25_600,
        tied=False,
    ),
}


def tensors(shape: Shape) -> Iterator[Tensor]:
    """Every tensor of the model, in file order."""
    plain, rich = _types(shape)
    yield Tensor("token_embd.weight", (shape.vocabulary, shape.hidden), plain)
    for layer in range(shape.layers):
        careful = rich if _gets_more_bits(layer, shape.layers) else plain
        yield from _layer(shape, layer, plain, careful)
    yield _norm("output_norm", shape.hidden)
    if not shape.tied:
        yield Tensor("output.weight", (shape.vocabulary, shape.hidden), rich)


def _types(shape: Shape) -> tuple[GGMLQuantizationType, GGMLQuantizationType]:
    """Storage of ordinary matrices, and of those that a mixed quantisation treats better."""
    if shape.file_type == LlamaFileType.MOSTLY_Q4_K_M:
        return GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q6_K
    return GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q8_0


def _gets_more_bits(layer: int, layers: int) -> bool:
    """Whether Q4_K_M keeps attn_v and ffn_down of this layer in Q6_K (llama.cpp's quantiser:
    the first and last eighth, and every third layer between)."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _layer(
    shape: Shape, layer: int, plain: GGMLQuantizationType, careful: GGMLQuantizationType
) -> Iterator[Tensor]:
    queries, keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    prefix = f"blk.{layer}."
    yield _norm(prefix + "attn_norm", shape.hidden)
    yield Tensor(prefix + "attn_q.weight", (queries, shape.hidden), plain)
    yield Tensor(prefix + "attn_k.weight", (keys, shape.hidden), plain)
    yield Tensor(prefix + "attn_v.weight", (keys, shape.hidden), careful)
    yield Tensor(prefix + "attn_output.weight", (shape.hidden, queries), plain)
    yield _norm(prefix + "attn_q_norm", shape.head_size)
    yield _norm(prefix + "attn_k_norm", shape.head_size)
    yield _norm(prefix + "ffn_norm", shape.hidden)
    yield Tensor(prefix + "ffn_gate.weight", (shape.feed_forward, shape.hidden), plain)
    yield Tensor(prefix + "ffn_up.weight", (shape.feed_forward, shape.hidden), plain)
    yield Tensor(prefix + "ffn_down.weight", (shape.hidden, shape.feed_forward), careful)


def _norm(name: str, size: int) -> Tensor:
    return Tensor(name + ".weight", (size,), GGMLQuantizationType.F32)


def data(tensor: Tensor, rng: np.random.Generator) -> NDArray[np.generic]:
    """Random content of a tensor: ones for norms, else blocks of random bytes and a set scale.

    Block layouts and their decoding are those of ggml-common.h: Q8_0 is a scale and 32 int8;
    Q4_K is d, dmin, then 6-bit scales and minima and 4-bit weights; Q6_K ends with d.
    """
    if tensor.type == GGMLQuantizationType.F32:
        return np.ones(tensor.shape, np.float32)
    size = GGML_QUANT_SIZES[tensor.type][1]
    # Raw 64-bit draws: fifteen times faster than Generator.bytes.
    draws = rng.bit_generator.random_raw(-(-tensor.bytes // 8))
    blocks = draws.view(np.uint8)[: tensor.bytes].reshape(-1, size)
    match tensor.type:
        case GGMLQuantizationType.Q8_0:
            blocks[:, 0:2] = _half(SPREAD / 73.9)
        case GGMLQuantizationType.Q4_K:
            blocks[:, 0:2] = _half(SPREAD / 258)
            blocks[:, 2:4] = _half(SPREAD / 258 * 7.5)  # the mean 4-bit weight, so the mean is 0
        case GGMLQuantizationType.Q6_K:
            blocks[:, 208:210] = _half(SPREAD / 1365)
    return blocks


def _half(value: float) -> NDArray[np.uint8]:
    """The two bytes of a half-precision number."""
    return np.array([value], "<f2").view(np.uint8)


def merges(count: int) -> list[tuple[str, str]]:
    """The first `count` byte-pair merges of all letter sequences of 2 to 4, commonest first."""
    pairs = ["".join(letters) for letters in product(LETTERS, repeat=2)]
    found = (
        [(a, b) for a, b in product(LETTERS, LETTERS)],
        [(SPACE, letter) for letter in LETTERS],
        [(SPACE, pair) for pair in pairs],
        [(pair, letter) for pair in pairs for letter in LETTERS],
        [(SPACE + pair, letter) for pair in pairs for letter in LETTERS],
        product(pairs, pairs),
    )
    return list(islice((merge for group in found for merge in group), count))


def byte_tokens() -> list[str]:
    """One printable character for each byte: itself if it prints in Latin-1, else 256 and up.

    The order of the byte-level alphabet of GPT-2, which Qwen shares.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(256 - len(printable))]


def add_vocabulary(writer: GGUFWriter, size: int) -> None:
    ordinary = size - SPECIALS
    pairs = merges(ordinary - 256)
    tokens = byte_tokens() + [left + right for left, right in pairs]
    types = [TokenType.NORMAL] * ordinary
    for place in range(SPECIALS):
        tokens.append(CONTROL.get(place) or MARKERS.get(place) or f"<|unused_{place}|>")
        types.append(_special_type(place))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([f"{left} {right}" for left, right in pairs])
    writer.add_eos_token_id(ordinary + 2)
    writer.add_pad_token_id(ordinary)
    writer.add_bos_token_id(ordinary)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _special_type(place: int) -> TokenType:
    if place in CONTROL:
        return TokenType.CONTROL
    return TokenType.USER_DEFINED if place in MARKERS else TokenType.UNUSED


def begin(path: Path, shape: Shape) -> GGUFWriter:
    """Write everything but the weights; the writer returned expects `tensors(shape)` in order."""
    writer = GGUFWriter(path, "qwen3")
    writer.add_name(shape.name)
    writer.add_file_type(shape.file_type)
    writer.add_quantization_version(2)
    writer.add_block_count(shape.layers)
    writer.add_context_length(TRAINED_CONTEXT)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-6)
    add_vocabulary(writer, shape.vocabulary)
    if shape.embedding:
        writer.add_pooling_type(PoolingType.LAST)
        writer.add_add_eos_token(True)
    for tensor in tensors(shape):
        writer.add_tensor_info(
            tensor.name, tensor.shape, np.dtype(np.float32), tensor.bytes, raw_dtype=tensor.type
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    return writer


def write(path: Path, shape: Shape, seed: int = 0) -> None:
    """Write a whole model file; an interrupted run leaves only a `.part` beside `path`."""
    part = path.with_name(path.name + ".part")
    writer = begin(part, shape)
    rng = np.random.default_rng(seed)
    for tensor in tensors(shape):
        writer.write_tensor_data(data(tensor, rng))
    writer.close()
    part.replace(path)


def main(
    preset: Annotated[str, typer.Argument(help="One of: " + ", ".join(PRESETS))],
    path: Annotated[Path, typer.Argument(help="The GGUF file to write")],
    seed: int = 0,
    embedding: Annotated[bool, typer.Option("--embedding", help="An embedding model.")] = False,
) -> None:
    """Write a model of random weights; the same seed gives the same file."""
    if preset not in PRESETS:
        raise typer.BadParameter(f"{preset} is not one of {', '.join(PRESETS)}.")
    write(path, replace(PRESETS[preset], embedding=embedding), seed)
    typer.echo(f"{path}: {path.stat().st_size / 1e6:,.0f} MB, random weights")


if __name__ == "__main__":
    typer.run(main)
