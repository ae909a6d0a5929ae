"""What a worker owes: every live request, what it was given so far, and whom to suspect of a crash.

When a worker dies, its requests go on in the next one, from prompt and tokens given. Those that it
was computing are suspects: the next worker gets them one at a time, the worst first and each when
the one before it has got further than it was, in every choice. One that does not, and with which
alone a worker dies once more, is given up. Everybody else waits until that is over, so that nobody
is blamed for a neighbour. A pure state machine: no clock, no process, no I/O.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import msgspec

from inference.types import Asked, LiveRequest
from inference.wire import (
    Accepted,
    Count,
    Counted,
    Delta,
    Embed,
    End,
    Rejected,
    Said,
    Submit,
    Vector,
)

Answer = Accepted | Counted | Rejected | Delta | End | Vector
Request = Submit | Embed | Count

GIVEN_UP: Final = 2.0  # blame at which a request is not tried again

Reader = TypeVar("Reader")


@dataclass(slots=True)
class Entry(Generic[Reader]):
    """A request and whom its answers are for; every vector that it wants counts as a choice. It is
    what was `asked`, if anybody shall know of it. `sent` and `begun` are about the worker that runs
    now; `blame` grows with each death of a worker that was computing it, and ends when every choice
    that was `stuck` then has got further."""

    submit: Request
    reader: Reader
    came: float
    asked: Asked | None = None
    said: list[Said] = field(default_factory=list)
    accepted: bool = False
    answered: bool = False
    sent: bool = False
    begun: bool = False
    blame: float = 0.0
    stuck: set[int] = field(default_factory=set)

    def note(self, answer: Answer, now: float) -> None:
        self.answered = True
        match answer:
            case Accepted():
                self.accepted = True
            case Delta(index=index, tokens=tokens):
                part = self.said[index]
                part.first_token = part.first_token or now - self.came
                part.tokens += tokens
                self._gets_further(index)
            case End(index=index) | Vector(index=index):
                self.said[index].ended = True
                self._gets_further(index)

    def suspect(self, blame: float) -> None:
        """A worker died while it was computing this."""
        self.blame += blame
        self.stuck = {index for index, part in enumerate(self.said) if not part.ended}

    def seen(self, asked: Asked, model: str, now: float) -> LiveRequest:
        """How far it is."""
        tokens = sum(len(part.tokens) for part in self.said)
        seconds = asked.waited + now - self.came
        return LiveRequest(asked.id, model, asked.tenant, seconds, tokens, self.begun)

    def _gets_further(self, index: int) -> None:
        self.stuck.discard(index)
        if not self.stuck:
            self.blame = 0.0

    def answer_is_whole(self, last: Answer) -> bool:
        """Whether nothing follows the `last` of its answers."""
        return isinstance(last, Rejected) or all(part.ended for part in self.said)

    def command(self, now: float) -> Request:
        """What makes a worker go on from here."""
        if isinstance(self.submit, Count):
            return self.submit
        waited, said = now - self.came, tuple(self.said)
        return msgspec.structs.replace(self.submit, waited=waited, said=said)


class Journal(Generic[Reader]):
    """The live requests of one replica, in order of arrival. Times are seconds on any clock."""

    def __init__(self) -> None:
        self._live: dict[int, Entry[Reader]] = {}
        self._due: deque[Entry[Reader]] = deque()
        self._on_trial: Entry[Reader] | None = None

    def __len__(self) -> int:
        return len(self._live)

    def add(self, submit: Request, reader: Reader, now: float, asked: Asked | None = None) -> None:
        entry = Entry(submit, reader, now, asked, [Said() for _ in range(_choices(submit))])
        self._live[submit.id] = entry
        self._due.append(entry)

    def due(self, now: float) -> Iterator[Request]:
        """What a worker that is ready should be sent."""
        while self._due and self._on_trial is None:
            entry = self._due.popleft()
            if entry.submit.id in self._live:
                entry.sent = True
                self._on_trial = entry if entry.blame else None
                yield entry.command(now)

    def note(self, answer: Answer, now: float) -> Reader | None:
        """Book an answer; who shall have it, if anybody."""
        entry = self._live.get(answer.id)
        if entry is None:
            return None
        known = entry.accepted and isinstance(answer, Accepted)
        entry.note(answer, now)
        if entry.answer_is_whole(answer):
            self.remove(answer.id)  # no other worker has a part in it, however slow its reader is
        elif entry is self._on_trial and not entry.blame:
            self._on_trial = None
        return None if known else entry.reader

    def owed(self) -> tuple[bool, bool]:
        """Whether the worker has requests to read, and some to compute."""
        sent = [entry for entry in self._live.values() if entry.sent]
        return not all(e.answered for e in sent), any(e.answered for e in sent)

    def began(self, ids: list[int]) -> None:
        """The worker computes these requests from now on."""
        for id in ids:
            if entry := self._live.get(id):
                entry.begun = True

    def remove(self, id: int) -> None:
        """Nobody waits for this request any more."""
        entry = self._live.pop(id, None)
        if entry is self._on_trial:
            self._on_trial = None

    def where(self, which: Callable[[Asked], bool]) -> list[Entry[Reader]]:
        """The requests of which `which` is true."""
        return [entry for entry in self._live.values() if entry.asked and which(entry.asked)]

    def seen(self, model: str, now: float) -> list[LiveRequest]:
        """How far each request is, in order of arrival."""
        return [e.seen(e.asked, model, now) for e in self._live.values() if e.asked]

    def crash(self, blame: float) -> list[Entry[Reader]]:
        """The worker is dead, and so much of the blame falls on each request that it was computing;
        who is given up for it, if anybody."""
        suspects = self._suspects()
        for entry in suspects:
            entry.suspect(blame)
        alone = len(suspects) == 1
        guilty = [entry for entry in suspects if alone and entry.blame >= GIVEN_UP]
        for entry in guilty:
            self.remove(entry.submit.id)
        for entry in self._live.values():
            entry.sent = entry.begun = entry.answered = False
        self._on_trial = None
        latest = reversed(self._live.values())  # who was there for long has done no harm so far
        blamed = sorted((entry for entry in latest if entry.blame), key=lambda entry: -entry.blame)
        self._due = deque([*blamed, *(e for e in self._live.values() if not e.blame)])
        return guilty

    def abandon(self) -> list[Entry[Reader]]:
        """Forget all requests; which they were."""
        entries = list(self._live.values())
        self._live.clear()
        self._due.clear()
        self._on_trial = None
        return entries

    def _suspects(self) -> list[Entry[Reader]]:
        """Those being computed, and the one being read in: the first that is not yet answered."""
        live = self._live.values()
        reading = [entry for entry in live if entry.sent and not entry.answered]
        return [entry for entry in live if entry.begun] + reading[:1]


def _choices(request: Request) -> int:
    """How many parts of an answer there will be."""
    match request:
        case Submit():
            return request.n
        case Embed():
            return len(request.inputs)
    return 0
