"""What can be said of a model that is served, or could be: for health checks, lists and metrics."""

from dataclasses import dataclass

from inference.replica import State
from inference.types import ModelInfo
from inference.wire import Stats


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """A snapshot; `cells` is the size of the KV cache, `streams_only` a wish of who runs the
    server: an answer is not waited for as a whole. An embedding model `embeds` and nothing else."""

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

    @property
    def capabilities(self) -> list[str]:
        """What it does, in the words that Ollama's clients look for."""
        return ["embedding"] if self.embeds else ["completion", "tools", "thinking"]
