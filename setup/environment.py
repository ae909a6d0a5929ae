"""Makes `.venv` what a request asks for, and remembers it so that nothing is done twice.

Packages come by the lists in `locks/`, which say what the SHA-256 of each file must be; only those
for training, which are gigabytes and differ by machine, come by their versions alone. The memory is
one file inside `.venv`, written last: without it, `.venv` is made from scratch. `onebox doctor`
reads it too. Does not know how the llama.cpp wheel is built.
"""

import fcntl
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TextIO

from setup import SetupError
from setup.llama_wheel import Recipe, recipe_for_this_machine, wheel_of
from setup.running import Pip, locked

RECORD: Final = "onebox-setup.json"
CONSTRAINTS: Final = "constraints.txt"
TRAIN: Final = "train"


@dataclass(frozen=True, slots=True)
class Request:
    """What one caller needs; `.venv` keeps what earlier ones asked for. `cuda=None`: no wish."""

    extras: frozenset[str] = frozenset()
    cuda: bool | None = None


@dataclass(frozen=True, slots=True)
class State:
    """All that `.venv` depends on: two equal states need no work to get from one to the other."""

    base: str
    packages: str
    extras: tuple[str, ...]
    llama: Recipe


def set_up(root: Path, request: Request, out: TextIO = sys.stdout) -> None:
    """Makes `root`/.venv ready. Raises SetupError with what to install or what went wrong."""
    found, wanted = _compare(root, request)
    if found == wanted:
        return
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        raise SetupError("Python's venv module is missing: install it (apt install python3-venv).")
    cache = _cache()
    with _alone(cache, out):
        found, wanted = _compare(root, request)  # another set-up may have been faster
        if found != wanted:
            _install(root, cache, found, wanted, out)


def _compare(root: Path, request: Request) -> tuple[State | None, State]:
    """What `.venv` is, if it is finished, and what it should become."""
    found = _read(root / ".venv" / RECORD)
    cuda = request.cuda
    if cuda is None:
        cuda = found is not None and bool(found.llama.cuda)
    return found, _wanted(root, request.extras | set(found.extras if found else ()), cuda)


def _read(record: Path) -> State | None:
    try:
        fields: dict[str, Any] = json.loads(record.read_text())
        llama = fields["llama"]
        recipe = Recipe(**llama | {"flags": tuple(llama["flags"])})
        return State(**fields | {"extras": tuple(fields["extras"]), "llama": recipe})
    except (OSError, ValueError, TypeError, KeyError):
        return None  # never finished, or finished by another version of this set-up


def _wanted(root: Path, extras: frozenset[str], cuda: bool) -> State:
    constraints = (root / CONSTRAINTS).read_text()
    pinned = re.search(r"^llama-cpp-python==(\S+)$", constraints, re.MULTILINE)
    assert pinned, f"{CONSTRAINTS} pins llama-cpp-python"
    packages = (root / "pyproject.toml").read_text() + constraints
    packages += "".join(lock.read_text() for lock in sorted(root.glob("locks/*.txt")))
    return State(
        base=f"{root} with Python {sys.version_info[0]}.{sys.version_info[1]} of {sys.base_prefix}",
        packages=hashlib.sha256(packages.encode()).hexdigest(),
        extras=tuple(sorted(extras)),
        llama=recipe_for_this_machine(pinned[1], cuda=cuda),
    )


def _install(root: Path, cache: Path, found: State | None, wanted: State, out: TextIO) -> None:
    venv = root / ".venv"
    pip = Pip(venv / "bin" / "python", root)
    (venv / RECORD).unlink(missing_ok=True)
    if found is None or found.base != wanted.base:
        found = None
        _make(venv)
    log = cache / "pip.log"
    pip.run(["install", *locked("build")], log, out)
    if found is None or found.llama != wanted.llama:
        wheel = wheel_of(wanted.llama, cache, pip, out)
        again = ["--no-deps", "--force-reinstall"]  # same version, another build
        pip.run(["install", *again, str(wheel)], log, out)
    print("Installing packages.", file=out, flush=True)
    names = [name for name in ("serve", *wanted.extras) if name != TRAIN]
    pip.run(["install", *locked(*names)], log, out)
    project = ["--no-deps", "--editable", "."]
    if TRAIN in wanted.extras:
        project = ["--constraint", CONSTRAINTS, "--editable", f".[{TRAIN}]"]
    pip.run(["install", "--no-build-isolation", *project], log, out)
    (venv / RECORD).write_text(json.dumps(asdict(wanted), indent=2))


def _make(venv: Path) -> None:
    command = [sys.executable, "-m", "venv", "--clear", str(venv)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise SetupError(f"{venv} cannot be made: {(made.stdout + made.stderr).strip()}")


def _cache() -> Path:
    """A folder of this user that all checkouts share; XDG base directory specification."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(home) / "onebox"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"{cache} cannot be made ({error.strerror}): name another place with XDG_CACHE_HOME."
        ) from None
    return cache


@contextmanager
def _alone(cache: Path, out: TextIO) -> Iterator[None]:
    """One set-up of a user at a time: they share the wheels, and perhaps the checkout."""
    with (cache / "setup.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Waiting for another set-up to finish.", file=out, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
