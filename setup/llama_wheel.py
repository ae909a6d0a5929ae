"""The llama-cpp-python wheel of this machine: how it is built, and where built ones are kept.

pip would take any wheel of the right version from its cache, whatever flags made it. So wheels
are kept in the user's cache under a key made of everything that decides what is in them; every
checkout of the user shares them. Knows nothing of environments that use the wheel.
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, TextIO

from setup import SetupError
from setup.running import Pip, locked

_FLAGS: Final = ("-DGGML_NATIVE=ON", "-DLLAVA_BUILD=OFF")
# GCC 12 drops the stores of the AMX tile configuration as dead: the first decode would crash.
# Only GCC knows these options.
_AMX_REPAIR: Final = "-fno-tree-dse -fno-dse"
_GCC_FLAGS: Final = (f"-DCMAKE_C_FLAGS={_AMX_REPAIR}", f"-DCMAKE_CXX_FLAGS={_AMX_REPAIR}")
_CUDA_FLAG: Final = "-DGGML_CUDA=on"


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides what a wheel contains.

    `target` is a digest of what the compiler predefines for this CPU, so it changes with the
    instruction sets in use. `cuda` names toolkit and GPUs, and is empty for a build without CUDA.
    """

    version: str
    flags: tuple[str, ...]
    compiler: str
    target: str
    cuda: str = ""

    @property
    def key(self) -> str:
        """A folder name: equal for equal recipes only."""
        digest = hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()
        return f"{self.version}-{'cuda' if self.cuda else 'cpu'}-{digest[:16]}"


def recipe_for_this_machine(version: str, *, cuda: bool) -> Recipe:
    """Raises SetupError, saying what to install, if a compiler is missing."""
    macros = _predefined_macros(_cxx())
    gcc = "__clang__" not in macros
    return Recipe(
        version=version,
        flags=_FLAGS + (_GCC_FLAGS if gcc else ()) + (_cuda_flags() if cuda else ()),
        compiler=("GCC " if gcc else "") + macros["__VERSION__"].strip('"'),
        target=hashlib.sha256(json.dumps(macros).encode()).hexdigest()[:16],
        cuda=_cuda_toolkit_and_gpus() if cuda else "",
    )


def wheel_of(recipe: Recipe, cache: Path, pip: Pip, out: TextIO) -> Path:
    """The wheel built by `recipe`: from the cache, or built now, which takes minutes.

    One process at a time may call this for a cache. Raises SetupError if the build fails.
    """
    place = cache / "wheels" / recipe.key
    if place.is_dir() and not _is_sound(place):
        print("The wheel in the cache is damaged: it is built again.", file=out, flush=True)
        shutil.rmtree(place)
    if not place.is_dir():
        _build(recipe, place, pip, out)
    return next(place.glob("*.whl"))


def _is_sound(place: Path) -> bool:
    """Whether there is a wheel and all of it can be unpacked."""
    try:
        with zipfile.ZipFile(next(place.glob("*.whl"))) as wheel:
            return wheel.testzip() is None
    except (StopIteration, OSError, EOFError, zipfile.BadZipFile, zlib.error):
        return False


def _build(recipe: Recipe, place: Path, pip: Pip, out: TextIO) -> None:
    """A wheel appears at `place` whole or not at all."""
    partial = place.with_name(f"{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    print("Building llama.cpp for this machine: some minutes, once.", file=out, flush=True)
    command = ["wheel", "-v", "--no-deps", "--no-cache-dir", "--no-build-isolation"]
    command += ["--no-binary=llama-cpp-python", "--wheel-dir", str(partial), *locked("llama")]
    environment = {
        "CMAKE_ARGS": shlex.join(recipe.flags),
        "CMAKE_BUILD_PARALLEL_LEVEL": str(len(os.sched_getaffinity(0))),
        "CXX": _cxx(),
    }
    if recipe.cuda:
        environment["CUDACXX"] = _nvcc()
    log = place.with_name(f"{place.name}.log")
    pip.run(command, log, out, environment)
    (partial / "build.json").write_text(json.dumps(asdict(recipe), indent=2))
    partial.rename(place)


def _cxx() -> str:
    names = (os.environ.get("CXX") or "", "c++", "g++", "clang++")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise SetupError("A C++ compiler is missing: install one (apt install g++).")
    return found


def _cuda_flags() -> tuple[str, ...]:
    """Built are kernels for the GPUs that are here, or for those of CUDAARCHS, CMake's variable:
    an image is built where there is none."""
    kinds = os.environ.get("CUDAARCHS")
    return (_CUDA_FLAG, *([f"-DCMAKE_CUDA_ARCHITECTURES={kinds}"] if kinds else []))


def _nvcc() -> str:
    toolkit = Path(os.environ.get("CUDA_HOME") or "/usr/local/cuda")
    found = shutil.which("nvcc") or shutil.which("nvcc", path=toolkit / "bin")
    if found is None:
        raise SetupError(
            "CUDA=1 needs nvcc, the compiler of NVIDIA's CUDA toolkit: install the toolkit "
            "(apt install nvidia-cuda-toolkit), or go without the GPU (CUDA=0)."
        )
    return found


def _predefined_macros(compiler: str) -> dict[str, str]:
    """What `compiler` defines before any code when it compiles for the CPU it runs on."""
    command = [compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise SetupError(
            f"{compiler} does not work ({answer.stderr.strip()}): install GCC (apt install g++)."
        )
    # "#define NAME VALUE", where the value may be missing or contain spaces
    definitions = (line.split(" ", 2)[1:] for line in answer.stdout.splitlines())
    return {name: " ".join(value) for name, *value in sorted(definitions)}


def _cuda_toolkit_and_gpus() -> str:
    answer = subprocess.run([_nvcc(), "--version"], capture_output=True, text=True, check=False)
    toolkit = answer.stdout.strip().splitlines()[-1:]
    information = Path("/proc/driver/nvidia/gpus").glob("*/information")
    lines = (line for path in information for line in path.read_text().splitlines())
    gpus = {line.partition(":")[2].strip() for line in lines if line.startswith("Model:")}
    return ", ".join([*toolkit, *sorted(gpus)]) or "unknown"
