"""Which tokens of which inputs go into the next call of an embedding model.

The tokens of a call are shared among tenants, and the part of each among its requests: neither a
request of thousands of inputs nor one of long inputs holds up the others. A pure state machine: no
clock, no llama.cpp, no I/O.
"""

import math
from collections import Counter, deque
from dataclasses import dataclass, field

from inference.errors import DeadlineExceeded

_LEAST_SHARE = 32  # tokens of a turn
_LATE = "The time of this request has passed before all of its vectors were there."


@dataclass(slots=True, eq=False)
class Job:
    """A request: the inputs that are to be begun, as (place, tokens), those that are, and how many
    tokens it `had` in calls."""

    id: int
    inputs: deque[tuple[int, list[int]]]
    dimensions: int | None = None
    normalised: bool = True
    deadline: float = math.inf
    tenant: str = ""
    had: int = 0
    rows: "list[Row]" = field(default_factory=list)

    @property
    def unfinished(self) -> "Row | None":
        """The input that needs a further call: no other is begun before."""
        last = self.rows[-1] if self.rows else None
        return last if last and last.planned < len(last.tokens) else None


@dataclass(slots=True, eq=False)
class Row:
    """An input in a slot of its own; `planned` of its tokens are computed with the next call."""

    job: Job
    index: int
    tokens: list[int]
    slot: int
    planned: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens of an input from place `start` on."""

    row: Row
    start: int
    count: int

    @property
    def last(self) -> bool:
        return self.start + self.count == len(self.row.tokens)


@dataclass(frozen=True, slots=True)
class Batch:
    """One call; the cells of the slots in `cleared` are freed before."""

    parts: tuple[Part, ...]
    cleared: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        return sum(part.count for part in self.parts)

    @property
    def ids(self) -> list[int]:
        """The requests in it."""
        return list(dict.fromkeys(part.row.job.id for part in self.parts))


class Packer:
    """The live requests of an embedding model, in `line` as they came.

    A call takes up to `batch` tokens, and up to `slots` inputs are under way, which have room for
    `cells` tokens. Of `whole` inputs all tokens are in one call. Every input fits.
    """

    def __init__(self, slots: int, cells: int, batch: int, *, whole: bool) -> None:
        self.line: list[Job] = []
        self.used = 0  # cells of the inputs under way, counted as if they were computed
        self._cells = cells
        self._batch = batch
        self._whole = whole
        self._free = list(range(slots))
        self._dirty: list[int] = []
        self._had: Counter[str] = Counter()  # tokens, by tenant

    def add(self, job: Job) -> None:
        """Who comes has no claim to what others had before."""
        peers = [other.had for other in self.line if other.tenant == job.tenant]
        if not peers:
            others = (self._had[other.tenant] for other in self.line)
            self._had[job.tenant] = min(others, default=0)
        job.had = min(peers, default=0)
        self.line.append(job)

    def cancel(self, id: int) -> None:
        for job in [job for job in self.line if job.id == id]:
            self._remove(job)

    def late(self, now: float) -> list[tuple[int, DeadlineExceeded]]:
        """The requests of which the time has passed; they are forgotten."""
        late = [job for job in self.line if job.deadline <= now]
        for job in late:
            self._remove(job)
        return [(job.id, DeadlineExceeded(_LATE)) for job in late]

    def plan(self) -> Batch:
        """The next call; without parts if nobody waits. It is to be followed by `commit`, or all of
        its requests are to be cancelled."""
        room, waiting = self._batch, list(self.line)
        share = max(_LEAST_SHARE, self._batch // max(1, len(waiting)))
        starts: dict[Row, int] = {}
        patient = False  # one waits for cells: those that would keep theirs have to wait too
        while room and waiting:
            job = min(waiting, key=lambda job: (self._had[job.tenant], job.had))
            waiting.remove(job)
            row = job.unfinished or self._begun(job, room, short=patient)
            if row is None:
                patient = patient or not self._has_cells(job)
                continue
            starts.setdefault(row, row.planned)
            count = min(room, len(row.tokens) - row.planned, room if self._whole else share)
            row.planned += count
            room -= count
            self._had[job.tenant] += count
            job.had += count
            if job.inputs or job.unfinished:
                waiting.append(job)
        if not starts:
            return Batch(())
        parts = tuple(Part(row, start, row.planned - start) for row, start in starts.items())
        cleared, self._dirty = tuple(self._dirty), []
        return Batch(parts, cleared)

    def commit(self, batch: Batch) -> None:
        """The call is done: whole inputs are, and so are requests of which no input is left."""
        for row in (part.row for part in batch.parts if part.last):
            self._release(row)
            row.job.rows.remove(row)
            if not (row.job.rows or row.job.inputs):
                self.line.remove(row.job)

    def _has_cells(self, job: Job) -> bool:
        return self.used + len(job.inputs[0][1]) <= self._cells

    def _begun(self, job: Job, room: int, *, short: bool) -> Row | None:
        """The next input of `job`, where it may be begun now: one that is `short` ends in this
        call."""
        index, tokens = job.inputs[0]
        fits = len(tokens) <= room or not (self._whole or short)
        if not (fits and self._free and self._has_cells(job)):
            return None
        job.inputs.popleft()
        row = Row(job, index, tokens, self._free.pop())
        self.used += len(tokens)
        job.rows.append(row)
        return row

    def _remove(self, job: Job) -> None:
        self.line.remove(job)
        for row in job.rows:
            self._release(row)

    def _release(self, row: Row) -> None:
        self.used -= len(row.tokens)
        self._free.append(row.slot)
        self._dirty.append(row.slot)
