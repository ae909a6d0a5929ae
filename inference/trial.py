"""What settings are judged by: one load, the same for all, and the times of its parts.

The load: every slot gets a prompt of the same length at once; then 128 steps decode a token in
every slot, but in each fourth of them one slot computes 64 tokens of a newcomer's prompt instead.
Prompts have nothing in common. Knows neither llama.cpp nor how the parts are measured.
"""

import msgspec

from inference.wire import EngineConfig

CHUNK = 64  # tokens
DECODES, MIXED = 96, 32  # steps without and with such a chunk


class Trial(msgspec.Struct, frozen=True):
    """Settings to measure, with prompts of `prompt` tokens: at least CHUNK."""

    config: EngineConfig
    prompt: int


class Times(msgspec.Struct, frozen=True, tag=True):
    """Milliseconds, the least of some runs: a whole prompt; a step that decodes in every slot; such
    a step where one slot computes a chunk instead, in two `llama_decode` calls or in one."""

    prompt: float
    decode: float
    separate: float
    joint: float

    def load(self, slots: int, *, joint: bool) -> float:
        """Milliseconds of the whole load."""
        mixed = self.joint if joint else self.separate
        return slots * self.prompt + DECODES * self.decode + MIXED * mixed

    def least(self, other: "Times") -> "Times":
        """The better of two measurements, part by part: a busy neighbour only ever adds."""
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
        return Times(*map(min, pairs))


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Why a trial gave no times."""

    reason: str
