"""What processes that handle untrusted files are started with, and what they take from themselves.

A model file can break the code that reads it. Then there are no secrets in that process, no core
file with people's prompts is left behind, and it does not outlive the process that started it.
Linux only. Knows neither the files nor what is done with them.
"""

import ctypes
import os
import re
import resource
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

_KEPT = re.compile(
    "PATH|HOME|LANG|LANGUAGE|TZ|TMPDIR|"
    "(LC_|LD_|CUDA|NVIDIA|GGML|LLAMA|OMP_|GOMP_|KMP_|OPENBLAS_|MKL_|MALLOC_|PYTHON).*"
)
_SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL")  # NVIDIA_API_KEY, for one
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38  # sys/prctl.h
# `python -m inference.x` would first run the package's `__init__`, which imports all that the API
# process needs: a third of a second, and much that has no business here.
_START = """
import importlib, sys
package = sys.modules["inference"] = type(sys)("inference")
package.__path__ = [sys.argv.pop(1)]
importlib.import_module(sys.argv.pop(1)).main()
"""


def command(module: str, *arguments: str) -> list[str]:
    """The command line that runs `main` of a module of this package, and little else."""
    return [sys.executable, "-P", "-c", _START, str(Path(__file__).parent), module, *arguments]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a child process needs to know of this one's environment, and `more`."""
    quiet = {"GGML_NO_BACKTRACE": "1"}  # else an abort starts gdb, and its words bury the reason
    kept = {
        name: value
        for name, value in os.environ.items()
        if _KEPT.fullmatch(name) and not _SECRET.search(name)
    }
    return quiet | kept | dict(more or {})


def confine() -> None:
    """This process leaves no core file, gains no rights, and dies with the thread that started it:
    for a worker, the one of the server's event loop."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def limit_memory(more: int) -> None:
    """Let this process have so many bytes more of address space than it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, allowed = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + more
    if allowed == resource.RLIM_INFINITY or most < allowed:
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def limit_cpu(seconds: float) -> None:
    """Let this process compute for so many seconds from now, then it dies; 0 for no limit. Time
    that others take of a busy box does not count."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
