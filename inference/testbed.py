"""Where settings are measured: a child process that loads the model and answers trials.

What a trial does to native code ends that process and nothing else; the next trial gets a new
one. Knows neither llama.cpp nor why anything is measured.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import msgspec
import psutil

from inference.sandbox import environment
from inference.trial import Failed, Times, Trial

_COMMAND = (sys.executable, "-m", "inference.trial_worker")


class TrialFailed(Exception):
    """A trial gave no times; the message says why."""


class TookTooLong(TrialFailed):
    """It had to be ended, which says nothing about its settings but that."""


class Testbed(contextlib.AbstractContextManager["Testbed"]):
    """Measures one trial after the other; leaving the context ends the child process.

    `gpu` is the CUDA device to use, as CUDA_VISIBLE_DEVICES spells it; empty leaves it open.
    `neighbours` is, in the end, the share of the machine's CPU time that other programs took.
    """

    __test__ = False  # pytest would collect it

    def __init__(self, gpu: str = "", command: Sequence[str] = _COMMAND) -> None:
        self._environment = environment({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {})
        self._command = command
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - __exit__ closes it
        self._process: subprocess.Popen[bytes] | None = None
        self._begun, self._others = time.monotonic(), _seconds_of_others()
        self.neighbours = 0.0

    def __exit__(self, *_: object) -> None:
        self._end()
        self._words.close()
        there_were = (time.monotonic() - self._begun) * (psutil.cpu_count() or 1)
        self.neighbours = (_seconds_of_others() - self._others) / there_were

    def measure(self, trial: Trial, seconds: float | None) -> Times:
        """The times of `trial`. Raises TrialFailed where there are none within `seconds`."""
        self._process = self._process or self._start()
        line = _ask(self._process, msgspec.json.encode(trial) + b"\n", seconds)
        if line is None:
            self._end()
            raise TookTooLong("it took too long")
        answer = msgspec.json.decode(line, type=Times | Failed) if line else Failed(self._autopsy())
        if isinstance(answer, Failed):
            self._end()
            raise TrialFailed(answer.reason)
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            env=self._environment,
            bufsize=0,
        )

    def _end(self) -> None:
        if self._process:
            with self._process as process:  # closes the pipes and waits
                process.kill()
            self._process = None

    def _autopsy(self) -> str:
        """How the process, which has closed its output, ended."""
        assert self._process
        code = self._process.wait()
        self._words.seek(0)
        last = self._words.read().decode(errors="replace").strip().splitlines()[-1:]
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return ": ".join([f"the process that measured it ended with {how}", *last])


def _seconds_of_others() -> float:
    """CPU time of other programs so far; that of a child counts as theirs until it has ended."""
    box, own = psutil.cpu_times(), os.times()
    used = sum(box) - box.idle - box.iowait
    return used - own.user - own.system - own.children_user - own.children_system


def _ask(process: subprocess.Popen[bytes], question: bytes, seconds: float | None) -> bytes | None:
    """The answering line; empty if the process is gone, None if it did not answer in time."""
    assert process.stdin and process.stdout
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(question)
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    return process.stdout.readline() if ready else None
