"""What a name of models.yaml means: a model as it would be served, and where its weights are.

Plain frozen values. Knows neither the file they were read from nor what is on this machine.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inference.types import Sampling


@dataclass(frozen=True, slots=True)
class Bundled:
    """Weights that ship inside the package."""

    name: str


@dataclass(frozen=True, slots=True)
class LocalFile:
    path: Path


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a Hugging Face repository; `name` is what `onebox pull` calls it.

    `sha256` (64 lower-case hex digits), where known, must be what the hub announces.
    """

    name: str
    repo: str
    file: str
    revision: str = "main"
    sha256: str | None = None


Source = Bundled | LocalFile | HubFile


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What a request that says nothing is sampled with, by its resolved thinking mode."""

    thinking: Sampling
    plain: Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model as it would be served; `None` means "let the memory plan choose".

    `context` counts tokens over all slots; `itl_target_ms` is the time wanted between two tokens;
    `draft` names a model that guesses what this one says; `stream` whether answers have to be
    streamed.
    """

    name: str
    source: Source
    aliases: tuple[str, ...]
    thinking: bool
    sampling: SamplingDefaults
    context: int | None
    slots: int | None
    kv_type: str | None
    kv_layout: str | None
    threads: int | None
    gpu_layers: int | None
    itl_target_ms: float | None
    speculation: bool
    draft: str | None
    host_cache_mib: int | None
    stream: Literal["optional", "required"] = "optional"
