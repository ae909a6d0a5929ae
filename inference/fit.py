"""The memory plan: how the model is loaded on this box, in numbers, and why, in sentences.

`plan` checks what the user asked for, lets a `Case` choose the rest, and explains: what was
decided by which shortage, and what would fit where something does not. This module loads nothing
and asks no device; memory is a value.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from inference.errors import ConfigError, DoesNotFit
from inference.footprint import Demand, Setting
from inference.gguf_header import KV_TYPES, GgufHeader, KvType
from inference.memory import Gpu, Memory
from inference.placement import CELLS, INPUTS, NO_WISHES, Case, Wishes, holds_q8

__all__ = ["NO_WISHES", "Plan", "Wishes", "plan"]

MAX_SLOTS = 254  # LLAMA_MAX_SEQ, less two that the unified layout needs beside them
KV_LAYOUTS = ("streams", "unified")
RELAXED = {
    "context": "a context of at most {:,} tokens",
    "slots": "at most {} slots",
    "kv_type": "a KV cache of type {}",
    "gpu_layers": "at most {} layers on the GPU",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to load the model. Sizes in bytes, lengths in tokens.

    `gpu_layers` of `layers` are on `gpu`, both counting the output as one, as llama.cpp does.
    `context` is shared by all slots; one request may use `request_context`. `reasons` are
    sentences for the user; those that begin with "Warning" matter.
    """

    gpu_layers: int
    layers: int
    context: int
    slots: int
    kv_type: KvType
    n_ubatch: int
    request_context: int
    gpu: Gpu | None
    on_gpu: Demand
    in_ram: Demand
    ram_free: int
    ram_total: int
    reasons: tuple[str, ...]

    def rows(self) -> tuple[tuple[str, str], ...]:
        """The plan as (what, how much), for a table."""
        device = f"CPU, {_size(self.ram_free)} of {_size(self.ram_total)} RAM free"
        if self.gpu:
            device = f"{self.gpu.name}, {_size(self.gpu.free)} of {_size(self.gpu.total)} free"
        return (
            ("Device", device),
            ("Layers on the GPU", f"{self.gpu_layers} of {self.layers}"),
            ("Context", f"{self.context:,} tokens for {self.slots} slots"),
            ("Weights", _where(self.on_gpu.weights, self.in_ram.weights)),
            ("KV cache", f"{self.kv_type}, " + _where(self.on_gpu.kv, self.in_ram.kv)),
            ("Compute buffers", _where(self.on_gpu.compute, self.in_ram.compute)),
            ("Kept free", _where(self.on_gpu.overhead, self.in_ram.overhead)),
            ("Together", _where(self.on_gpu.total, self.in_ram.total)),
        )


def plan(
    header: GgufHeader,
    memory: Memory,
    wishes: Wishes = NO_WISHES,
    draft: GgufHeader | None = None,
) -> Plan:
    """The best way to load the model, and its draft model beside it, into `memory` that keeps
    every wish.

    Raises `ConfigError` for a wish that no memory could grant, `DoesNotFit` with what would fit
    where the memory does not suffice.
    """
    _check(header, memory, wishes)
    case = Case(header, memory, wishes, draft)
    setting = case.best()
    if setting is None:
        raise DoesNotFit(_refusal(case))
    on_gpu, in_ram = case.footprint.demands(setting)
    return Plan(
        gpu_layers=setting.gpu_layers,
        layers=case.layers,
        context=setting.context,
        slots=setting.slots,
        kv_type=setting.kv_type,
        n_ubatch=setting.n_ubatch,
        request_context=_request_context(setting, header),
        gpu=case.gpu if setting.gpu_layers else None,
        on_gpu=on_gpu,
        in_ram=in_ram,
        ram_free=memory.ram_free,
        ram_total=memory.ram_total,
        reasons=tuple(_reasons(case, setting)),
    )


def _check(header: GgufHeader, memory: Memory, wishes: Wishes) -> None:
    """Raise `ConfigError` for a wish that no amount of memory could grant."""
    if wishes.kv_type not in (None, *KV_TYPES):
        choice = " or ".join(KV_TYPES)
        raise ConfigError(f"kv_type is {wishes.kv_type!r}; it can be {choice}.", "kv_type")
    if wishes.kv_layout not in (None, *KV_LAYOUTS):
        choice = " or ".join(KV_LAYOUTS)
        raise ConfigError(f"kv_layout is {wishes.kv_layout!r}; it can be {choice}.", "kv_layout")
    if wishes.kv_type == "q8_0" and not holds_q8(header):
        raise ConfigError(f"{header.name} cannot use a q8_0 KV cache; choose f16.", "kv_type")
    if wishes.slots is not None and not 1 <= wishes.slots <= MAX_SLOTS:
        raise ConfigError(f"slots is {wishes.slots}; it can be 1 to {MAX_SLOTS}.", "slots")
    if wishes.context is not None and wishes.context < 1:
        raise ConfigError(f"context is {wishes.context}; it must be at least 1.", "context")
    if wishes.n_ubatch < 1:
        raise ConfigError(f"n_ubatch is {wishes.n_ubatch}; it must be at least 1.", "n_ubatch")
    if wishes.gpu_layers and not memory.gpus:
        raise ConfigError(
            "gpu_layers asks for a GPU, but no usable NVIDIA GPU was found; leave it out.",
            "gpu_layers",
        )


def _ways_out(case: Case, missing: int, relaxed: Iterable[str]) -> str:
    """What would fit, for a person: first the wishes that could be given up, one each."""
    found = []
    for name in relaxed:
        without: dict[str, Any] = {name: None}
        wishes = replace(case.wishes, **without)
        setting = case.under(wishes).best()
        if setting and wishes != case.wishes:
            found.append(RELAXED[name].format(getattr(setting, name)))
    found.append(f"a model or quantisation that is {_size(missing)} smaller")
    return "; ".join([*found, "or more free memory, after closing other programs"])


def _refusal(case: Case) -> str:
    missing = min(map(case.missing, case.placements()))
    gpu = f" and {_size(case.gpu.free)} on {case.gpu.name}" if case.gpu else ""
    return (
        f"{case.header.name} ({case.header.quant}, {_size(case.header.weight_bytes)}) does not "
        f"fit: {_size(case.memory.ram_free)} of RAM{gpu} are free and {_size(missing)} are "
        f"missing. What would fit: {_ways_out(case, missing, RELAXED)}."
    )


def _reasons(case: Case, setting: Setting) -> Iterator[str]:
    yield _why_device(case, setting)
    if case.gpu and len(case.memory.gpus) > 1:
        yield f"Of {len(case.memory.gpus)} GPUs only the one with the most free memory is used."
    if not case.header.encodes:
        yield _why_kv_type(case, setting)
    yield from _why_inputs(case, setting) if case.header.pooling else _why_context(case, setting)
    if case.draft:
        yield f"{case.draft.name} ({case.draft.quant}) is loaded beside it, to guess what it says."


def _why_device(case: Case, setting: Setting) -> str:
    if case.gpu is None:
        return "No usable GPU was found, so the model runs on the CPU."
    if setting.gpu_layers == case.layers:
        return f"The whole model runs on {case.gpu.name}."
    count = f"{setting.gpu_layers} of {case.layers} layers"
    if case.wishes.gpu_layers is not None:
        return f"As asked, {count} run on {case.gpu.name} and the rest on the CPU."
    whole = case.under(replace(case.wishes, gpu_layers=case.layers))
    ways = _ways_out(whole, whole.missing(case.layers), ("context", "slots", "kv_type"))
    return (
        f"Warning: only {count} fit on {case.gpu.name}; the rest runs on the CPU, many times "
        f"slower. What would fit whole: {ways}."
    )


def _why_kv_type(case: Case, setting: Setting) -> str:
    size = case.header.kv_bytes_per_token(setting.kv_type) / 1024
    said = f"The KV cache is {setting.kv_type}, {size:,.1f} KiB per token"
    if case.wishes.kv_type or setting.kv_type == KV_TYPES[0]:
        return f"{said}."
    room = max(0, case.room(case.least(setting.gpu_layers, KV_TYPES[0])))
    return f"{said}, because at {KV_TYPES[0]} only {room:,} tokens would fit."


def _request_context(setting: Setting, header: GgufHeader) -> int:
    most = setting.n_ubatch if header.whole_inputs else setting.context
    return min(setting.context // (1 if setting.unified else setting.slots), most, header.context)


def _why_context(case: Case, setting: Setting) -> Iterator[str]:
    per_slot, trained = setting.context // setting.slots, case.header.context
    most = case.policy(setting.gpu_layers).most_per_slot
    if case.wishes.context is not None:
        if setting.context != case.wishes.context:
            yield (
                f"The context was rounded up from {case.wishes.context:,} to "
                f"{setting.context:,} tokens: a slot holds a multiple of {CELLS}."
            )
    elif per_slot < most:
        yield f"The context of {setting.context:,} tokens is what the free memory allows."
    elif most < case.trained:
        yield "Without a GPU for the whole model the context is modest; more can be asked for."
    request = _request_context(setting, case.header)
    yield f"One request can use {request:,} tokens, prompt and answer together."
    if per_slot > case.trained:
        yield (
            f"Warning: the model was trained for {trained:,} tokens, so of the {per_slot:,} "
            "tokens of each slot the rest stays unused."
        )
    elif request < trained and not setting.unified and setting.slots > 1:
        yield "With fewer slots one request could use more."


def _why_inputs(case: Case, setting: Setting) -> Iterator[str]:
    yield f"It is an embedding model, and makes vectors of {case.header.embedding:,} numbers."
    if case.wishes.context is None and setting.context < INPUTS:
        yield f"The context of {setting.context:,} tokens is what the free memory allows."
    request = _request_context(setting, case.header)
    yield f"One input can have {request:,} tokens; up to {setting.slots} are computed together."
    if request < case.header.context:
        yield f"The model was trained for {case.header.context:,}; with more context they can."


def _where(gpu: int, ram: int) -> str:
    places = ((gpu, "on the GPU"), (ram, "in RAM"))
    return ", ".join(f"{_size(size)} {place}" for size, place in places if size) or "none"


def _size(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.0f} MiB"
