"""The one door to llama.cpp: load, tokenise, decode, logits, KV cells. Thin and typed.

Runs in a worker only. Knows no requests and no policy. One thread owns the context (`decode`,
`logits`, `keep`); `tokenize` only reads the vocabulary and may run beside it. Return codes and
NULL conventions follow llama.h of the pinned version.
"""

import os

# llama.cpp's OpenMP threads wait for each other many times in a step. Spinning without end, one
# busy neighbour on the box costs a factor of 15; sleeping at once costs half the speed of a quiet
# box. A short spin and then sleep has the better of both (docs/benchmarks.md). Must be set before
# the library is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

import contextlib
import ctypes
from collections import deque
from functools import cached_property

import llama_cpp as lc
import numpy as np
import numpy.typing as npt

from inference.errors import BadModelFile, DoesNotFit
from inference.gguf_format import printable, stamp_of
from inference.logprobs import ROWS
from inference.types import ModelInfo
from inference.wire import EngineConfig

Ints = npt.NDArray[np.int32]
State = npt.NDArray[np.uint8]

_KV_TYPES = {"f16": lc.GGML_TYPE_F16, "q8_0": lc.GGML_TYPE_Q8_0}
_WARN = 3  # ggml.h: DEBUG=1 INFO=2 WARN=3 ERROR=4
_ABORTED = 2  # returned by llama_decode


class Aborted(Exception):
    """`interrupt` ended a decode: what it computed is there in part, and should be trimmed."""


class DecodeFailed(Exception):
    """`llama_decode` returned something else than 0; the context is not to be trusted."""


class _Log:
    """llama.cpp's last warnings and errors, for the sentence that explains a failure."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=3)
        self._callback = lc.llama_log_callback(self._write)
        lc.llama_log_set(self._callback, ctypes.c_void_p())

    def _write(self, level: int, text: bytes, _data: int | None) -> None:
        if level >= _WARN and (line := text.decode(errors="replace").strip()):
            self.lines.append(line)

    @property
    def tail(self) -> str:
        return printable(" | ".join(self.lines), most=500) or "llama.cpp gave no reason"


# llama.cpp asks at every node of the graph whether to go on. `strlen` answers without Python.
_STRLEN = ctypes.cast(ctypes.CDLL(None).strlen, lc.ggml_abort_callback)
_LOG = _Log()  # llama.cpp has one log per process, and may write to it for as long as that lives


class Llama:
    """A loaded model with its context and vocabulary.

    Raises BadModelFile where llama.cpp cannot load the weights and DoesNotFit where it cannot
    allocate the context.
    """

    def __init__(self, config: EngineConfig) -> None:
        _LOG.lines.clear()
        self._interrupted = ctypes.create_string_buffer(2)  # a text of one character, or of none
        self._model = self._load_model(config)
        self._context = self._open_context(config)
        self._memory = lc.llama_get_memory(self._context)
        self._vocab = lc.llama_model_get_vocab(self._model)
        self._batch = _Batch(config.batch)
        self.unified = config.unified
        self._outputs = 0
        self.n_vocab: int = lc.llama_vocab_n_tokens(self._vocab)
        self.pieces = [self._piece(token) for token in range(self.n_vocab)]
        self.end_tokens = tuple(
            t for t in range(self.n_vocab) if lc.llama_vocab_is_eog(self._vocab, t)
        )
        self.control_texts = tuple(
            self.token_text(t)
            for t in range(self.n_vocab)
            if lc.llama_vocab_is_control(self._vocab, t)
        )
        template = lc.llama_model_chat_template(self._model, None)
        self.chat_template: str | None = template.decode(errors="replace") if template else None
        self.info = self._describe(config)

    @staticmethod
    def _load_model(config: EngineConfig) -> int:
        params = lc.llama_model_default_params()
        params.n_gpu_layers = config.gpu_layers
        _check_stamp(config)
        model: int | None = lc.llama_model_load_from_file(config.path.encode(), params)
        if not model:
            raise BadModelFile(f"llama.cpp cannot load {config.path}: {_LOG.tail}")
        _check_stamp(config)  # it may have changed while it was loaded
        return model

    def _open_context(self, config: EngineConfig) -> int:
        params = lc.llama_context_default_params()
        params.n_ctx = config.context
        params.n_seq_max = config.slots + config.unified  # one more to save parked ids through
        params.n_batch = params.n_ubatch = config.batch
        params.n_outputs_max = config.slots + max(ROWS, config.drafts)  # not one per token
        if config.pooling:  # of the type that the file says; every token counts as an output
            params.embeddings = True
            params.n_seq_max = config.slots
            params.n_outputs_max = config.batch
        params.n_threads = params.n_threads_batch = config.threads
        params.type_k = params.type_v = _KV_TYPES[config.kv_type]
        params.kv_unified = config.unified
        if config.flash_attention is not None:
            params.flash_attn_type = int(config.flash_attention)
        params.abort_callback = _STRLEN
        params.abort_callback_data = ctypes.addressof(self._interrupted)
        context: int | None = lc.llama_init_from_model(self._model, params)
        if not context:
            lc.llama_model_free(self._model)
            raise DoesNotFit(
                f"a context of {config.context} tokens in {config.slots} slots could not be "
                f"allocated: {_LOG.tail}. Try a smaller --context or fewer --slots."
            )
        return context

    def _describe(self, config: EngineConfig) -> ModelInfo:
        trained: int = lc.llama_model_n_ctx_train(self._model)
        return ModelInfo(
            name=config.name,
            architecture=printable(self.metadata("general.architecture")),
            context=min(trained, config.request_context),
            slots=config.slots,
            vocabulary=self.n_vocab,
            parameters=lc.llama_model_n_params(self._model),
            size=lc.llama_model_size(self._model),
            dimensions=lc.llama_model_n_embd_out(self._model) if config.pooling else 0,
        )

    def metadata(self, key: str) -> str:
        """A scalar of the GGUF header as text; empty where there is none."""
        capacity = 256
        while True:
            buffer = ctypes.create_string_buffer(capacity)
            length: int = lc.llama_model_meta_val_str(self._model, key.encode(), buffer, capacity)
            if length < capacity:
                return buffer.value.decode(errors="replace")
            capacity = length + 1

    def token_text(self, token: int) -> str:
        """The written form of a token, control tokens included; empty for -1 (no such token)."""
        text: bytes = b"" if token < 0 else lc.llama_vocab_get_text(self._vocab, token)
        return text.decode(errors="replace")

    def written(self, token: int) -> bytes:
        """The bytes of a token; those of a control token spell how it is written."""
        return self.pieces[token] or self.token_text(token).encode()

    @property
    def bos(self) -> str:
        return self.token_text(lc.llama_vocab_bos(self._vocab))

    @property
    def eos(self) -> str:
        return self.token_text(lc.llama_vocab_eos(self._vocab))

    def tokenize(self, text: str, *, special: bool, begin: bool = False) -> list[int]:
        """Token ids of `text`; `special` lets control tokens be written out, `begin` adds BOS
        where the model wants one, and what it wants at the end."""
        data = text.encode()
        capacity = len(data) + 2
        while True:
            ids = (lc.llama_token * capacity)()
            count: int = lc.llama_tokenize(
                self._vocab, data, len(data), ids, capacity, begin, special
            )
            if count >= 0:
                return list(ids[:count])
            capacity = -count

    @cached_property
    def closing(self) -> list[int]:
        """What the model wants at the end of a text."""
        plain, whole = (self.tokenize("a", special=False, begin=begin) for begin in (False, True))
        return whole[whole.index(plain[0]) + len(plain) :]

    def interrupt(self, now: bool) -> None:
        """Make decodes end at once, or no longer; from any thread. GPUs take no notice of it."""
        self._interrupted[0] = bytes([now])

    def decode(
        self, tokens: Ints, positions: Ints, slots: Ints, outputs: npt.NDArray[np.bool_]
    ) -> None:
        """Compute a batch; rows of `logits()` follow the true entries of `outputs`.

        All arrays have shape (tokens,); positions continue each slot's cells. Raises
        DecodeFailed, and Aborted after an `interrupt`.
        """
        code: int = lc.llama_decode(
            self._context, self._batch.fill(tokens, positions, slots, outputs)
        )
        if code == _ABORTED:
            raise Aborted
        if code:
            raise DecodeFailed(f"llama_decode returned {code}")
        self._outputs = int(outputs.sum())

    def copy(self, source: int, target: int, length: int) -> None:
        """Let `target`, which is empty, hold the first `length` tokens of `source`. In the stream
        layout llama.cpp books this at once, but copies the whole stream at the next decode."""
        if self.unified:
            lc.llama_memory_seq_cp(self._memory, source, target, 0, length)
        else:
            lc.llama_memory_seq_cp(self._memory, source, target, -1, -1)
            self.keep(target, length)

    def save(self, slot: int) -> State:
        """What `slot` holds, in the format of `llama_state_seq_get_data`. Raises DecodeFailed."""
        state = np.empty(lc.llama_state_seq_get_size(self._context, slot), np.uint8)
        pointer = _pointer(state, ctypes.c_uint8)
        if lc.llama_state_seq_get_data(self._context, pointer, state.size, slot) != state.size:
            raise DecodeFailed(f"slot {slot} cannot be saved")
        return state

    def restore(self, slot: int, state: State) -> None:
        """Let `slot`, which is empty, hold what was saved: all of it needs to fit. Raises
        DecodeFailed."""
        pointer = _pointer(state, ctypes.c_uint8)
        if not lc.llama_state_seq_set_data(self._context, pointer, state.size, slot):
            raise DecodeFailed(f"slot {slot} cannot be restored")

    def logits(self) -> npt.NDArray[np.float32]:
        """Logits of the last batch, shape (outputs, vocabulary); valid until the next decode.
        Waits for the end of its computation."""
        lc.llama_synchronize(self._context)
        if not self._outputs:
            return np.empty((0, self.n_vocab), np.float32)
        pointer = lc.llama_get_logits(self._context)
        return np.ctypeslib.as_array(pointer, shape=(self._outputs, self.n_vocab))

    def vector(self, slot: int) -> npt.NDArray[np.float32]:
        """What an embedding model makes of all that `slot` holds, as of the last batch that had a
        part of it; shape (dimensions,), valid until the next decode. Waits for the end of its
        computation."""
        pointer = lc.llama_get_embeddings_seq(self._context, slot)
        return np.ctypeslib.as_array(pointer, shape=(self.info.dimensions,))

    def keep(self, slot: int, length: int) -> None:
        """Trim the KV cache of `slot` to its first `length` tokens. Raises DecodeFailed where the
        architecture cannot forget a part."""
        if not lc.llama_memory_seq_rm(self._memory, slot, length, -1):
            raise DecodeFailed(f"slot {slot} cannot be trimmed to {length} tokens")

    def reopen(self, config: EngineConfig) -> None:
        """Empty context with other settings, for measuring them: no model is loaded again."""
        lc.llama_free(self._context)
        self._context = self._open_context(config)
        self._memory = lc.llama_get_memory(self._context)
        self._batch = _Batch(config.batch)
        self.unified = config.unified

    def close(self) -> None:
        lc.llama_free(self._context)
        lc.llama_model_free(self._model)

    def _piece(self, token: int) -> bytes:
        """Bytes of a token in an answer; none for control tokens."""
        capacity = 128
        while True:
            buffer = ctypes.create_string_buffer(capacity)
            length: int = lc.llama_token_to_piece(self._vocab, token, buffer, capacity, 0, False)
            if length >= 0:
                return buffer.raw[:length]
            capacity = -length


def _check_stamp(config: EngineConfig) -> None:
    """Raises BadModelFile where the file is not the one that was looked at."""
    if config.stamp is None:
        return
    with contextlib.suppress(OSError):  # it is gone
        if stamp_of(os.stat(config.path)) == config.stamp:
            return
    raise BadModelFile(f"{config.path} has changed since it was checked; start onebox again.")


class _Batch:
    """A `llama_batch` over our own numpy arrays: filling 2,048 tokens takes microseconds."""

    def __init__(self, capacity: int) -> None:
        self._token = np.zeros(capacity, np.int32)
        self._position = np.zeros(capacity, np.int32)
        self._slot = np.zeros(capacity, np.int32)
        self._output = np.zeros(capacity, np.int8)
        self._slots_each = np.ones(capacity, np.int32)
        self._slot_pointers = (
            self._slot.ctypes.data + 4 * np.arange(capacity, dtype=np.uint64)
        ).astype(np.uint64)
        self._struct = lc.llama_batch(
            n_tokens=0,
            token=_pointer(self._token, lc.llama_token),
            embd=None,
            pos=_pointer(self._position, lc.llama_pos),
            n_seq_id=_pointer(self._slots_each, ctypes.c_int32),
            seq_id=ctypes.cast(
                self._slot_pointers.ctypes.data, ctypes.POINTER(ctypes.POINTER(lc.llama_seq_id))
            ),
            logits=_pointer(self._output, ctypes.c_int8),
        )

    def fill(
        self, tokens: Ints, positions: Ints, slots: Ints, outputs: npt.NDArray[np.bool_]
    ) -> "lc.llama_batch":
        n = len(tokens)
        self._token[:n] = tokens
        self._position[:n] = positions
        self._slot[:n] = slots
        self._output[:n] = outputs
        self._struct.n_tokens = n
        return self._struct


def _pointer(array: npt.NDArray[np.generic], ctype: type) -> object:
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(ctype))
