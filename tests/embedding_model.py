"""An embedding model for tests: the bundled one, whose file says how it is pooled.

And what it makes of tokens, evaluated apart from the project: one input at a time, no pooling by
llama.cpp, in a context of its own.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import llama_cpp as lc
import numpy as np
from gguf import GGUFReader, GGUFWriter, PoolingType, TokenType

from inference import load_config, prepare
from tests.headers import ALIGNMENT, string, text, u32

POOLINGS = {"mean": 1, "cls": 2, "last": 3}
_COUNT = 16  # where in a file the number of its entries is
_BOOL = 7


def write(path: Path, pooling: str) -> Path:
    """The bundled model, pooled like that; texts get its end token."""
    source = Path(prepare(load_config(), "qwen3-demo").engine.path)
    data, start = source.read_bytes(), GGUFReader(source).data_offset
    ends = string("tokenizer.ggml.add_eos_token") + struct.pack("<I?", _BOOL, True)
    entries = u32("qwen3.pooling_type", POOLINGS[pooling]) + ends
    # What comes after stays as it is aligned.
    entries += text(
        "general.filler", "x" * (-len(entries + text("general.filler", "")) % ALIGNMENT)
    )
    assert start % ALIGNMENT == len(entries) % ALIGNMENT == 0
    (count,) = struct.unpack_from("<Q", data, _COUNT)
    head = data[:_COUNT] + struct.pack("<Q", count + 3)
    path.write_bytes(head + entries + data[_COUNT + 8 :])
    return path


def write_encoder(path: Path) -> Path:
    """A BERT of random weights, whose tokens see all of an input."""
    size, wide, letters = 64, 128, "abcdefghijklmnopqrstuvwxyz"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"\u2581{c}" for c in letters), *letters]
    writer = GGUFWriter(path, "bert")
    writer.add_block_count(2)
    writer.add_context_length(512)
    writer.add_embedding_length(size)
    writer.add_feed_forward_length(wide)
    writer.add_head_count(4)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(PoolingType.MEAN)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL] * 4 + [TokenType.NORMAL] * (len(tokens) - 4))
    writer.add_token_type_count(1)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_sep_token_id(3)
    random = np.random.default_rng(0)
    for name, shape in _shapes(len(tokens), size, wide).items():
        draw = np.ones(shape) if name.endswith("norm") else random.normal(0, 0.2, shape)
        writer.add_tensor(f"{name}.weight", draw.astype(np.float32))
        if not name.endswith(("token_embd", "token_types", "position_embd")):
            writer.add_tensor(f"{name}.bias", random.normal(0, 0.2, shape[0]).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _shapes(vocabulary: int, size: int, wide: int) -> dict[str, tuple[int, ...]]:
    """The tensors of the encoder."""
    shapes = {
        "token_embd": (vocabulary, size),
        "token_types": (1, size),
        "position_embd": (512, size),
        "token_embd_norm": (size,),
    }
    for block in ("blk.0.", "blk.1."):
        parts = ("attn_q", "attn_k", "attn_v", "attn_output")
        shapes |= {block + part: (size, size) for part in parts}
        shapes |= {block + "ffn_up": (wide, size), block + "ffn_down": (size, wide)}
        shapes |= {block + "attn_output_norm": (size,), block + "layer_output_norm": (size,)}
    return shapes


@contextmanager
def reference(path: Path, pooling: str) -> Iterator["Reference"]:
    model = lc.llama_model_load_from_file(str(path).encode(), lc.llama_model_default_params())
    params = lc.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 2048
    params.embeddings, params.pooling_type = True, lc.LLAMA_POOLING_TYPE_NONE
    context = lc.llama_init_from_model(model, params)
    try:
        yield Reference(model, context, pooling)
    finally:
        lc.llama_free(context)
        lc.llama_model_free(model)


class Reference:
    def __init__(self, model: int, context: int, pooling: str) -> None:
        self._model = model
        self._context = context
        self._pooling = pooling

    def tokens(self, said: str) -> list[int]:
        """As the file says a text is to be tokenised."""
        vocabulary, data = lc.llama_model_get_vocab(self._model), said.encode()
        ids = (lc.llama_token * (len(data) + 2))()
        count = lc.llama_tokenize(vocabulary, data, len(data), ids, len(ids), True, True)
        return list(ids[:count])

    def vector(self, tokens: list[int]) -> np.ndarray:
        """Not normalised."""
        lc.llama_memory_clear(lc.llama_get_memory(self._context), True)
        ids = (lc.llama_token * len(tokens))(*tokens)
        assert lc.llama_decode(self._context, lc.llama_batch_get_one(ids, len(tokens))) == 0
        size = lc.llama_model_n_embd(self._model)
        rows = [
            np.ctypeslib.as_array(lc.llama_get_embeddings_ith(self._context, i), (size,)).copy()
            for i in range(len(tokens))
        ]
        match self._pooling:
            case "mean":
                return np.mean(rows, axis=0)
            case "cls":
                return rows[0]
        return rows[-1]


def vector_of(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<f4")


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
