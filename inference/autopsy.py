"""What a worker died of: signal or exit code, how far it had come, and the cause where it is known.

Turns facts into sentences; it watches nothing itself.
"""

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Stage = Literal["loading", "first decode", "serving"]

_NAMES: Final = {int(s): s.name for s in signal.Signals}
_WHEN: Final = {
    "loading": "while it loaded the weights",
    "first decode": "at its first decode",
    "serving": "while it was serving",
}
_BUILD: Final = (
    "llama.cpp was built for another machine, or by a compiler that breaks it (GCC 12 on CPUs with "
    "AMX): build it again with `make clean` and `make install`, and look at `onebox doctor`"
)
_KNOWN: Final = (  # the stage, or any; the signal, or any; words on stderr, or none; the cause
    ("", "", "out of memory", "the GPU has too little free memory: try a smaller --context"),
    ("", "SIGBUS", "", "the weights could not be read: the file was cut short, or its disk fails"),
    ("", "SIGILL", "", _BUILD),
    ("first decode", "SIGSEGV", "", _BUILD),
    ("loading", "SIGABRT", "", "llama.cpp refuses this file"),
    ("loading", "SIGSEGV", "", "llama.cpp cannot read this file"),
)
_MEMORY: Final = "the kernel ended it because memory ran out: try a smaller --context or model"


@dataclass(frozen=True, slots=True)
class Death:
    """The end of a worker. `code` as of a `subprocess`, None for one that hung and was killed;
    `words` are its last lines on stderr; `starved` that the kernel killed something for want of
    memory meanwhile."""

    stage: Stage
    code: int | None
    words: str = ""
    starved: bool = False

    @property
    def own_fault(self) -> bool:
        """Whether the worker did it itself; SIGKILL comes from outside."""
        return self.code != -signal.SIGKILL

    @property
    def sentence(self) -> str:
        """What happened, for everybody: without paths and without the worker's words."""
        if self.code is None:
            how = "hung and was killed"
        elif self.code < 0:
            how = f"was ended by signal {_NAMES.get(-self.code, -self.code)}"
        else:
            how = f"ended with exit code {self.code}"
        cause = f": {self.cause}" if self.cause else ""
        return f"The model's worker {how} {_WHEN[self.stage]}{cause}."

    @property
    def cause(self) -> str:
        """The known cause, if there is one."""
        if self.starved and not self.own_fault:
            return _MEMORY
        name = _NAMES.get(-(self.code or 0), "")
        for stage, signal_name, words, cause in _KNOWN:
            if stage in ("", self.stage) and signal_name in ("", name) and words in self.words:
                return cause
        return ""


def kills_for_memory() -> int:
    """How often this kernel has killed a process because memory ran out."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
