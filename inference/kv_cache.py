"""Who owns the KV cells: running sequences, and prefixes kept for prompts to come.

Two layouts of llama.cpp, one interface. In the unified one all ids draw from one pool of cells,
copies share them, and a finished sequence parks on an id of its own until its cells are needed. In
the stream layout every slot has a fixed share, a copy is a real one, and what a slot held stays in
it until somebody else takes the slot. What has to go goes to host memory, where there is some.
Decides nothing about order or time.
"""

from abc import ABC, abstractmethod
from collections.abc import Container, Iterable

from inference.host_cache import HostCache
from inference.prefix_tree import PrefixTree
from inference.sequence import Copy, Forget, Keep, Move, Restore, Save, Sequence

IDS = 256  # sequence ids that llama.cpp's memory knows, LLAMA_MAX_SEQ
WORTH_SHARING = 16  # tokens; for less nobody waits until another has computed them
WORTH_A_COPY = 32  # tokens; fewer are computed sooner than they are copied
DEEP = 256  # tokens, from which on attention counts
READY = 0.75  # share of the slots that should be free to take, with nothing in them to be saved
CELLS_A_STEP = 256  # as many cells are copied about as fast as all weights are read


class KvCache(ABC):
    """`moves` are what llama.cpp has to do before the next batch, in order; `host` cells are
    there for prefixes that have to leave. Attention takes `tile` tokens at once."""

    worth: int  # tokens of a prefix that are worth waiting for

    def __init__(self, slots: int, host: int = 0, tile: int = 1) -> None:
        self._host = HostCache(host)
        self._tile = tile
        self.slots = slots
        self.tree = PrefixTree()
        self.moves: list[Move] = []
        self._ready: set[int] = set()  # ids of which nothing has to be saved any more
        self._idle = dict.fromkeys(range(slots))  # the one that became idle longest ago first

    @property
    def idle(self) -> int:
        """How many slots are free to take."""
        return len(self._idle)

    @property
    @abstractmethod
    def cells(self) -> int:
        """Cells in use, by running sequences and by the cache."""

    @abstractmethod
    def fits(self, seq: Sequence, cells: int, slots: Iterable[int]) -> bool:
        """Whether there could be `cells` beside those that running `slots` hold; the prefix of
        `seq` that is there is among them."""

    @abstractmethod
    def admit(self, seq: Sequence) -> None:
        """Give `seq` an idle slot and the longest prefix that is there; at least one token
        is left to compute, for without it there are no logits."""

    @abstractmethod
    def gather(self, running: list[Sequence]) -> None:
        """Bring running sequences side by side, where their places matter."""

    @abstractmethod
    def reserve(self, cells: int) -> bool:
        """Make room for `cells` more, least recently used prefixes first; False if that is
        not enough."""

    @abstractmethod
    def release(self, seq: Sequence) -> None:
        """Take back the slot of `seq`; what it computed stays as cache, but if its client gave it
        up nobody is made to wait until that is saved."""

    def prefix(self, seq: Sequence) -> tuple[int, int]:
        """`(id, length)` of the longest prefix of `seq` that is there and worth using."""
        id, length = self.tree.match(seq.shareable, seq.salt)
        return id, self._worth_using(seq, length)

    def known(self, seq: Sequence) -> int:
        """How many tokens of `seq` need not be computed: they are there or in host memory."""
        return max(self.prefix(seq)[1], self._stored(seq)[1])

    def _worth_using(self, seq: Sequence, length: int) -> int:
        """A little less of a long prefix, where the rest then fills a tile: most of one takes
        longer than a whole."""
        short = self._tile - (len(seq.tokens) - length)
        return length - short if 0 < short <= self._tile // 4 and length >= DEEP else length

    def extend(self, seq: Sequence, count: int) -> None:
        """The next `count` tokens of `seq` were computed."""
        self.tree.extend(seq.slot, seq.tokens[seq.computed : seq.computed + count], seq.salt)
        self._ready.discard(seq.slot)
        seq.computed += count

    def _keep(self, id: int, length: int) -> None:
        if not length:
            self._ready.discard(id)
        self.tree.trim(id, length)
        self.moves.append(Keep(id, length))

    def _stored(self, seq: Sequence) -> tuple[int, int]:
        """`(key, length)` of what host memory has of `seq`, if that is worth fetching."""
        key, length = self._host.match(seq.shareable, seq.salt)
        length = self._worth_using(seq, length)
        return (key, length) if length >= self.prefix(seq)[1] + WORTH_A_COPY else (-1, 0)

    def _restore(self, key: int, seq: Sequence, slot: int, length: int) -> None:
        self._host.touch(key)
        self.tree.extend(slot, seq.tokens[:length], seq.salt)
        self.moves.append(Restore(key, slot, length))

    def take_moves(self) -> tuple[Move, ...]:
        """The moves so far; from now on there are none."""
        moves, self.moves = tuple(self.moves), []
        return moves

    @property
    def restless(self) -> bool:
        """Whether something should be saved while nobody waits for anything."""
        return self._victim is not None

    def rest(self) -> None:
        """Save it: one prefix a call."""
        victim = self._victim
        if victim is not None:
            self._spill(victim)

    @property
    @abstractmethod
    def _victim(self) -> int | None:
        """What should be saved before it has to leave, if anything."""

    def _unsaved(self, id: int) -> bool:
        """Whether what `id` holds is worth a place in host memory, and has none."""
        length = self.tree.length(id)
        if id in self._ready or not WORTH_A_COPY <= length <= self._host.cells:
            return False
        return self._host.match(*self.tree.read(id))[1] < length

    def _spill(self, id: int) -> None:
        """Store what `id` holds in host memory, if it is worth it. Everybody waits for that, so
        it happens once a step at most."""
        saving = any(isinstance(move, Save) for move in self.moves)
        if not saving and self._unsaved(id):
            key, forgotten = self._host.add(*self.tree.read(id))
            self.moves += map(Forget, forgotten)
            self.moves += self._saving(id, key)
            self._ready.add(id)

    @abstractmethod
    def _saving(self, id: int, key: int) -> tuple[Move, ...]:
        """How what `id` holds gets under `key` in host memory."""

    def _copy(self, source: int, target: int, length: int) -> None:
        self.tree.fork(source, target, length)
        self.moves.append(Copy(source, target, length))


class UnifiedCache(KvCache):
    """One pool of `cells`. Slots run; the id after them is for moments; those above hold parked
    prefixes, which llama.cpp can copy but neither run nor save."""

    def __init__(self, slots: int, cells: int, host: int = 0, tile: int = 1) -> None:
        super().__init__(slots, host, tile)
        self.worth = WORTH_SHARING
        self._cells = cells
        self._free = list(range(slots + 1, IDS))
        self._parked: dict[int, None] = {}  # least recently used first

    @property
    def cells(self) -> int:
        return self.tree.size

    def fits(self, seq: Sequence, cells: int, slots: Iterable[int]) -> bool:
        source, length = self.prefix(seq)
        return self.tree.held(slots, source, length) + cells - length <= self._cells

    def gather(self, running: list[Sequence]) -> None:
        """Nothing to do: cells have no places."""

    def admit(self, seq: Sequence) -> None:
        seq.slot = min(self._idle)
        del self._idle[seq.slot]
        key, stored = self._stored(seq)
        room = stored and self.reserve(self._host.length(key))  # llama.cpp restores all of it
        if not room or self._stored(seq)[0] != key:  # to make room may have cost it
            stored = 0
        source, length = self.prefix(seq)
        if stored:
            self._restore(key, seq, seq.slot, stored)
        elif length:
            self._copy(source, seq.slot, length)
            self._touch(source)
        seq.computed = stored or length

    def reserve(self, cells: int) -> bool:
        held = self.tree.held(range(self.slots)) if self.tree.size + cells > self._cells else 0
        if held + cells > self._cells:
            return False
        while (missing := self.tree.size + cells - self._cells) > 0:
            victim = next(iter(self._parked))
            self._spill(victim)
            self._keep(victim, self.tree.length(victim) - min(missing, self.tree.own(victim)))
            if not self.tree.own(victim):
                self._drop(victim)
        return True

    @property
    def _victim(self) -> int | None:
        """The prefix that nobody used for longest, once there is little room."""
        oldest = next(iter(self._parked), None)
        crowded = 4 * self.tree.size > 3 * self._cells
        return oldest if crowded and oldest is not None and self._unsaved(oldest) else None

    def release(self, seq: Sequence) -> None:
        for id in self.tree.ancestors(seq.slot) & self._parked.keys():
            self._drop(id)
        if length := self.tree.length(seq.slot):
            if not self._free:
                oldest = next(iter(self._parked))
                self._spill(oldest)
                self._drop(oldest)
            id = self._free.pop()
            self._parked[id] = None
            self._copy(seq.slot, id, length)
            self._keep(seq.slot, 0)
            if seq.abandoned:
                self._ready.add(id)
        self._idle[seq.slot] = None
        seq.slot = -1

    def _saving(self, id: int, key: int) -> tuple[Move, ...]:
        between = self.slots
        return Copy(id, between, self.tree.length(id)), Save(between, key), Keep(between, 0)

    def _touch(self, id: int) -> None:
        if id in self._parked:
            del self._parked[id]
            self._parked[id] = None

    def _drop(self, id: int) -> None:
        self._keep(id, 0)
        del self._parked[id]
        self._free.append(id)


class StreamCache(KvCache):
    """A stream of `share` cells for each slot, as many as one request may use."""

    def __init__(self, slots: int, share: int, host: int = 0, tile: int = 1) -> None:
        super().__init__(slots, host, tile)
        self.worth = max(WORTH_A_COPY, share // 64)  # a copy is one of the whole stream
        self._patience = share // CELLS_A_STEP
        self._apart = 0  # steps in which slots in use were not side by side
        self._asked = [0] * slots  # how many of a slot's tokens were asked, not answered

    @property
    def cells(self) -> int:
        return sum(map(self.tree.length, range(self.slots)))

    def fits(self, seq: Sequence, cells: int, slots: Iterable[int]) -> bool:
        return True

    def reserve(self, cells: int) -> bool:
        return True

    def admit(self, seq: Sequence) -> None:
        seq.slot, seq.computed = self._place(seq)
        del self._idle[seq.slot]

    def gather(self, running: list[Sequence]) -> None:
        """Move the last of them into a gap beside another one: llama.cpp computes slots that are
        not side by side in a pass over the weights each."""
        slots = sorted(seq.slot for seq in running)
        gaps = set(range(slots[0], slots[-1])) - set(slots) if slots else set()
        self._apart = self._apart + 1 if gaps else 0
        if self._apart <= self._patience:
            return  # until the passes so far cost as much as the copy
        self._apart = 0
        last = max(running, key=lambda seq: seq.slot)
        beside = {slot + side for slot in slots[:-1] for side in (-1, 1)}
        gap = self._expendable(gaps & beside)
        self._empty(gap)
        if last.computed:
            self._copy(last.slot, gap, last.computed)
            self._keep(last.slot, 0)
        del self._idle[gap]
        self._idle[last.slot] = None
        last.slot = gap

    def release(self, seq: Sequence) -> None:
        self._asked[seq.slot] = min(seq.prompt_len, seq.computed)
        if seq.abandoned:
            self._ready.add(seq.slot)
        self._idle[seq.slot] = None
        seq.slot = -1

    def _place(self, seq: Sequence) -> tuple[int, int]:
        """A slot for `seq`, and how many tokens of it are in there now."""
        slot = self._expendable()
        if self._stored(seq)[1] and slot not in self._to_be_copied():
            self._empty(slot)
            key, stored = self._stored(seq)  # to empty a slot may have cost it
            if stored:
                self._restore(key, seq, slot, stored)
                return slot, stored
        source, length = self.prefix(seq)
        if slot == source or self._may_take(source, length):
            if self._asked[source] >= length + WORTH_A_COPY:  # not for an answer alone
                self._spill(source)
            self._keep(source, length)
            return source, length
        self._empty(slot)
        if length < self.worth:
            return slot, 0
        self._copy(source, slot, length)
        return slot, length

    def _may_take(self, slot: int, length: int) -> bool:
        """Whether to go on in the very slot that holds the prefix: a match of less than half of
        what was asked there would destroy more than it saves. Answers do not count, for a
        template may write them down differently next time."""
        return slot in self._idle and 2 * length >= self._asked[slot]

    def _expendable(self, among: Container[int] = range(IDS)) -> int:
        """An empty idle slot, the lowest, for llama.cpp wants slots in use side by side; else
        the one used longest ago of those that are ready, or of all."""
        idle = [slot for slot in self._idle if slot in among]
        empty = [slot for slot in idle if not self.tree.length(slot)]
        return min(empty) if empty else next((s for s in idle if s in self._ready), idle[0])

    def _to_be_copied(self) -> set[int]:
        """Slots that must not be written yet: llama.cpp copies streams at the next decode."""
        return {move.source for move in self.moves if isinstance(move, Copy)}

    @property
    def _victim(self) -> int | None:
        """The slot used longest ago that is not saved, until enough are free to take."""
        unsaved = [slot for slot in self._idle if self._unsaved(slot)]
        return unsaved[0] if len(self._idle) - len(unsaved) < READY * self.slots else None

    def _empty(self, slot: int) -> None:
        self._spill(slot)
        self._keep(slot, 0)

    def _saving(self, id: int, key: int) -> tuple[Move, ...]:
        return (Save(id, key),)
