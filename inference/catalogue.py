"""What clients may name: the model that is served, and what models.yaml lists; never a path.

Also which of those are on this machine, and what their files say. All but `find` reads files, and
is for threads. Knows neither pools nor what is loaded.
"""

import threading
from contextlib import suppress
from pathlib import Path

from inference.config import Config
from inference.errors import InferenceError, UnknownModel
from inference.gguf_format import stamp_of
from inference.gguf_header import GgufHeader
from inference.hub import installed, resolve
from inference.model import HubFile, Model
from inference.preflight import inspect


class Catalogue:
    """The names of a server whose first model is `name`, also called `aliases`. Without a `config`
    there is no other."""

    def __init__(self, config: Config | None, name: str, aliases: tuple[str, ...]) -> None:
        self._config = config
        self._name = name
        entry = config.spelled(name) if config else None
        names = ("default", name, *aliases, *(entry or ())[:1])  # of whatever quant is served
        self._own = {own.lower() for own in names}
        self._headers: dict[Path, GgufHeader] = {}
        self._looking = threading.Lock()

    def find(self, name: str | None) -> Model | None:
        """The model that a client means; None is the first one.

        Upper and lower case are one, `:latest` adds nothing. Raises UnknownModel.
        """
        wanted = (name or "default").lower()
        if wanted in self._own or wanted.removesuffix(":latest") in self._own:
            return None
        if self._config is None:
            raise UnknownModel(f"No model of that name is served; this is {self._name}.", "model")
        model = self._config.listed(wanted)
        return None if model.name == self._name else model

    def here(self) -> list[tuple[Model, int]]:
        """What can be loaded beside the first one, with the size of its file in bytes."""
        if self._config is None:
            return []
        names = (
            spelling
            for name, entry in self._config.models.items()
            for spelling in (name, *(f"{name}:{quant}" for quant in entry.quants))
        )
        models = {model.name: model for name in names if (model := self.find(name))}
        others = (model for name, model in models.items() if name.lower() not in self._own)
        sizes = ((model, _size(model)) for model in others)
        return [(model, size) for model, size in sizes if size is not None]

    def look(self, model: Model) -> GgufHeader:
        """What the file of `model`, which is here, says. Raises BadModelFile."""
        path = resolve(model.source)
        with self._looking:  # at one file at a time, and at none twice
            header = self._headers.get(path)
            if header is None or header.stamp != stamp_of(path.stat()):
                header = self._headers[path] = inspect(path)
        return header


def _size(model: Model) -> int | None:
    """Of the file of `model`, if that is here."""
    with suppress(InferenceError, OSError):
        return resolve(model.source).stat().st_size
    return None


def require(model: Model) -> None:
    """Raises UnknownModel, with what to do, if the weights of `model` are not on this machine."""
    if installed(model.source):
        return
    if isinstance(model.source, HubFile):
        sentence = f"{model.name} is not installed here; fetch it with: onebox pull {model.name}"
    else:
        sentence = f"{model.name} is listed in models.yaml, but its file is not there."
    raise UnknownModel(sentence, "model")


def without_folders(text: str, model: Model) -> str:
    """`text` for those who need not know where the files of `model` are."""
    files = [Path(model.draft)] if model.draft else []
    with suppress(InferenceError):
        files.append(resolve(model.source))
    for place in (place for file in files for place in (file, file.absolute())):
        text = text.replace(str(place), place.name)
    return text
