"""Runs pip: its output goes to a log, a person sees how far it is and, if it fails, the errors.

Knows the counter that ninja writes before every command ("[3/140] ...") and nothing else of what
pip does.
"""

import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from setup import SetupError

_COUNTER: Final = re.compile(r"\s*\[(\d+)/(\d+)\] ")
_ERROR: Final = re.compile(r"\berror:", re.IGNORECASE)
_SHOWN_LINES: Final = 8
_NOT_INHERITED: Final = frozenset(
    # The first turns GGML_NATIVE off; others would change the build behind its key's back, or want
    # other versions than those that are locked.
    [
        "SOURCE_DATE_EPOCH",
        "CMAKE_ARGS",
        "CFLAGS",
        "CXXFLAGS",
        "CPPFLAGS",
        "LDFLAGS",
        "PIP_CONSTRAINT",
        "PIP_BUILD_CONSTRAINT",
    ]
)


@dataclass(frozen=True, slots=True)
class Pip:
    """The pip of one environment, run in the checkout `root`."""

    python: Path
    root: Path

    def run(
        self, arguments: Sequence[str], log: Path, out: TextIO, extra: dict[str, str] | None = None
    ) -> None:
        """Raises SetupError, naming the log, if pip does not succeed."""
        environment = {k: v for k, v in os.environ.items() if k not in _NOT_INHERITED}
        environment |= {
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_INPUT": "1",
        }
        with (
            log.open("w", errors="replace") as copy,
            subprocess.Popen(
                [self.python, "-m", "pip", *arguments],
                cwd=self.root,
                env=environment | (extra or {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            ) as pip,
        ):
            assert pip.stdout is not None
            follow(pip.stdout, copy, out)
        if pip.returncode:
            raise SetupError(_failure(log))


def locked(*names: str) -> list[str]:
    """Options for pip: what these lists in `locks/` name, and every file must be as they say."""
    return ["--require-hashes", *(f"--requirement=locks/{name}.txt" for name in names)]


def follow(lines: Iterable[str], copy: TextIO, out: TextIO) -> None:
    """Copies `lines`; on `out`, one line that changes in place, or one per tenth of the way if
    that is no terminal."""
    in_place = out.isatty()
    tenth = 0
    for line in lines:
        copy.write(line)
        if not (counter := _COUNTER.match(line)):
            continue
        done, total = map(int, counter.groups())
        if in_place:
            end = "\n" if done == total else ""
            print(f"\r  compiled {done} of {total}\x1b[K", end=end, file=out, flush=True)
        elif done * 10 // total > tenth:
            tenth = done * 10 // total
            print(f"  compiled {done} of {total}", file=out, flush=True)


def _failure(log: Path) -> str:
    """The errors in the log, or its end if it calls none so, and where the rest is."""
    lines = log.read_text(errors="replace").splitlines()
    telling = [line for line in lines if _ERROR.search(line)] or lines
    shown = "\n".join(f"  {line.strip()[:200]}" for line in telling[-_SHOWN_LINES:])
    return f"{shown}\npip failed, as told above; all that it said is in {log}"
