"""models.yaml -> Config: what can be served, where its weights come from, with which defaults.

Every key of the file is a field of a frozen pydantic model of the same name; `auto` becomes None.
All mistakes of a file make one ConfigError, a line each, that names the key and what was expected.
This module does not know which weights are on this machine (hub) nor what fits it (fit).
"""

import difflib
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from inference.errors import ConfigError, UnknownModel
from inference.model import Bundled, HubFile, LocalFile, Model, SamplingDefaults, Source
from inference.types import Sampling
from inference.yaml_file import read_yaml


def _or_auto(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    if value == "auto":
        return None
    try:
        return validate(value)
    except ValidationError as error:
        reason = {"reason": error.errors()[0]["msg"]}
        raise PydanticCustomError("or_auto", "{reason}, or auto", reason) from None


def _beside_the_file(value: object, info: ValidationInfo) -> object:
    return (info.context or Path()) / Path(value).expanduser() if isinstance(value, str) else value


def _file_beside(value: object, info: ValidationInfo) -> object:
    """The path of a GGUF is relative to the file; a model's name stays as it is."""
    is_file = isinstance(value, str) and value.lower().endswith(".gguf")
    return str(_beside_the_file(value, info)) if is_file else value


def _shaped(pattern: str, words: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"should be {words}")
        return value

    return AfterValidator(check)


_Port = Annotated[int, Field(ge=0, le=65535)]
_Limit = Annotated[int, Field(ge=1)]
_Seconds = Annotated[int, Field(ge=0, le=86_400)]
_Stay = Annotated[int, Field(ge=-1, le=2**31 - 1)]
_Count = Annotated[int | None, Field(ge=1), WrapValidator(_or_auto)]
_Natural = Annotated[int | None, Field(ge=0), WrapValidator(_or_auto)]
_Milliseconds = Annotated[float | None, Field(gt=0), WrapValidator(_or_auto)]
_KvType = Annotated[Literal["f16", "q8_0"] | None, WrapValidator(_or_auto)]
_KvLayout = Annotated[Literal["streams", "unified"] | None, WrapValidator(_or_auto)]
_Draft = Annotated[str | None, BeforeValidator(_file_beside), WrapValidator(_or_auto)]
_Path = Annotated[Path, BeforeValidator(_beside_the_file)]
_Repo = Annotated[str, _shaped(r"[\w.-]+/[\w.-]+", "OWNER/NAME")]
_Host = Annotated[
    str, _shaped(r"[\w.-]+|\[[\da-fA-F:.]+\]", "a host name or address, without a port")
]
_Origin = Annotated[
    str,
    _shaped(r"[a-z][a-z\d+.-]*://[^\s/*?#@A-Z]+", "like https://chat.example.com, in lower case"),
]
_Sha256 = Annotated[str, _shaped(r"[0-9a-f]{64}", "64 lower-case hex digits")]
_Temperature = Annotated[float | None, Field(ge=0, le=2)]
_Share = Annotated[float | None, Field(ge=0, le=1)]
_TopK = Annotated[int | None, Field(ge=0)]
_Repeat = Annotated[float | None, Field(gt=0)]
_Penalty = Annotated[float | None, Field(ge=-2, le=2)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ServerConfig(_Section):
    """Where the server listens, who may come in, where conversations are stored, how many may wait,
    how long a stop takes, and how long models stay in memory."""

    host: str = "127.0.0.1"
    port: _Port = 8000
    queue: _Limit = 256
    keys: _Path | None = None
    database: _Path | None = None
    allowed_hosts: list[_Host] = []
    allowed_origins: list[_Origin] = []
    drain_seconds: _Seconds = 25
    keep_alive: _Stay = 300
    max_models: _Count = None


class SamplingEntry(_Section):
    temperature: _Temperature = None
    top_k: _TopK = None
    top_p: _Share = None
    min_p: _Share = None
    repeat_penalty: _Repeat = None
    presence_penalty: _Penalty = None
    frequency_penalty: _Penalty = None

    def sampling(self) -> Sampling:
        return Sampling(**self.model_dump())


class SamplingModes(_Section):
    thinking: SamplingEntry = SamplingEntry()
    plain: SamplingEntry = SamplingEntry()

    def over(self, defaults: "SamplingModes") -> SamplingDefaults:
        return SamplingDefaults(
            self.thinking.sampling().over(defaults.thinking.sampling()),
            self.plain.sampling().over(defaults.plain.sampling()),
        )


class Settings(_Section):
    """How a model is run; what an entry does not say, `defaults` says."""

    context: _Count = None
    slots: _Count = None
    kv_type: _KvType = None
    kv_layout: _KvLayout = None
    threads: _Count = None
    gpu_layers: _Natural = None
    itl_target_ms: _Milliseconds = None
    speculation: bool = True
    draft: _Draft = None
    host_cache_mib: _Natural = None
    thinking: bool = True
    stream: Literal["optional", "required"] = "optional"
    sampling: SamplingModes = SamplingModes()


class HubEntry(_Section):
    """A repository with one GGUF file per quant; `quant` names the one that is meant by default."""

    repo: _Repo
    revision: str = "main"
    quant: str
    files: dict[str, str]
    sha256: dict[str, _Sha256] = {}

    @model_validator(mode="after")
    def _quants_have_files(self) -> Self:
        for quant in (self.quant, *self.sha256):
            if quant not in self.files:
                raise ValueError(f"names quant {quant}, which has no entry in files")
        return self


class ModelEntry(Settings):
    """One model and exactly one source of its weights."""

    aliases: list[str] = []
    bundled: str | None = None
    path: _Path | None = None
    hub: HubEntry | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.bundled, self.path, self.hub)) != 1:
            raise ValueError("needs exactly one of bundled, path and hub")
        return self

    @property
    def quants(self) -> tuple[str, ...]:
        return tuple(self.hub.files) if self.hub else ()


class Config(_Section):
    """The whole of models.yaml; `models` are in the order of the file."""

    server: ServerConfig = ServerConfig()
    defaults: Settings = Settings()
    models: dict[str, ModelEntry]

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        if "default" not in self.spellings:
            raise ValueError("one model needs the alias default")
        return self

    @cached_property
    def spellings(self) -> dict[str, tuple[str, str | None]]:
        """Lower-case spelling -> model and quant, for names, aliases and both with a quant."""
        known: dict[str, tuple[str, str | None]] = {}
        for name, spelling in self._names_and_aliases():
            taken, _ = known.setdefault(spelling.lower(), (name, None))
            if taken != name:
                raise ValueError(f"{spelling} names both {taken} and {name}")
        for name, spelling in self._names_and_aliases():
            for quant in self.models[name].quants:
                for joined in (f"{spelling}:{quant}", f"{spelling}-{quant}"):
                    known.setdefault(joined.lower(), (name, quant))
        return known

    @property
    def default(self) -> str:
        """The name of the model that is meant when none is named."""
        return self.spellings["default"][0]

    def _names_and_aliases(self) -> Iterator[tuple[str, str]]:
        for name, entry in self.models.items():
            for spelling in (name, *entry.aliases):
                yield name, spelling

    def find(self, name: str | None = None) -> Model:
        """The model that `name` means: a name, an alias, either with a quant, or a GGUF's path.

        Upper and lower case are one, `:latest` adds nothing, and no name is the default model.
        Raises UnknownModel with the nearest names.
        """
        wanted = name or "default"
        if (known := self.spelled(wanted)) is not None:
            return self._listed(*known)
        path = os.path.expanduser(wanted)
        if wanted.lower().endswith(".gguf") or os.path.isfile(path):
            return self._model(Path(path).stem, LocalFile(Path(path)), Settings())
        raise UnknownModel(self._nothing_is_called(wanted), field="model")

    def spelled(self, wanted: str) -> tuple[str, str | None] | None:
        """The entry and the quant that `wanted` spells, if it is no path."""
        return self.spellings.get(wanted.lower().removesuffix(":latest"))

    def listed(self, wanted: str) -> Model:
        """The model that `wanted` spells, which is never a path: it may come from anybody. Its
        aliases are those that mean it and nothing else.

        Raises UnknownModel with the nearest names.
        """
        if (known := self.spelled(wanted)) is None:
            others = f"{self._nearest(wanted)} Known are {', '.join(self.models)}."
            raise UnknownModel(f"There is no model of that name.{others}", "model")
        (name, quant), model = known, self._listed(*known)
        names = [alias for alias in model.aliases if alias != "default"]
        if model.name != name:
            names = [f"{alias}:{quant}" for alias in names]
        return replace(model, aliases=tuple(names))

    def _listed(self, name: str, quant: str | None) -> Model:
        entry = self.models[name]
        source: Source = LocalFile(entry.path) if entry.path else Bundled(entry.bundled or name)
        if hub := entry.hub:
            quant = quant or hub.quant
            name = name if quant == hub.quant else f"{name}:{quant}"
            source = HubFile(name, hub.repo, hub.files[quant], hub.revision, hub.sha256.get(quant))
        return self._model(name, source, entry)

    def _model(self, name: str, source: Source, said: Settings) -> Model:
        keys = said.model_fields_set & Settings.model_fields.keys()
        run = self.defaults.model_copy(update={key: getattr(said, key) for key in keys})
        alike = {key: getattr(run, key) for key in Settings.model_fields if key != "sampling"}
        return Model(
            name=name,
            source=source,
            aliases=tuple(said.aliases) if isinstance(said, ModelEntry) else (),
            sampling=said.sampling.over(self.defaults.sampling),
            **alike,
        )

    def _nothing_is_called(self, wanted: str) -> str:
        known = f"Known are {', '.join(self.models)}, and any path to a .gguf file."
        return f"There is no model called {wanted!r}.{self._nearest(wanted)} {known}"

    def _nearest(self, wanted: str) -> str:
        near = difflib.get_close_matches(wanted.lower(), self.spellings, n=3)
        return f" Did you mean {' or '.join(near)}?" if near else ""


def load_config(path: Path | None = None) -> Config:
    """The configuration in `path`, or the one that ships with Onebox.

    Raises ConfigError: the file cannot be read, is not YAML, or does not say what it should.
    """
    path = path or _shipped()
    try:
        return Config.model_validate(read_yaml(path), context=path.parent)
    except ValidationError as error:
        problems = (f"{path}: {_sentence(problem)}" for problem in error.errors())
        raise ConfigError("\n".join(problems)) from error


def _shipped() -> Path:
    installed = Path(__file__).with_name("models.yaml")
    return installed if installed.exists() else Path(__file__).parent.with_name("models.yaml")


def _sentence(problem: ErrorDetails) -> str:
    """One pydantic problem in words a person can act on: the key's path, then what is wrong."""
    keys = [key for key in problem["loc"] if key != "[key]"]
    where = ".".join(map(str, keys))
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(keys[-1]), _section_at(keys[:-1]).model_fields, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{where} is not a key{hint}"
    if problem["type"] == "missing":
        return f"{where} is missing"
    wrong = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if problem["type"] in ("model_type", "dict_type"):
        wrong = "should be a block of keys"
    found = "" if isinstance(problem["input"], dict) else f", not {problem['input']!r}"
    return f"{where} {wrong}{found}".strip()


def _section_at(keys: list[int | str]) -> type[BaseModel]:
    """The section a key's path leads to; the names of models are no keys and lead nowhere."""
    section: type[BaseModel] = Config
    for key in keys:
        field = section.model_fields.get(str(key))
        parts = (field.annotation, *get_args(field.annotation)) if field else ()
        inner = (part for part in parts if isinstance(part, type) and issubclass(part, BaseModel))
        section = next(inner, section)
    return section
