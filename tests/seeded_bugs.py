"""Bugs on purpose: each is put into a copy of the project, and the tests have to notice it.

    python -m tests.seeded_bugs
    python -m tests.seeded_bugs journal    only those in files of that name

A bug is a piece of text that becomes another. Exit status 1 says that one was missed.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from tests.bugs import BUGS, Bug

ROOT = Path(__file__).parents[1]
LONGEST = 300  # seconds for the tests of one bug; who hangs is caught
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "docs", "training", "build", "dist")


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


def caught(bug: Bug, root: Path) -> tuple[bool, float]:
    """Whether the tests fail with the bug in the copy at `root`, and after how many seconds."""
    path, began = root / bug.file, time.perf_counter()
    healthy = path.read_text()
    path.write_text(bug.text(root))
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *bug.tests.split()]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, timeout=LONGEST, check=False
        )
        code = done.returncode
    except subprocess.TimeoutExpired:
        code = 1
    finally:
        path.write_text(healthy)
    if code not in (0, 1):
        raise RuntimeError(f"{bug.name}: pytest ends with {code}: {done.stdout.decode()[-500:]}")
    return code == 1, time.perf_counter() - began


def main(
    where: Annotated[str, typer.Argument(help="A part of a file's or of a bug's name.")] = "",
    jobs: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Put one bug after the other into a copy of the project, and see whether tests fail."""
    bugs = [bug for bug in BUGS if where in bug.file or where in bug.name]
    for bug in bugs:
        bug.text(ROOT)
    missed = []
    with copies(jobs) as free, ThreadPoolExecutor(jobs) as threads:

        def hunt(bug: Bug) -> tuple[Bug, bool, float]:
            root = free.get()
            try:
                return bug, *caught(bug, root)
            finally:
                free.put(root)

        for bug, found, seconds in threads.map(hunt, bugs):
            typer.echo(
                f"{'caught' if found else 'MISSED'} {seconds:5.1f} s  {bug.file}: {bug.name}"
            )
            missed += [] if found else [bug.name]
    typer.echo(f"{len(bugs) - len(missed)} of {len(bugs)} caught")
    raise typer.Exit(bool(missed))


if __name__ == "__main__":
    typer.run(main)
