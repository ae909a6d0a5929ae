"""On what was measured: the machine, the versions, the revision of the checkout."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from inference.doctor import read_recipe
from inference.tuned import cpu


def describe() -> dict[str, str]:
    """Name -> value, for the head of a report; what is not known is left out."""
    found = {
        "CPU": cpu(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "compiler of llama.cpp": read_recipe(Path(sys.prefix)).get("compiler", ""),
        "Python": platform.python_version(),
        "onebox": _version("onebox"),
        "llama-cpp-python": _version("llama-cpp-python"),
        "revision": _revision(),
    }
    return {name: value for name, value in found.items() if value}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _revision() -> str:
    """The commit of this checkout, and whether files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
