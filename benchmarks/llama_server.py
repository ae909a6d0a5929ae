"""Builds llama.cpp's own server, the peer to measure against, from the very source and with the
very flags of the llama.cpp in `.venv`.

`python -m benchmarks.llama_server FOLDER` leaves FOLDER/bin/llama-server (and llama-batched-bench).
Needs cmake; takes about five minutes on two cores.
"""

import json
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import run

TARGETS = ("llama-server", "llama-batched-bench")
_OWN_FLAGS = ("-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_TESTS=OFF")


def fetch(folder: Path) -> Path:
    """The source of the installed llama-cpp-python, unpacked below `folder`."""
    release = version("llama-cpp-python")
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*pip, f"llama-cpp-python=={release}", "-d", str(folder)], check=True)
    [archive] = folder.glob(f"*{release}.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return archive.with_suffix("").with_suffix("") / "vendor" / "llama.cpp"


def flags() -> list[str]:
    """The cmake flags that built the llama.cpp in this environment."""
    record = json.loads((Path(sys.prefix) / "onebox-setup.json").read_text())
    return [str(flag) for flag in record["llama"]["flags"]]


def built(folder: Path) -> Path:
    """FOLDER/bin with all of `TARGETS`, built unless it is there already."""
    tools = folder / "bin"
    if not all((tools / target).exists() for target in TARGETS):
        folder.mkdir(parents=True, exist_ok=True)
        build = ["cmake", "--build", str(folder), "--parallel", "--target", *TARGETS]
        configure = ["cmake", "-S", str(fetch(folder)), "-B", str(folder)]
        configure += ["-DCMAKE_BUILD_TYPE=Release", *_OWN_FLAGS, *flags()]
        subprocess.run(configure, check=True)
        subprocess.run(build, check=True)
    return tools


def main(folder: Annotated[Path, typer.Argument(help="Where to build, about 1 GB")]) -> None:
    """Build llama-server with the flags of this environment's llama.cpp."""
    typer.echo(f"{built(folder)} holds {' and '.join(TARGETS)}.")


if __name__ == "__main__":
    run(main)
