"""What can be said of a model that is served, or could be: for health checks, lists and metrics."""

from dataclasses import dataclass

from inference.model import Model
from inference.replica import State
from inference.types import ModelInfo
from inference.wire import Stats


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """A snapshot; `cells` is the size of the KV cache, `streams_only` a wish of who runs the
    server: an answer is not waited for as a whole. An embedding model `embeds` and nothing else.

    The weights are `size` bytes in a file, quantised as `quant` says; of them `on_gpu` bytes are
    there. The model leaves in `expires_in` seconds if nobody asks it anything; None if it stays.
    Its worker is the process `pid`, if it is one.
    """

    state: State
    detail: str
    name: str
    aliases: tuple[str, ...]
    info: ModelInfo | None
    cells: int
    restarts: int
    stats: Stats
    streams_only: bool = False
    embeds: bool = False
    quant: str = ""
    size: int = 0
    on_gpu: int = 0
    expires_in: float | None = None
    pid: int | None = None

    @property
    def slots(self) -> int:
        """How many answers it makes at a time; 0 before it is loaded."""
        return self.info.slots if self.info else 0

    @property
    def capabilities(self) -> list[str]:
        """What it does, in the words that Ollama's clients look for; nothing, before its file was
        looked at."""
        if self.state == "unloaded" and self.info is None:
            return []
        return ["embedding"] if self.embeds else ["completion", "tools", "thinking"]


def unloaded(model: Model) -> PoolStatus:
    """What is known of a model before its file was looked at."""
    return PoolStatus(
        state="unloaded",
        detail="",
        name=model.name,
        aliases=model.aliases,
        info=None,
        cells=0,
        restarts=0,
        stats=Stats(),
        streams_only=model.stream == "required",
    )
