"""Chooses how a model is laid into memory: layers on the GPU, context, slots, type of the KV cache.

What was asked for is kept; what was left open is chosen: the whole model on the GPU with the
largest context that fits, else as many layers as fit, else the CPU with a modest context. More
memory never makes a choice worse. This module explains nothing and asks no device.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from inference.footprint import Footprint, Setting
from inference.gguf_header import KV_TYPES, GgufHeader, KvType
from inference.memory import Memory

CELLS = 256  # llama.cpp pads the context of a slot to a multiple of this many tokens
LEAST_CONTEXT = 4096  # tokens: less is not worth a faster device
INPUTS = 8192  # tokens of an embedding model's inputs under way: more make it no faster
LONG_CONTEXT = 40_960  # tokens: one whole Qwen3 conversation; up to it, q8_0 buys length


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the user asked for; `None` means "choose". `context` is tokens over all slots;
    `gpu_layers` counts the output as one, and a negative number means all. `draft` names a model
    that guesses; an empty name means none."""

    context: int | None = None
    slots: int | None = None
    kv_type: str | None = None
    gpu_layers: int | None = None
    n_ubatch: int = 512
    flash_attention: bool = True
    kv_layout: str | None = None
    draft: str | None = None


NO_WISHES = Wishes()


@dataclass(frozen=True, slots=True)
class Policy:
    """What to choose where nothing was asked: tokens per slot to aim for, the most slots, the
    most tokens per slot, the share of the room that may be filled, and the tokens that a smaller
    type of KV cache would be worth."""

    target: int
    most_slots: int
    most_per_slot: int
    share: float
    enough: int = LONG_CONTEXT

    def slots(self, context: int) -> int:
        """A power of two, so that growing memory never shrinks a context."""
        wanted = max(1, min(context // self.target, self.most_slots))
        return 1 << (wanted.bit_length() - 1)


class Case:
    """One model, with its draft model if it has one, one box, one set of wishes."""

    def __init__(
        self, header: GgufHeader, memory: Memory, wishes: Wishes, draft: GgufHeader | None = None
    ) -> None:
        self.header = header
        self.memory = memory
        self.wishes = _for_inputs(wishes, header) if header.pooling else wishes
        self.draft = draft
        self.footprint = Footprint(header, draft)
        self.gpu = max(memory.gpus, key=lambda gpu: gpu.free, default=None)
        self.layers = header.layers + 1
        self.trained = padded(header.context)

    def under(self, wishes: Wishes) -> "Case":
        """The same with other wishes."""
        return Case(self.header, self.memory, wishes, self.draft)

    def best(self) -> Setting | None:
        return next(filter(None, map(self.settle, self.placements())), None)

    def placements(self) -> Iterator[int]:
        """Numbers of layers on the GPU, best first."""
        wish = self.wishes.gpu_layers
        if wish is not None:
            yield min(wish, self.layers) if wish >= 0 else self.layers
        elif self.gpu:
            yield from range(self.layers, -1, -1)
        else:
            yield 0

    def kv_types(self) -> tuple[KvType, ...]:
        """The types to try, best first: q8_0 takes half the room and some speed."""
        if self.wishes.kv_type:
            return tuple(kv_type for kv_type in KV_TYPES if kv_type == self.wishes.kv_type)
        return KV_TYPES if holds_q8(self.header) else KV_TYPES[:1]

    def settle(self, gpu_layers: int) -> Setting | None:
        """The best setting with so many layers on the GPU, or `None` if none fits."""
        kv_types = self.kv_types()
        enough = 0
        if gpu_layers == self.layers and not self.wishes.context and len(kv_types) > 1:
            enough = min(self.policy(gpu_layers).enough, self.header.context)
        for kv_type in kv_types:
            least = self.least(gpu_layers, kv_type)
            room = self.room(least)
            if room >= max(enough, least.context):
                break
        if room < least.context:
            return None
        # A longer q8_0 context would shrink again on the box where f16 begins to suffice.
        return self.grown(least, room if kv_type == kv_types[0] else min(room, enough))

    def least(self, gpu_layers: int, kv_type: KvType) -> Setting:
        """The smallest context that keeps the wishes and is worth loading."""
        slots, context = self.wishes.slots or 1, self.wishes.context
        if context is None:
            context = max(CELLS * slots, min(LEAST_CONTEXT, self.trained))
        elif self.wishes.slots is None:
            slots = self.policy(gpu_layers).slots(context)
        per_slot = padded(-(-context // slots))
        return Setting(
            gpu_layers=gpu_layers,
            context=per_slot * slots,
            slots=slots,
            kv_type=kv_type,
            n_ubatch=self.wishes.n_ubatch,
            flash_attention=self.wishes.flash_attention,
            unified=self.wishes.kv_layout == "unified",
        )

    def grown(self, least: Setting, room: int) -> Setting:
        """The setting that fills `room` tokens as the policy wants, never below `least`."""
        if self.wishes.context is not None:
            return least
        policy = self.policy(least.gpu_layers)
        room = max(least.context, int(room * policy.share))
        slots = self.wishes.slots or policy.slots(room)
        per_slot = min(room // slots, policy.most_per_slot) // CELLS * CELLS
        return replace(least, slots=slots, context=per_slot * slots)

    def policy(self, gpu_layers: int) -> Policy:
        if self.header.pooling:
            most = max(CELLS, INPUTS // (self.wishes.slots or INPUTS // CELLS))
            return Policy(CELLS, INPUTS // CELLS, most, 0.5, INPUTS)
        if gpu_layers == self.layers:
            return Policy(min(8192, self.trained), 32, self.trained, 1.0)
        modest = min(4096, self.trained)
        return Policy(modest, 8, modest, 0.5)

    def room(self, least: Setting) -> int:
        """Tokens of context that fit with the layers and the KV type of `least`."""
        if self.wishes.context is None and self.wishes.slots is None:
            least = replace(least, slots=self.policy(least.gpu_layers).most_slots)
        empty = self.footprint.demands(replace(least, context=0))
        cells = self.footprint.demands(replace(least, context=CELLS))
        rooms = []
        for free, nothing, some in zip(self.free(), empty, cells, strict=True):
            if nothing.total > free:
                return -1
            if some.total > nothing.total:
                rooms.append((free - nothing.total) // (some.total - nothing.total) * CELLS)
        return min(rooms)

    def free(self) -> tuple[int, int]:
        return self.gpu.free if self.gpu else 0, self.memory.ram_free

    def missing(self, gpu_layers: int) -> int:
        """Bytes short of the smallest setting with so many layers on the GPU."""
        least = self.least(gpu_layers, self.kv_types()[-1])
        pairs = zip(self.free(), self.footprint.demands(least), strict=True)
        return sum(max(0, demand.total - free) for free, demand in pairs)


def holds_q8(header: GgufHeader) -> bool:
    """q8_0 stores numbers in blocks of 32, and a head must fill whole blocks."""
    return header.key_size % 32 == 0 and header.value_size % 32 == 0


def padded(tokens: int) -> int:
    return -(-tokens // CELLS) * CELLS


def _for_inputs(wishes: Wishes, header: GgufHeader) -> Wishes:
    """Inputs of any length share the cells. Where one has to be whole, it fits a call, and to take
    the mean llama.cpp wants calls of a multiple of the slots."""
    n_ubatch = wishes.n_ubatch
    if header.whole_inputs:
        slots = wishes.slots or INPUTS // CELLS  # a power of two, if fewer are chosen
        n_ubatch = max(n_ubatch, min(header.context, wishes.context or INPUTS))
        n_ubatch = -(-n_ubatch // slots) * slots
    return replace(wishes, kv_layout="unified", n_ubatch=n_ubatch)
