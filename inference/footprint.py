"""What a model takes of the GPU's memory and of RAM under given settings, in bytes.

Pure arithmetic on a header, checked against the buffer sizes that llama.cpp logs. Everything but
the context is fixed, and a demand grows linearly with the context. This module does not know how
much memory there is, and chooses nothing.
"""

import re
from dataclasses import dataclass, replace

from inference.gguf_header import GgufHeader, KvType
from inference.wire import DRAFTS

MIB = 1 << 20
GPU_OVERHEAD = 550 * MIB  # CUDA context about 250, the rest for its pools and fragmentation
RAM_OVERHEAD = 512 * MIB  # the processes themselves
REPACKED = 0.15  # llama.cpp repacks weights for the CPU: measured 675 MiB of 604 (Q8_0, AMX)


@dataclass(frozen=True, slots=True)
class Demand:
    """Bytes wanted of one device."""

    weights: int = 0
    kv: int = 0
    compute: int = 0
    overhead: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.compute + self.overhead

    def __add__(self, other: "Demand") -> "Demand":
        return Demand(
            weights=self.weights + other.weights,
            kv=self.kv + other.kv,
            compute=self.compute + other.compute,
            overhead=self.overhead + other.overhead,
        )


@dataclass(frozen=True, slots=True)
class Setting:
    """How a model is loaded. Layers count as llama.cpp counts them: the output is the last one,
    so a model of 64 blocks has 65; `gpu_layers` of them, from the end, are on the GPU. `context`
    is in tokens over all slots, `n_ubatch` the tokens of one pass through the graph; without
    `unified` a slot sees its own share of the context only."""

    gpu_layers: int
    context: int
    slots: int
    kv_type: KvType
    n_ubatch: int
    flash_attention: bool = True
    unified: bool = False


class Footprint:
    """Where the bytes of one model are: token embedding, blocks, output. Its draft model is on
    the GPU as a whole if any layer of this one is."""

    def __init__(self, header: GgufHeader, draft: GgufHeader | None = None) -> None:
        self.header = header
        self.draft = Footprint(draft) if draft else None
        self.embedding = self.output = 0
        self.blocks = [0] * header.layers
        self.largest = 0  # tensor of a block
        for tensor in header.tensors:
            block = re.match(r"blk\.(\d{1,8})\.", tensor.name)
            if block and int(block[1]) < header.layers:
                self.blocks[int(block[1])] += tensor.bytes
                self.largest = max(self.largest, tensor.bytes)
            elif tensor.name.startswith("token_embd"):
                self.embedding += tensor.bytes
            else:
                self.output += tensor.bytes
        # Without a matrix of its own the output is the embedding, which llama.cpp loads again.
        if all(tensor.name != "output.weight" for tensor in header.tensors):
            self.output += self.embedding

    def demands(self, setting: Setting) -> tuple[Demand, Demand]:
        """What `setting` takes of the GPU and of RAM. A full offload leaves the embedding there."""
        gpu, ram = self._own(setting)
        if self.draft:
            layers = self.draft.header.layers + 1 if setting.gpu_layers else 0
            draft_gpu, draft_ram = self.draft._own(replace(setting, gpu_layers=layers))
            gpu, ram = gpu + draft_gpu, ram + draft_ram
        kept = Demand(overhead=GPU_OVERHEAD if setting.gpu_layers else 0)
        return gpu + kept, ram + Demand(overhead=RAM_OVERHEAD)

    def _own(self, setting: Setting) -> tuple[Demand, Demand]:
        """Without what is kept free, which models in one process share."""
        in_ram = self.header.layers - max(0, setting.gpu_layers - 1)
        kv = -(-self.header.kv_bytes_per_token(setting.kv_type) // self.header.layers)
        kv *= setting.context
        logits = outputs_bytes(self.header, setting)
        graph = activation_bytes(self.header, setting.n_ubatch) + logits
        graph += attention_bytes(self.header, setting)
        repacked = sum(self.blocks[:in_ram]) + self.output * (setting.gpu_layers == 0)
        ram = Demand(
            weights=self.embedding + repacked,
            kv=kv * in_ram,
            compute=logits + graph * (in_ram > 0),
            overhead=round(repacked * REPACKED),
        )
        if not setting.gpu_layers:
            return Demand(), ram
        # Long prompts copy weights that stay in RAM over to the GPU, two tensors at a time.
        gpu = Demand(
            weights=sum(self.blocks[in_ram:]) + self.output,
            kv=kv * (self.header.layers - in_ram),
            compute=graph + 2 * self.largest * (in_ram > 0),
        )
        return gpu, ram


def activation_bytes(header: GgufHeader, n_ubatch: int) -> int:
    """Upper bound of the intermediate results of one pass with flash attention.

    The terms are the tensors alive at once in llama.cpp's attention and feed-forward graphs, as
    32-bit floats. Fitted to the compute buffers that the llama.cpp of llama-cpp-python 0.3.36 logs
    on the CPU for 14 Qwen3 shapes (at 512 tokens: 0.6B 26 MiB, 28 here; 32B 196 MiB, 200 here),
    and never more than 0.1 MiB below one of them.
    """
    hidden, feed_forward = header.embedding, 3 * header.feed_forward
    if header.experts_used:
        each = 3 * header.expert_feed_forward + 2 * hidden
        feed_forward = max(feed_forward, header.experts_used * each)
    attention = 3 * (header.heads + header.kv_heads) * header.key_size
    return 4 * n_ubatch * max(5 * hidden + feed_forward, 2 * hidden + attention)


def attention_bytes(header: GgufHeader, setting: Setting) -> int:
    """What grows with the context: the mask, a 16-bit number per token of the context and of the
    pass. Without flash attention mask and scores of every head are 32-bit numbers per token that
    a slot can see: fitted to logged buffers in the same way, exact but for the activations."""
    if setting.flash_attention:
        return 2 * setting.n_ubatch * setting.context
    seen = setting.context if setting.unified else -(-setting.context // setting.slots)
    return 4 * setting.n_ubatch * seen * (header.heads + 1)


def outputs_bytes(header: GgufHeader, setting: Setting) -> int:
    """What leaves the graph. To an embedding model every token is an output: llama.cpp has a row
    of logits for each, whether or not anybody wants them."""
    if header.pooling:
        row = header.embedding + (0 if header.encodes else header.vocabulary)
        return 4 * setting.n_ubatch * row
    return logits_bytes(header, setting.slots)


def logits_bytes(header: GgufHeader, slots: int) -> int:
    """A row of 32-bit logits per slot and per draft, as the worker sets `n_outputs_max`."""
    return 4 * header.vocabulary * (slots + DRAFTS)
