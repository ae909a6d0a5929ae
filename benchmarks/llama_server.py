"""Builds llama.cpp's own server, the peer to measure against, from the very source and with the
very flags of the llama.cpp in `.venv`.

`python -m benchmarks.llama_server FOLDER` leaves FOLDER/bin/llama-server (and llama-batched-bench).
Needs cmake; takes about five minutes on two cores.
"""

import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import BenchmarkError, run
from inference.doctor import read_recipe

TARGETS = ("llama-server", "llama-batched-bench")
_OWN_FLAGS = ("-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_TESTS=OFF")


def built(folder: Path) -> Path:
    """FOLDER/bin with all of `TARGETS`, built unless that was done, from this source with these
    flags. Raises BenchmarkError if it cannot be."""
    tools, record = folder / "bin", folder / "built.json"
    recipe = json.dumps([version("llama-cpp-python"), *flags()])
    if not (record.exists() and record.read_text() == recipe):
        folder.mkdir(parents=True, exist_ok=True)
        configure = ["cmake", "-S", str(_fetch(folder)), "-B", str(folder)]
        _do([*configure, "-DCMAKE_BUILD_TYPE=Release", *_OWN_FLAGS, *flags()])
        _do(["cmake", "--build", str(folder), "--parallel", "--target", *TARGETS])
        record.write_text(recipe)
    return tools


def flags() -> list[str]:
    """The cmake flags that built the llama.cpp in this environment."""
    recipe = read_recipe(Path(sys.prefix))
    if not recipe:
        raise BenchmarkError(f"{sys.prefix} was not made by make; run make dev, and use its .venv.")
    return [str(flag) for flag in recipe["flags"]]


def _fetch(folder: Path) -> Path:
    """The source of the installed llama-cpp-python, unpacked below `folder`."""
    release = version("llama-cpp-python")
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
    _do([*pip, f"llama-cpp-python=={release}", "-d", str(folder)])
    [archive] = folder.glob(f"*{release}.tar.gz")
    shutil.unpack_archive(archive, folder)
    return archive.with_suffix("").with_suffix("") / "vendor" / "llama.cpp"


def _do(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        needs = "it needs cmake, a C++ compiler and the package index"
        raise BenchmarkError(f"llama-server cannot be built ({needs}): {error}") from None


def main(folder: Annotated[Path, typer.Argument(help="Where to build, about 1 GB")]) -> None:
    """Build llama-server with the flags of this environment's llama.cpp."""
    typer.echo(f"{built(folder)} holds {' and '.join(TARGETS)}.")


if __name__ == "__main__":
    run(main)
