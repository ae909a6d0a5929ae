"""The real worker, but certain words in a prompt do harm, and so does a file.

Started as a worker is, with a socket at a descriptor, and before it the path of a file: as long as
that exists, no worker survives its first decode.
"""

import os
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

from inference import embedder, worker
from inference.errors import NumericalError
from inference.sequence import Sampled

DEADLY, DEADLY_LATER, STUCK, NUMBERLESS = "POISON", "VENOM", "MOLASSES", "NONSENSE"
LATER = 5  # tokens into the answer
_load_embedder = embedder.load


def _die() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _poison(llama, engine) -> None:
    no_number = NumericalError("no number")

    def holds(seq, word: str) -> bool:
        return word.encode() in b"".join(llama.pieces[token] for token in seq.tokens)

    def step(plan):
        for seq in (chunk.seq for chunk in plan.chunks):
            if holds(seq, DEADLY) or (holds(seq, DEADLY_LATER) and seq.generated >= LATER):
                _die()
            if holds(seq, STUCK):
                time.sleep(600)
        result = harmless(plan)
        sampled = [
            Sampled(s.seq, -1, b"", fault=no_number) if holds(s.seq, NUMBERLESS) else s
            for s in result.sampled
        ]
        return replace(result, sampled=sampled)

    harmless, engine.step = engine.step, step


def _poisoned_embedder(config, loaded):
    """That of an embedding model, in which only the deadly word is one."""
    llama, computes, packer = _load_embedder(config, loaded)

    def step(batch):
        for row in (part.row for part in batch.parts):
            if DEADLY.encode() in b"".join(llama.pieces[token] for token in row.tokens):
                _die()
        return harmless(batch)

    harmless, computes.step = computes.step, step
    return llama, computes, packer


def main(doom: Path, descriptor: int) -> None:
    embedder.load = _poisoned_embedder
    load, prove = worker.load, worker.prove

    def poisoned(*args):
        llama, engine, scheduler = load(*args)
        _poison(llama, engine)
        return llama, engine, scheduler

    def doomed(*args):
        if doom.exists():
            _die()
        prove(*args)

    worker.load, worker.prove = poisoned, doomed
    worker.serve(socket.socket(fileno=descriptor))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
