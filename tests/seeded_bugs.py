"""Bugs on purpose: each is put into a copy of the project, or a protection is taken away, and the
tests have to notice it.

    python -m tests.seeded_bugs
    python -m tests.seeded_bugs journal    only those in files of that name

A bug is a piece of text that becomes another. Without any bug the same tests have to pass. Exit
status 1 says that a bug was missed.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from tests.bugs import BUGS
from tests.bugs.bug import Bug

ROOT = Path(__file__).parents[1]
LONGEST = 300  # seconds for the tests of a bug: one that makes them hang is caught
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "training", "build", "dist")


@contextmanager
def copies(count: int) -> Iterator[SimpleQueue[Path]]:
    """So many copies of the project."""
    with TemporaryDirectory() as folder:
        queue: SimpleQueue[Path] = SimpleQueue()
        for number in range(count):
            copy = Path(folder) / str(number)
            shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
            queue.put(copy)
        yield queue


def passes(tests: str, root: Path, longest: float | None = None) -> bool:
    """Whether these tests pass in the copy at `root`."""
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *tests.split()]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, timeout=longest, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    if done.returncode not in (0, 1):
        raise RuntimeError(f"pytest {tests} ends with {done.returncode}")
    return done.returncode == 0


def caught(bug: Bug, root: Path) -> bool:
    """Whether tests fail with the bug in the copy at `root`, which is healthy afterwards."""
    path = root / bug.file
    healthy = path.read_text()
    path.write_text(bug.text(root))
    try:
        return not passes(bug.tests, root, LONGEST)
    finally:
        path.write_text(healthy)


def main(
    where: Annotated[str, typer.Argument(help="A part of a file's or of a bug's name.")] = "",
    jobs: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Put one bug after the other into a copy of the project, and see whether tests fail."""
    bugs = [bug for bug in BUGS if where in bug.file or where in bug.name]
    for bug in bugs:
        bug.text(ROOT)
    began = time.perf_counter()
    with copies(jobs) as free, ThreadPoolExecutor(jobs) as threads:

        def borrow(look: Callable[[Any, Path], bool], what: Any) -> bool:
            root = free.get()
            try:
                return look(what, root)
            finally:
                free.put(root)

        tests = sorted({bug.tests for bug in bugs})
        for test, good in zip(tests, threads.map(partial(borrow, passes), tests), strict=True):
            if not good:
                raise SystemExit(f"{test} fails without any bug in it.")
        found = []
        for bug, noticed in zip(bugs, threads.map(partial(borrow, caught), bugs), strict=True):
            found.append(noticed)
            typer.echo(f"{'caught' if noticed else 'MISSED'}  {bug.file}: {bug.name}")
    typer.echo(f"{sum(found)} of {len(bugs)} caught in {time.perf_counter() - began:.0f} s")
    raise typer.Exit(not all(found))


if __name__ == "__main__":
    typer.run(main)
