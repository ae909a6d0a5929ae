"""A build backend (PEP 517, PEP 660) without dependencies, so that set-up can be tested offline.

Its wheels hold one module that tells in which environment they were built.
"""

import os
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

_TOLD = ("CMAKE_ARGS", "CXX", "SOURCE_DATE_EPOCH")


def build_wheel(folder: str, settings: Any = None, metadata: Any = None) -> str:
    name, version = _project()
    with Path(os.environ["STAND_IN_BUILDS"]).open("a") as builds:
        builds.write(f"{name}\n")
    for step in (1, 2):
        print(f"[{step}/2] compiling", flush=True)
    if os.environ.get("STAND_IN_FAILS"):
        sys.exit("fatal error: no such header")
    files = _metadata(name, version)
    files[f"{name}.py"] = f"BUILT_WITH = { {key: os.environ.get(key) for key in _TOLD} }\n"
    record = f"{name}-{version}.dist-info/RECORD"
    files[record] = "".join(f"{path},,\n" for path in (*files, record))
    wheel = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(Path(folder) / wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


build_editable = build_wheel


def prepare_metadata_for_build_wheel(folder: str, settings: Any = None) -> str:
    name, version = _project()
    for path, text in _metadata(name, version).items():
        target = Path(folder) / path
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)
    return f"{name}-{version}.dist-info"


prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel


def _metadata(name: str, version: str) -> dict[str, str]:
    place = f"{name}-{version}.dist-info"
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nProvides-Extra: dev\n"
    wheel = "Wheel-Version: 1.0\nGenerator: stand-in\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    return {f"{place}/METADATA": head, f"{place}/WHEEL": wheel}


def _project() -> tuple[str, str]:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    return project["name"], project["version"]
