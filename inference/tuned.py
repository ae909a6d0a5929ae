"""Remembers which settings were measured to be the fastest: one file for each subject.

A subject is a model file on a machine under a load; whatever changes about it, the file, the
CPU, the build of llama.cpp, makes it another subject, of which nothing is known yet. Measures
nothing and decides nothing.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from inference.doctor import read_recipe
from inference.errors import InferenceError
from inference.wire import EngineConfig

_HEAD = 1 << 16  # bytes of a model file that are compared: its name and dimensions are in them


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What settings are good for. `threads` and `layout` are what was asked for, if anything."""

    size: int
    changed: int  # nanoseconds since the epoch
    head: str
    cpu: str
    cores: int
    gpu: str
    llama: str
    slots: int
    kv_type: str
    gpu_layers: int
    threads: int | None
    layout: str | None


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that are measured; meanings as in EngineConfig."""

    threads: Annotated[int, Meta(ge=1, le=512)]  # GGML_MAX_N_THREADS
    batch: Annotated[int, Meta(ge=1)]
    flash_attention: bool | None
    unified: bool
    joint: bool

    def over(self, engine: EngineConfig) -> EngineConfig:
        """`engine` with these settings."""
        chosen = msgspec.structs.replace(engine, **msgspec.structs.asdict(self))
        return msgspec.structs.replace(chosen, batch=min(self.batch, engine.context))

    def __str__(self) -> str:
        threads, layout, flash, batch = describe(self)
        calls = "joint" if self.joint else "separate"
        return (
            f"threads {threads}, KV cache {layout}, flash attention {flash}, "
            f"batch {batch}, {calls} calls"
        )


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The best of what was measured, `gain` times as fast as the defaults; 1 if it is them."""

    subject: Subject
    choice: Choice
    gain: float

    def __post_init__(self) -> None:
        if self.choice.batch < self.subject.slots:
            raise ValueError("a call must hold a token of every slot")

    def __str__(self) -> str:
        if self.gain == 1:
            return f"{self.choice}, which are the defaults"
        return f"{self.choice}; {self.gain:.2f} times as fast as the defaults"


class DamagedResult(InferenceError):
    code = "damaged_result"


class NotStored(InferenceError):
    code = "not_stored"


def describe(settings: Choice | EngineConfig) -> tuple[str, ...]:
    """Threads, layout of the KV cache, flash attention and tokens a call, in words."""
    layout = "unified" if settings.unified else "streams"
    flash = {None: "auto", True: "on", False: "off"}[settings.flash_attention]
    return str(settings.threads), layout, flash, str(settings.batch)


def identify(engine: EngineConfig, gpu: str, threads: int | None, layout: str | None) -> Subject:
    """What `engine` runs on this machine; `gpu` is the name of the one in use."""
    path = Path(engine.path)
    status = path.stat()
    with path.open("rb") as file:
        head = hashlib.sha256(file.read(_HEAD)).hexdigest()
    return Subject(
        size=status.st_size,
        changed=status.st_mtime_ns,
        head=head,
        cpu=cpu(),
        cores=len(os.sched_getaffinity(0)),
        gpu=gpu,
        llama=_build(),
        slots=engine.slots,
        kv_type=engine.kv_type,
        gpu_layers=engine.gpu_layers,
        threads=threads,
        layout=layout,
    )


def recall(about: Subject) -> Result | None:
    """What is known about a subject. Raises DamagedResult where that cannot be read."""
    path = place(about)
    try:
        result = msgspec.json.decode(path.read_bytes(), type=Result)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DamagedResult(f"The tuned settings in {path} cannot be read ({error}).") from error
    if result.subject != about:
        raise DamagedResult(f"The tuned settings in {path} are about something else.")
    return result


def remember(result: Result) -> Path:
    """Keep `result`, whole or not at all; the file. Raises NotStored."""
    path = place(result.subject)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
            file.flush()
            os.fsync(file.fileno())  # a disk may say only now that it did not take the bytes
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise NotStored(
            f"The tuned settings cannot be stored in {path.parent} ({error.strerror}); "
            "name another place with XDG_CACHE_HOME."
        ) from error
    return path


def place(about: Subject) -> Path:
    """The file for a subject, in this user's cache; XDG base directory specification."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    digest = hashlib.sha256(msgspec.json.encode(about)).hexdigest()
    return Path(home) / "onebox" / "tuned" / f"{digest[:32]}.json"


def cpu() -> str:
    """The CPU's name where the kernel tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _build() -> str:
    """Version and recipe of llama-cpp-python; a wheel from elsewhere has no recipe."""
    recipe = json.dumps(dict(read_recipe(Path(sys.prefix))), sort_keys=True)
    digest = hashlib.sha256(recipe.encode()).hexdigest()
    return f"{importlib.metadata.version('llama-cpp-python')} {digest[:16]}"
