"""The step loop of an embedding model: inputs of many requests in one call, a vector of each.

It stands where scheduler and engine stand for other models. Vectors leave as soon as they are
there, so that after a crash the next worker makes only the others. Knows no text.
"""

import time
from collections import deque
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from inference.errors import InferenceError, NumericalError
from inference.inbox import Audience, Inbox
from inference.llama import Aborted, Llama
from inference.packing import Batch, Job, Packer, Part, Row
from inference.wire import Begin, Cancel, Channel, EngineConfig, Rejected, Stats, Step, Vector

_WARM_UP = 64  # tokens computed before the first request
_LEAST_LENGTH = 1e-12  # to divide by: zeros stay zeros
_NO_NUMBERS = "what the model makes of an input is no vector of numbers"

Numbers = npt.NDArray[np.float32]


class Embedder:
    """Computes batches of an embedding model; `step` may only be called from one thread."""

    def __init__(self, llama: Llama) -> None:
        self._llama = llama
        self._seconds = 0.0  # that a token took
        self.interrupt = llama.interrupt
        self.close = llama.close

    def prove(self) -> None:
        """First calls before anybody waits for one: a wrong native build dies here and now."""
        length = min(_WARM_UP, self._llama.info.context)
        tokens = (self._llama.tokenize("a", special=False) * length)[:length]
        row = Row(Job(0, deque()), 0, tokens, slot=0)
        for _ in range(2):  # the first call of all is slow
            self.step(Batch((Part(row, 0, length),), cleared=(0,)))
        self._llama.keep(0, 0)

    def predict(self, batch: Batch) -> float:
        """About how many seconds it takes."""
        return self._seconds * batch.tokens

    def step(self, batch: Batch) -> list[tuple[Row, Numbers]]:
        """Compute a batch: the inputs that are whole now, each with what the model makes of it,
        shape (dimensions,), valid until the next one. Raises DecodeFailed, and Aborted after an
        interrupt."""
        start = time.perf_counter()
        for slot in batch.cleared:
            self._llama.keep(slot, 0)
        parts = batch.parts
        counts = [part.count for part in parts]
        tokens = [t for p in parts for t in p.row.tokens[p.start : p.start + p.count]]
        positions = [n for p in parts for n in range(p.start, p.start + p.count)]
        self._llama.decode(
            np.asarray(tokens, np.int32),
            np.asarray(positions, np.int32),
            np.repeat([part.row.slot for part in parts], counts).astype(np.int32),
            np.ones(len(tokens), np.bool_),
        )
        made = [(part.row, self._llama.vector(part.row.slot)) for part in parts if part.last]
        self._seconds = (time.perf_counter() - start) / len(tokens)
        return made


def load(config: EngineConfig, loaded: Callable[[], None]) -> tuple[Llama, Embedder, Packer]:
    """A model ready to serve; calls `loaded` before its first decode. Raises BadModelFile and
    DoesNotFit."""
    llama = Llama(config)
    embedder = Embedder(llama)
    loaded()
    embedder.prove()
    packer = Packer(config.slots, config.context, config.batch, whole=config.whole_inputs)
    return llama, embedder, packer


def run(
    embedder: Embedder,
    packer: Packer,
    inbox: Inbox[Job | Cancel],
    audience: Audience,
    channel: Channel,
) -> None:
    """The loop: commands, plan, step, send."""
    computed = 0
    while (commands := inbox.take(0 if packer.line else None)) is not None:
        for command in commands:
            match command:
                case Cancel(id):
                    packer.cancel(id)
                case job:
                    packer.add(job)
        faults: dict[int, InferenceError] = dict(packer.late(time.monotonic()))
        batch = packer.plan()
        audience.attends(batch.ids)
        made: list[tuple[Row, Numbers]] = []
        if batch.parts:
            channel.send(Begin(batch.ids, embedder.predict(batch)))
            made = _made(embedder, packer, batch)
            computed += batch.tokens
        vectors = []
        for row, numbers in made:
            if np.isfinite(numbers).all():
                vectors.append(Vector(row.job.id, row.index, finished(numbers, row.job)))
            else:
                packer.cancel(row.job.id)
                faults[row.job.id] = NumericalError(_NO_NUMBERS)
        channel.send(Step([], [], _stats(packer, batch, computed), vectors))
        for id, fault in faults.items():
            channel.send(Rejected(id, fault.code, fault.message))


def _made(embedder: Embedder, packer: Packer, batch: Batch) -> list[tuple[Row, Numbers]]:
    try:
        made = embedder.step(batch)
    except Aborted:  # nobody waits for any of it
        for id in batch.ids:
            packer.cancel(id)
        return []
    packer.commit(batch)
    return made


def finished(numbers: Numbers, job: Job) -> bytes:
    """A vector as its request wants it, as little-endian 32-bit floats."""
    kept = numbers[: job.dimensions].astype(np.float64)
    if job.normalised:
        kept /= max(float(np.linalg.norm(kept)), _LEAST_LENGTH)
    return kept.astype("<f4").tobytes()


def _stats(packer: Packer, batch: Batch, computed: int) -> Stats:
    """Whoever is not in this call waits."""
    running = len({job.id for job in packer.line} & set(batch.ids))
    return Stats(
        waiting=len(packer.line) - running,
        running=running,
        cells=packer.used,
        prompt_tokens=computed,
    )
