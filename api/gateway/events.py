"""What is told of a turn beyond the events of a generation."""

from dataclasses import dataclass

from inference import GenerationEvent


@dataclass(frozen=True, slots=True)
class Compacting:
    """Earlier messages are being summed up; the answer waits for it."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """So many earlier messages are shown to the model as a summary from now on."""

    messages: int
    summary: str


@dataclass(frozen=True, slots=True)
class Stored:
    """The turn is on the disk: the answer of `model` under this id, after these new messages."""

    session: str
    answer: str
    new: tuple[str, ...]
    model: str


TurnEvent = GenerationEvent | Compacting | Compacted | Stored
