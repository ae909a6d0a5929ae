"""Everything that Onebox stores, on a disk where one call after the other goes wrong.

    LD_PRELOAD=... python -m tests.faulty_disk AddKey

The disk is faulty_disk.c. Prints how many calls went wrong; what is not as promised then ends it.
"""

import ctypes
import errno
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from huggingface_hub import constants

from api import keys
from inference import ConfigError, tuned
from inference.errors import DownloadError, InferenceError
from inference.hub import installed, pull, resolve
from inference.model import HubFile
from inference.tuned import Choice, NotStored, Result, Subject
from tests.hub_stand_in import REPO, HubStandIn, hub_stand_in

ONCE, FROM_THEN_ON, HALF, LOST = range(4)  # as in faulty_disk.c
FAULTS = (
    (ONCE, errno.ENOSPC),
    (ONCE, errno.EIO),
    (FROM_THEN_ON, errno.ENOSPC),
    (FROM_THEN_ON, errno.EIO),
    (HALF, 0),
    (LOST, errno.EIO),
)
Fault = tuple[int, int, int]  # kind, number of the call, errno
CHUNK = 40_000  # bytes of a download that are written at once


class Operation(ABC):
    """Turns what is seen in a folder from `old` into `new`, or refuses in a sentence."""

    refusal: ClassVar[type[InferenceError]]
    old: ClassVar[Any]
    new: ClassVar[Any]

    @abstractmethod
    def __init__(self, folder: Path) -> None: ...

    @abstractmethod
    def run(self) -> None: ...

    @abstractmethod
    def seen(self) -> Any: ...


class AddKey(Operation):
    """Seen are the names, and whose the latest secret is."""

    refusal = ConfigError
    old, new = (["alice"], "alice"), (["alice", "bob"], "bob")

    def __init__(self, folder: Path) -> None:
        self.path, self.secret = folder / "private" / "keys.json", ""
        for name in self.old[0]:
            self.secret = keys.add(self.path, name)

    def run(self) -> None:
        self.secret = keys.add(self.path, "bob")

    def seen(self) -> Any:
        owner = keys.KeyFile(self.path).find(self.secret.encode())
        return [key.name for key in keys.load(self.path)], owner and owner.name


class AddTheFirstKey(AddKey):
    old, new = ([], None), (["bob"], "bob")


class RemoveKey(AddKey):
    old, new = (["alice", "bob"], "bob"), (["alice"], None)

    def run(self) -> None:
        keys.remove(self.path, "bob")


def measured(gain: float) -> Result:
    sizes = {"size": 1, "changed": 2, "cores": 1, "slots": 1, "gpu_layers": 0}
    names = {"head": "", "cpu": "", "gpu": "", "llama": "", "kv_type": "f16"}
    subject = Subject(**sizes, **names, threads=None, layout=None)
    choice = Choice(threads=1, batch=256, flash_attention=None, unified=False, joint=True)
    return Result(subject=subject, choice=choice, gain=gain)


class Remember(Operation):
    refusal = NotStored
    old, new = measured(1.5), measured(2.0)

    def __init__(self, folder: Path) -> None:
        os.environ["XDG_CACHE_HOME"] = str(folder)
        if self.old:
            tuned.remember(self.old)

    def run(self) -> None:
        tuned.remember(self.new)

    def seen(self) -> Any:
        return tuned.recall(self.new.subject)


class RememberTheFirst(Remember):
    old = None


class Pull(Operation):
    """Seen is which of two files are here; of what is here every byte must be right."""

    refusal = DownloadError
    old, new = (True, False), (True, True)
    hub: ClassVar[HubStandIn]
    files: ClassVar = {name: Random(name).randbytes(3 * CHUNK) for name in ("one", "two")}

    def __init__(self, folder: Path) -> None:
        os.environ["HF_HOME"] = str(folder)
        for name, here in zip(self.files, self.old, strict=True):
            if here:
                self._pull(name)

    def run(self) -> None:
        self._pull("two")

    def seen(self) -> Any:
        return tuple(map(self._is_here, self.files))

    def _pull(self, name: str) -> None:
        self.hub.files, self.hub.content = {name}, self.files[name]
        pull(HubFile(name, REPO, name), lambda here, size: None)

    def _is_here(self, name: str) -> bool:
        source = HubFile(name, REPO, name)
        if here := installed(source):
            assert resolve(source).read_bytes() == self.files[name], "wrong bytes are installed"
        return here


class PullTheFirst(Pull):
    old, new = (False, False), (False, True)


class PullAgain(Pull):
    old = new = (True, True)


OPERATIONS: dict[str, type[Operation]] = {
    kind.__name__: kind
    for kind in [
        *(AddKey, AddTheFirstKey, RemoveKey),
        *(Remember, RememberTheFirst),
        *(Pull, PullTheFirst, PullAgain),
    ]
}


def refusal(operation: Operation) -> str | None:
    try:
        operation.run()
    except operation.refusal as error:
        return error.message
    return None


def check(disk: ctypes.CDLL, operation: Operation, folder: Path, fault: Fault) -> int:
    """Runs it with a fault, and once more without if need be; how many calls it made."""
    disk.disk_fault(os.fsencode(folder), *fault)
    try:
        sentence = refusal(operation)
    finally:
        calls: int = disk.disk_mended()
    if sentence is None:
        assert operation.seen() == operation.new
        disk.disk_forget()
    else:
        assert operation.seen() == operation.old
        assert os.strerror(fault[-1]) in sentence and "\n" not in sentence
    assert operation.seen() in (operation.old, operation.new)
    if operation.seen() != operation.new:
        operation.run()
        assert operation.seen() == operation.new
    disk.disk_forget()
    assert operation.seen() in (operation.old, operation.new)
    return calls


def tried(faults: Iterable[tuple[int, int]], attempt: Callable[[Fault], int], stride: int) -> int:
    """How many faults there were: of each kind at every `stride`th call, for as long as `attempt`
    makes so many calls."""
    number = 0
    for kind, code in faults:
        for nth in count(1, stride):
            try:
                calls = attempt((kind, nth, code))
            except BaseException as error:
                error.add_note(f"Fault {kind} at call {nth}: {os.strerror(code)}")
                raise
            if calls < nth:
                break
            number += 1
    return number


def main(name: str) -> None:
    disk = ctypes.CDLL(None)

    def attempt(fault: Fault) -> int:
        with TemporaryDirectory() as place:
            folder = Path(place).resolve()
            return check(disk, OPERATIONS[name](folder), folder, fault)

    print(tried(FAULTS, attempt, 1))


if __name__ == "__main__":
    constants.DOWNLOAD_CHUNK_SIZE = CHUNK
    with hub_stand_in(b"") as Pull.hub:
        os.environ["HF_ENDPOINT"] = Pull.hub.url
        main(sys.argv[1])
