"""A disk that is full or broken, from any call on: what is stored stays whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def faulty_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("disk") / "faulty_disk.so"
    command = ["cc", "-shared", "-fPIC", HERE / "faulty_disk.c", "-o", library, "-ldl"]
    subprocess.run(command, check=True)
    return library


@pytest.mark.parametrize(
    ("operation", "least", "says"),
    [
        ("AddKey", 30, "the disk did not confirm it (Input/output error)"),
        ("AddTheFirstKey", 30, "the disk did not confirm it (No space left on device)"),
        ("RemoveKey", 30, "the disk did not confirm it (Input/output error)"),
        ("Remember", 20, ""),
        ("RememberTheFirst", 20, ""),
        ("Pull", 80, ""),
        ("PullTheFirst", 150, ""),
        ("PullAgain", 0, ""),  # nothing has to be written
    ],
)
def test_what_is_stored_is_whole_whatever_the_disk_does(
    operation: str, least: int, says: str, faulty_disk: Path, tmp_path: Path
) -> None:
    done = run("tests.faulty_disk", operation, faulty_disk, tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= least
    assert says in done.stderr


@pytest.mark.parametrize("file", ["New", "Existing"])
def test_turns_that_were_stored_are_there_whatever_the_disk_does(
    file: str, faulty_disk: Path, tmp_path: Path
) -> None:
    done = run("tests.faulty_store", file, faulty_disk, tmp_path, "4")  # every fourth call
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 150


def run(
    module: str, what: str, disk: Path, place: Path, *more: str
) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"LD_PRELOAD": str(disk), "TMPDIR": str(place)}
    command = [sys.executable, "-m", module, what, *more]
    return subprocess.run(
        command, cwd=HERE.parent, env=environment, capture_output=True, text=True, check=False
    )
