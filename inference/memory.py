"""How much memory this box has and how much of it is free: the GPUs' through NVML, the rest from
psutil, lowered to the limit of the control group where a container sets one.

Every reading is a value, so that whoever plans with it can be tested with any box. This module
does not know what the memory is for.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True, slots=True)
class Gpu:
    """One CUDA device; sizes in bytes. Its `uuid` is a value for CUDA_VISIBLE_DEVICES."""

    name: str
    total: int
    free: int
    uuid: str = ""


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of a box, in bytes; free RAM is what can be had without swapping."""

    ram_total: int
    ram_free: int
    gpus: tuple[Gpu, ...] = ()


def read_memory() -> Memory:
    """What this box has now. Without an NVIDIA driver there are no GPUs."""
    ram = psutil.virtual_memory()
    limits = list(_group_limits())
    return Memory(
        ram_total=min([ram.total, *(limit for limit, _ in limits)]),
        ram_free=max(0, min([ram.available, *(limit - used for limit, used in limits)])),
        gpus=_visible(_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES")),
    )


def _gpus() -> tuple[Gpu, ...]:
    import pynvml  # noqa: PLC0415 - only boxes with a GPU need it

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(pynvml.nvmlDeviceGetCount())]
        return tuple(_gpu(pynvml, handle) for handle in handles)
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def _gpu(nvml: Any, handle: Any) -> Gpu:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(
        name=nvml.nvmlDeviceGetName(handle),
        total=memory.total,
        free=memory.free,
        uuid=nvml.nvmlDeviceGetUUID(handle),
    )


def _visible(gpus: tuple[Gpu, ...], allowed: str | None) -> tuple[Gpu, ...]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves: by number, or by the beginning of the UUID."""
    if allowed is None:
        return gpus
    names = [name.strip() for name in allowed.split(",") if name.strip()]
    return tuple(
        gpu
        for number, gpu in enumerate(gpus)
        if any(name == str(number) or gpu.uuid.startswith(name) for name in names)
    )


def _group_limits() -> Iterator[tuple[int, int]]:
    """(limit, used) in bytes of every control group around this process, version 1 or 2."""
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, controllers, place = line.split(":", 2)
        if not controllers:
            root, names = "/sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = "/sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        inner = Path(place.lstrip("/"))
        for group in (inner, *inner.parents):
            yield from group_limit(Path(root) / group, *names)


def group_limit(group: Path, limit: str, usage: str, cached: str) -> Iterator[tuple[int, int]]:
    """(limit, used) of one control group, if it sets a limit; file cache that the kernel can
    drop does not count as used."""
    most, used = _text(group / limit).strip(), _text(group / usage).strip()
    if not (most.isdecimal() and used.isdecimal()):
        return  # "max", or not there
    pairs = (line.split() for line in _text(group / "memory.stat").splitlines())
    droppable = sum(int(value) for name, value in pairs if name == cached)
    yield int(most), int(used) - droppable


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
