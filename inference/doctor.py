"""What `onebox doctor` looks at: every check is a value, with what was found and what to do.

Prints nothing and asks nothing of the network. llama.cpp is questioned in a child process, because
a build that does not suit this machine ends whichever process loads it. Does not know which model
will be served, nor whether llama.cpp computes rightly: a worker tries that when it starts.
"""

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from huggingface_hub import constants

from inference.memory import Memory, read_memory

GIB: Final = 2**30
SETUP_RECORD: Final = "onebox-setup.json"  # written by `make install` into the environment

_ASK_LLAMA: Final = """
import json, llama_cpp
print(json.dumps({
    "version": llama_cpp.__version__,
    "features": llama_cpp.llama_print_system_info().decode(),
    "offload": llama_cpp.llama_supports_gpu_offload(),
}))
"""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; `advice` is empty where there is nothing to do."""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Build:
    """The llama-cpp-python of this environment.

    `features` is llama.cpp's own list, `recipe` is what the set-up wrote down when it built the
    wheel: empty for a wheel that came from elsewhere.
    """

    version: str
    features: str
    offload: bool
    recipe: Mapping[str, Any]


def examine(port: int = 8000) -> list[Check]:
    """Everything about this machine that serving depends on; takes about a second."""
    memory = read_memory()
    return [
        Check("Python", "ok", platform.python_version()),
        *_check_llama(memory),
        check_memory(memory),
        check_port(port),
        check_weights_folder(Path(constants.HF_HUB_CACHE)),
        check_waiting(os.environ),
    ]


def _check_llama(memory: Memory) -> list[Check]:
    build = ask_llama(read_recipe(Path(sys.prefix)))
    if isinstance(build, Check):
        return [build]
    return [check_build(build), check_amx(build, _cpu_flags()), check_gpu(build, memory)]


def ask_llama(recipe: Mapping[str, Any]) -> Build | Check:
    """The build that a worker would load, or the check that failed because none could."""
    answer = subprocess.run(
        [sys.executable, "-c", _ASK_LLAMA], capture_output=True, text=True, check=False
    )
    if answer.returncode == 0:
        return Build(**json.loads(answer.stdout), recipe=recipe)
    reason = f"ended by signal {-answer.returncode}" if answer.returncode < 0 else ""
    reason = reason or (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
    advice = "Run `make install`, which builds it for this machine."
    return Check("llama.cpp", "fail", f"cannot be loaded: {reason}", advice)


def read_recipe(environment: Path) -> Mapping[str, Any]:
    """How the set-up built llama-cpp-python for this virtual environment, if it did."""
    try:
        recipe: Mapping[str, Any] = json.loads((environment / SETUP_RECORD).read_text())["llama"]
    except (OSError, ValueError, KeyError):
        return {}
    return recipe


def check_build(build: Build) -> Check:
    if not build.recipe:
        advice = "Run `make install`: a wheel from elsewhere can be several times slower here."
        return Check("llama.cpp", "warn", f"{build.version}, not built by Onebox", advice)
    flags = " ".join(build.recipe["flags"])
    return Check("llama.cpp", "ok", f"{build.version}, {build.recipe['compiler']}, {flags}")


def check_amx(build: Build, cpu_flags: Collection[str]) -> Check:
    """AMX doubles the speed, but as GCC 12 compiles it by default the first decode crashes."""
    if "amx_int8" not in cpu_flags:
        return Check("AMX", "ok", "this CPU has none")
    if "AMX_INT8 = 1" not in build.features:
        advice = "Run `make install`, which builds for this CPU: about twice as fast."
        return Check("AMX", "warn", "this CPU has it, the build does not use it", advice)
    by_gcc_12 = build.recipe.get("compiler", "GCC 12").startswith("GCC 12")
    if by_gcc_12 and "-fno-tree-dse" not in " ".join(build.recipe.get("flags", ())):
        advice = "Run `make install`: built by GCC 12 without a repair, it crashes when it decodes."
        return Check("AMX", "fail" if build.recipe else "warn", "used, without the repair", advice)
    return Check("AMX", "ok", "used")


def check_gpu(build: Build, memory: Memory) -> Check:
    names = ", ".join(gpu.name for gpu in memory.gpus)
    if memory.gpus and not build.offload:
        advice = "Run `make install CUDA=1`, which builds llama.cpp for it."
        return Check("GPU", "warn", f"{names}: not used, this build is for the CPU", advice)
    if not memory.gpus and build.recipe.get("cuda"):
        advice = "See that `nvidia-smi` lists it and CUDA_VISIBLE_DEVICES does not hide it."
        return Check("GPU", "warn", "none is visible, but the build is for CUDA", advice)
    return Check("GPU", "ok", names or "none: the CPU does the work")


def check_memory(memory: Memory) -> Check:
    found = f"{memory.ram_free / GIB:.1f} of {memory.ram_total / GIB:.1f} GiB free"
    if memory.ram_free < GIB:
        return Check("memory", "warn", found, "Close other programs: models need 1 GiB and more.")
    return Check("memory", "ok", found)


def check_port(port: int) -> Check:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            advice = "Stop what listens there, or choose another: `onebox serve --port N`."
            return Check("port", "warn", f"{port} cannot be had: {error.strerror}", advice)
    return Check("port", "ok", f"{port} is free")


def check_weights_folder(folder: Path) -> Check:
    """Where pulled weights are kept: it, or what it will be made in, must take new files."""
    place = next(here for here in (folder, *folder.parents) if here.exists())
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        advice = "Make it writable, or name another with HF_HOME."
        return Check("weights", "fail", f"{folder} cannot be written", advice)
    free = shutil.disk_usage(place).free
    found = f"{free / GIB:.1f} GiB free in {folder}"
    if free < 2 * GIB:
        advice = "Free some space, or name a folder on another disk with HF_HOME."
        return Check("weights", "warn", found, advice)
    return Check("weights", "ok", found)


def check_waiting(environment: Mapping[str, str]) -> Check:
    """How llama.cpp's OpenMP threads wait for each other; Onebox has them sleep unless told."""
    policy = environment.get("OMP_WAIT_POLICY", "PASSIVE").upper()
    if policy != "PASSIVE":
        advice = "Unset it: threads that spin can be 15 times slower on a busy machine."
        return Check("threads", "warn", f"OMP_WAIT_POLICY={policy}", advice)
    return Check("threads", "ok", "sleep while they wait")


def _cpu_flags() -> set[str]:
    """The CPU's features in the kernel's spelling; none where the kernel does not list them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.split()}
