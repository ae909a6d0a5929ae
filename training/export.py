"""Writes the checkpoint as one GGUF file: Q8_0 matrices, F32 norms, tokenizer, template, card."""

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer

from training.dialogue import TEMPLATE
from training.model import Shape
from training.tokenizer import CONTROL, DEFINED

ARCHITECTURE = "qwen3"
NAME = "qwen3-demo"
DESCRIPTION = (
    "A tiny demonstration chat model in English and Chinese, trained from scratch on a synthetic, "
    "generated corpus. Embedded in Onebox; not for real work."
)


def export(checkpoint: Path, bpe: Tokenizer, target: Path) -> int:
    """Returns the number of parameters."""
    stored = torch.load(checkpoint, weights_only=True)
    shape = Shape(**stored["shape"])
    partial = target.with_suffix(".part")
    writer = gguf.GGUFWriter(partial, ARCHITECTURE)
    describe(writer)
    add_shape(writer, shape)
    add_tokenizer(writer, bpe)
    add_tensors(writer, stored["weights"], shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(target)
    return sum(tensor.numel() for tensor in stored["weights"].values())


def describe(writer: gguf.GGUFWriter) -> None:
    writer.add_type("model")
    writer.add_name(NAME)
    writer.add_basename(NAME)
    writer.add_organization("Onebox")
    writer.add_description(DESCRIPTION)
    writer.add_size_label("5.5M")
    writer.add_license("apache-2.0")
    writer.add_tags(["text-generation", "chat", "demo", "synthetic"])
    writer.add_languages(["en", "zh"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)


def add_shape(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_vocab_size(shape.vocab)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.norm_eps)


def token_type(text: str) -> gguf.TokenType:
    if text in CONTROL:
        return gguf.TokenType.CONTROL
    return gguf.TokenType.USER_DEFINED if text in DEFINED else gguf.TokenType.NORMAL


def add_tokenizer(writer: gguf.GGUFWriter, bpe: Tokenizer) -> None:
    texts = [bpe.id_to_token(i) for i in range(bpe.get_vocab_size())]
    merges = json.loads(bpe.to_str())["model"]["merges"]
    pad, end = bpe.token_to_id("<|endoftext|>"), bpe.token_to_id("<|im_end|>")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(texts)
    writer.add_token_types([token_type(text) for text in texts])
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_eos_token_id(end)
    writer.add_bos_token_id(pad)
    writer.add_pad_token_id(pad)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE.read_text(encoding="utf-8"))


def add_tensors(writer: gguf.GGUFWriter, weights: dict[str, torch.Tensor], shape: Shape) -> None:
    """Norms stay F32; there is no output matrix, for it is the embedding."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, shape.layers)
    for name, tensor in weights.items():
        values = tensor.float().numpy()
        target = names.get_name("model." + name, try_suffixes=(".weight",))
        if values.ndim == 1:
            writer.add_tensor(target, values)
            continue
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(target, gguf.quants.quantize(values, kind), raw_dtype=kind)


def dequantised(path: Path) -> dict[str, np.ndarray]:
    """The weights a GGUF file holds, as F32 under their names in the file."""
    return {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        for tensor in gguf.GGUFReader(path).tensors
    }
