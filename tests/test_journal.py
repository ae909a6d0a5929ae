"""The journal against a plain account of what was asked, said and computed."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from inference.journal import GIVEN_UP, Journal
from inference.sequence import SamplingParams
from inference.types import GenerationRequest, LiveRequest
from inference.wire import Accepted, Count, Counted, Delta, End, Rejected, Submit, Text


def submit(id: int, n: int = 1) -> Submit:
    return Submit(
        id=id,
        prompt=Text("hello"),
        sampling=SamplingParams(),
        n=n,
    )


def end(id: int, index: int = 0) -> End:
    return End(id, index, "", "stop", 1, 0, 0.0, 0.0, 0.0)


class Book(RuleBasedStateMachine):
    """`told` holds the tokens of the choices of every live request, None for one that has ended;
    a question how long a prompt is has none."""

    live = Bundle("live")

    def __init__(self) -> None:
        super().__init__()
        self.journal: Journal[str] = Journal()
        self.now = 0.0
        self.told: dict[int, list[list[int] | None]] = {}
        self.count = 0  # of all requests there ever were
        self.sent: list[int] = []
        self.accepted: set[int] = set()
        self.answered: set[int] = set()
        self.begun: set[int] = set()
        self.blame: dict[int, float] = {}
        self.stuck: dict[int, set[int]] = {}

    @rule(target=live, n=st.integers(1, 3))
    def ask(self, n):
        id = self.count
        self.count += 1
        self.journal.add(submit(id, n), f"client {id}", self.now)
        self.told[id] = [[] for _ in range(n)]
        self.blame[id], self.stuck[id] = 0.0, set()
        return id

    @rule(target=live)
    def ask_for_a_count(self):
        id = self.count
        self.count += 1
        self.journal.add(Count(id, Text("hello")), f"client {id}", self.now)
        self.told[id] = []
        self.blame[id], self.stuck[id] = 0.0, set()
        return id

    @rule()
    def send(self):
        """What the worker is sent, is sent once, with all that was said."""
        self.now += 1
        for command in self.journal.due(self.now):
            id = command.id
            assert id in self.told and id not in self.sent
            said = command.said if isinstance(command, Submit) else ()
            ended = [part is None for part in self.told[id]]
            assert [part.ended for part in said] == ended
            assert [p.tokens for p in said if not p.ended] == [
                part for part in self.told[id] if part is not None
            ]
            self.sent.append(id)
        suspects = [id for id in self.told if self.blame[id]]
        on_trial = [id for id in suspects if id in self.sent]
        assert len(on_trial) == min(len(suspects), 1)
        if suspects:
            assert self.blame[on_trial[0]] == max(self.blame.values())
        else:
            assert set(self.told) <= set(self.sent)

    def _note(self, answer) -> str | None:
        return self.journal.note(answer, self.now)

    @rule(readers=st.integers(0, 5), begins=st.booleans())
    def work(self, readers, begins):
        """The worker answers some of what it was sent, and may begin with all of those."""
        self.send()
        for id in [id for id in self.sent if id not in self.answered][:readers]:
            if self.told.get(id) == []:
                assert self._note(Counted(id, 1)) == f"client {id}"
                del self.told[id]
                continue
            heard = self._note(Accepted(id, 1, False))
            assert heard == (None if id in self.accepted or id not in self.told else f"client {id}")
            self.accepted.add(id)
            self.answered.add(id)
        if begins:
            self.journal.began(list(self.answered))
            self.begun |= self.answered

    @rule(id=live, index=st.integers(0, 2), tokens=st.lists(st.integers(1, 9), min_size=1))
    def say(self, id, index, tokens):
        if id in self.begun and id not in self.told:
            assert self._note(Delta(id, index, "text", tokens)) is None
        elif self._computed(id, index):
            assert self._note(Delta(id, index, "text", tokens)) == f"client {id}"
            self.told[id][index] = self.told[id][index] + tokens
            self._got_further(id, index)

    @rule(id=live, index=st.integers(0, 2))
    def finish(self, id, index):
        if self._computed(id, index):
            assert self._note(end(id, index)) == f"client {id}"
            self.told[id][index] = None
            self._got_further(id, index)
            if not any(part is not None for part in self.told[id]):
                del self.told[id]

    def _computed(self, id, index) -> bool:
        """Whether the worker computes this choice."""
        parts = self.told.get(id, []) if id in self.begun else []
        return index < len(parts) and parts[index] is not None

    def _got_further(self, id, index):
        self.stuck[id].discard(index)
        if not self.stuck[id]:
            self.blame[id] = 0.0

    @rule(id=live)
    def refuse(self, id):
        if id in self.sent and id in self.told:
            assert self._note(Rejected(id, "code", "why")) == f"client {id}"
            del self.told[id]

    @rule(id=consumes(live))
    def hang_up(self, id):
        self.journal.remove(id)
        self.told.pop(id, None)

    @rule(blame=st.sampled_from([0.7, 1.0]))
    def crash(self, blame):
        reading = [id for id in self.told if id in self.sent and id not in self.answered][:1]
        suspects = [id for id in self.told if id in self.begun] + reading
        for id in suspects:
            self.blame[id] += blame
            self.stuck[id] = {i for i, part in enumerate(self.told[id]) if part is not None}
        guilty = [id for id in suspects if self.blame[id] >= GIVEN_UP and len(suspects) == 1]
        assert [entry.submit.id for entry in self.journal.crash(blame)] == guilty
        for id in guilty:
            del self.told[id]
        self.sent, self.answered, self.begun = [], set(), set()

    @invariant()
    def nobody_is_forgotten_and_nobody_kept(self):
        assert len(self.journal) == len(self.told)
        for id in set(self.blame) - set(self.told):
            self.blame[id] = 0.0

    @invariant()
    def it_knows_what_the_worker_owes(self):
        sent = [id for id in self.told if id in self.sent]
        reading = any(id not in self.answered for id in sent)
        assert self.journal.owed() == (reading, any(id in self.answered for id in sent))

    def teardown(self):
        readers = [entry.reader for entry in self.journal.abandon()]
        assert readers == [f"client {id}" for id in self.told]
        assert len(self.journal) == 0 and not list(self.journal.due(self.now))


TestBook = Book.TestCase
TestBook.settings = settings(max_examples=75, stateful_step_count=40)


def journal(*sizes: int) -> Journal[str]:
    """With requests 0, 1, ... of so many choices."""
    book: Journal[str] = Journal()
    for id, n in enumerate(sizes):
        book.add(submit(id, n), f"client {id}", 0.0)
    return book


def begin(book: Journal[str]) -> list[int]:
    """Let a worker compute what there is for it; which requests those are."""
    ids = [command.id for command in book.due(0.0)]
    for id in ids:
        book.note(Accepted(id, 1, False), 0.0)
    book.began(ids)
    return ids


def given_up(book: Journal[str], blame: float = 1.0) -> list[int]:
    """Let the worker die; who has to go."""
    return [entry.submit.id for entry in book.crash(blame)]


def test_suspects_go_alone_the_latest_first_and_who_kills_again_is_given_up():
    book = journal(1, 1, 1)
    assert begin(book) == [0, 1, 2]
    assert given_up(book) == []
    assert begin(book) == [2]
    assert given_up(book) == [2]
    assert begin(book) == [1]


def test_of_two_suspects_nobody_is_given_up_but_the_worse_goes_alone():
    book = journal(1, 1)
    begin(book)
    given_up(book)
    assert begin(book) == [1]
    book.note(Delta(1, 0, "further", [1]), 0.0)
    assert begin(book) == [0]
    assert given_up(book) == []  # it may have been the one that got further before
    assert begin(book) == [0]
    assert given_up(book) == [0]


def test_a_choice_that_gets_further_does_not_clear_another():
    book = journal(2, 1)
    begin(book)
    given_up(book)
    begin(book)
    book.remove(1)
    assert begin(book) == [0]
    book.note(Delta(0, 0, "further", [1]), 0.0)
    book.add(submit(2), "client 2", 0.0)
    assert begin(book) == []
    book.note(end(0, 1), 0.0)
    assert begin(book) == [2]


def test_it_takes_more_deaths_that_came_from_outside():
    book = journal(1)
    ends = []
    for _ in range(3):
        begin(book)
        ends.append(given_up(book, 0.7))
    assert ends == [[], [], [0]]


def test_an_answer_that_is_whole_is_not_begun_again():
    book = journal(1, 2, 1)
    book.add(Count(3, Text("hello")), "client 3", 0.0)
    begin(book)
    for last in (end(0), Rejected(2, "code", "why"), end(1, 1)):
        book.note(last, 0.0)
    given_up(book)
    [again] = book.due(0.0)
    assert again.id == 1 and [part.ended for part in again.said] == [False, True]


def asked(id, **about):
    return GenerationRequest(id=f"r{id}", prompt="hello", **about)


def test_it_tells_how_far_those_are_whom_somebody_asked_for():
    book: Journal[str] = Journal()
    book.add(submit(0, 2), "client 0", 1.0, asked(0, tenant="alice", waited=5.0))
    begin(book)
    book.add(submit(1), "client 1", 2.0, asked(1))
    book.add(submit(2), "client 2", 2.0)
    for index, tokens in ((0, [1, 2]), (1, [3])):
        book.note(Delta(0, index, "text", tokens), 3.0)
    first, second = book.seen("m", 4.0)
    assert first == LiveRequest("r0", "m", "alice", 8.0, 3, running=True)
    assert second == LiveRequest("r1", "m", "", 2.0, 0, running=False)
    [found] = book.where(lambda asked: asked.tenant == "alice")
    assert found.reader == "client 0"
    book.crash(0.0)
    assert [one.running for one in book.seen("m", 4.0)] == [False, False]
    book.remove(0)
    assert [one.id for one in book.seen("m", 4.0)] == ["r1"]
