"""From a name and wishes to everything a pool needs: which file, which plan, which settings.

Settings meet here and nowhere else: the command line goes over models.yaml, and what neither says
is what fits this box.
"""

import importlib.util
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path

import psutil

from inference.config import Config, Model
from inference.fit import NO_WISHES, Plan, Wishes, plan
from inference.gguf_header import read_header
from inference.hub import resolve
from inference.memory import Memory, read_memory
from inference.wire import EngineConfig


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model that can be served: its entry, its memory plan, its engine's settings."""

    model: Model
    plan: Plan
    engine: EngineConfig


def prepare(
    config: Config,
    name: str | None = None,
    wishes: Wishes = NO_WISHES,
    threads: int | None = None,
) -> Deployment:
    """Find the weights of model `name` and plan how they are loaded.

    Raises UnknownModel, DownloadError, BadModelFile, ConfigError and DoesNotFit.
    """
    model = config.find(name)
    path = resolve(model.source)
    planned = plan(read_header(path), _memory(), _over(wishes, model))
    return Deployment(model, planned, _engine(model, path, planned, threads))


def _memory() -> Memory:
    """This box's memory, without GPUs where llama.cpp was built without CUDA."""
    memory = read_memory()
    llama_cpp = importlib.util.find_spec("llama_cpp")
    if memory.gpus and llama_cpp and llama_cpp.origin:
        libraries = Path(llama_cpp.origin).parent / "lib"
        if not any(libraries.glob("*ggml-cuda*")):
            return replace(memory, gpus=())
    return memory


def _over(wishes: Wishes, model: Model) -> Wishes:
    """`wishes`, with what models.yaml says wherever they say nothing."""
    unsaid = {
        field.name: getattr(model, field.name)
        for field in fields(wishes)
        if getattr(wishes, field.name) is None
    }
    return replace(wishes, **unsaid)


def _engine(model: Model, path: Path, planned: Plan, threads: int | None) -> EngineConfig:
    return EngineConfig(
        name=model.name,
        path=str(path.absolute()),
        context=planned.context,
        slots=planned.slots,
        threads=threads or model.threads or _cores(),
        gpu=planned.gpu.uuid if planned.gpu else "",
        gpu_layers=planned.gpu_layers,
        kv_type=planned.kv_type,
        batch=min(planned.n_ubatch, planned.context),
    )


def _cores() -> int:
    """Physical cores this process may use: llama.cpp gains nothing from hyper-threads."""
    return min(psutil.cpu_count(logical=False) or 1, len(os.sched_getaffinity(0)))
