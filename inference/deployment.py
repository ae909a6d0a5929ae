"""From a name and wishes to everything a pool needs: which file, which plan, which settings.

Settings meet here and nowhere else: the command line goes over models.yaml, that over what was
measured (tuned), and what none of them says is what fits this box.
"""

import importlib.util
import os
import shlex
from dataclasses import dataclass, fields, replace
from pathlib import Path

import psutil
from msgspec import structs

from inference.config import Config
from inference.errors import ConfigError, DoesNotFit
from inference.fit import NO_WISHES, Plan, Wishes, plan
from inference.gguf_header import GgufHeader
from inference.hub import resolve
from inference.memory import Memory, read_memory
from inference.model import Model
from inference.preflight import inspect
from inference.tuned import DamagedResult, Subject, identify, recall
from inference.wire import DRAFTS, EngineConfig


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model that can be served: its entry, its memory plan, its engine's settings.

    `subject` is what measured settings are about, `tuning` a sentence on whether there are any;
    `header`, `draft` and `memory` are what was planned with.
    """

    model: Model
    plan: Plan
    engine: EngineConfig
    header: GgufHeader
    draft: GgufHeader | None
    memory: Memory
    subject: Subject
    tuning: str = ""


def prepare(
    config: Config,
    name: str | None = None,
    wishes: Wishes = NO_WISHES,
    threads: int | None = None,
    *,
    tuned: bool = True,
) -> Deployment:
    """Find the weights of model `name` and plan how they are loaded.

    With `tuned`, settings that `onebox tune` found are used where nobody said otherwise. Raises
    UnknownModel, DownloadError, BadModelFile, ConfigError and DoesNotFit.
    """
    model = config.find(name)
    path = resolve(model.source)
    header, memory = inspect(path), _memory()
    if wishes.draft and not model.speculation:
        raise ConfigError(
            f"speculation is off for {model.name}: a draft model has no use.", "draft"
        )
    wishes = _over(wishes, model)
    if header.pooling and wishes.draft:
        raise ConfigError(f"{model.name} is an embedding model: it drafts nothing.", "draft")
    drafting = wishes.draft and model.speculation
    draft = inspect(resolve(config.find(wishes.draft).source)) if drafting else None
    planned = plan(header, memory, wishes, draft)
    threads = threads or model.threads
    engine = _engine(model, path, header, planned, threads or _cores())
    engine = structs.replace(
        engine,
        unified=wishes.kv_layout == "unified" or bool(header.pooling),
        draft=str(draft.path.absolute()) if draft else "",
        draft_stamp=draft.stamp if draft else None,
    )
    subject = identify(engine, planned.gpu.name if planned.gpu else "", threads, wishes.kv_layout)
    deployment = Deployment(model, planned, engine, header, draft, memory, subject)
    measured = tuned and not header.pooling
    return _tuned(deployment, name or model.name) if measured else deployment


def fits(deployment: Deployment, engine: EngineConfig) -> bool:
    """Whether `engine` fits where the deployment's own settings do."""
    try:
        _plan_with(deployment, engine)
    except (ConfigError, DoesNotFit):
        return False
    return True


def _plan_with(deployment: Deployment, engine: EngineConfig) -> Plan:
    """The plan for other settings of the engine: layers, context and slots are as they were."""
    wishes = Wishes(
        context=engine.context,
        slots=engine.slots,
        kv_type=engine.kv_type,
        gpu_layers=engine.gpu_layers,
        n_ubatch=engine.batch,
        flash_attention=engine.flash_attention is not False,
        kv_layout="unified" if engine.unified else "streams",
    )
    planned = plan(deployment.header, deployment.memory, wishes, deployment.draft)
    if planned.request_context == deployment.plan.request_context:
        return replace(planned, reasons=deployment.plan.reasons)
    return planned


def _tuned(deployment: Deployment, name: str) -> Deployment:
    """The deployment with the settings that were measured for it, if they are known and fit."""
    advice = f"`onebox tune {shlex.quote(name)}`, with the same options,"
    try:
        found = recall(deployment.subject)
    except DamagedResult as error:
        return replace(deployment, tuning=f"{error.message} {advice} measures them again.")
    if found is None:
        note = f"{advice} finds the fastest settings for this machine in about a minute."
        return replace(deployment, tuning=note)
    engine = found.choice.over(deployment.engine)
    try:
        planned = _plan_with(deployment, engine)
    except DoesNotFit:
        note = f"The tuned settings ({found.choice}) need more memory than is free: not used."
        return replace(deployment, tuning=note)
    return replace(deployment, plan=planned, engine=engine, tuning=f"Tuned: {found}.")


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


def _engine(
    model: Model, path: Path, header: GgufHeader, planned: Plan, threads: int
) -> EngineConfig:
    return EngineConfig(
        name=model.name,
        path=str(path.absolute()),
        stamp=header.stamp,
        context=planned.context,
        slots=planned.slots,
        threads=threads,
        gpu=planned.gpu.uuid if planned.gpu else "",
        gpu_layers=planned.gpu_layers,
        kv_type=planned.kv_type,
        batch=min(planned.n_ubatch, planned.context),
        itl_target_ms=model.itl_target_ms,
        drafts=DRAFTS if model.speculation and not header.pooling else 0,
        host_cells=0 if header.pooling else _host_cells(model, header, planned),
        pooling=header.pooling,
        whole_inputs=header.whole_inputs,
    )


def _host_cells(model: Model, header: GgufHeader, planned: Plan) -> int:
    """KV cells that may be kept in RAM: where nothing was said, an eighth of what stays free."""
    spare = max(0, planned.ram_free - planned.in_ram.total) // 8
    size = spare if model.host_cache_mib is None else model.host_cache_mib << 20
    return size // header.kv_bytes_per_token(planned.kv_type)


def _cores() -> int:
    """Physical cores this process may use: llama.cpp gains nothing from hyper-threads."""
    return min(psutil.cpu_count(logical=False) or 1, len(os.sched_getaffinity(0)))
