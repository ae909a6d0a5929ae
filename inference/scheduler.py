"""Decides what each step computes: a pure state machine over token counts.

`add`, `cancel`, `plan`, `commit`: no clock, no llama.cpp, no I/O. Time is handed in, a plan is
handed out, and the engine's result is handed back. Decodes go first; prompts are computed in
chunks in order of arrival, so that running streams keep flowing while a long prompt comes in.
"""

from collections import deque
from dataclasses import dataclass

from inference.prefix_cache import PrefixCache
from inference.sequence import Chunk, Keep, Progress, Sampled, Sequence, StepPlan


@dataclass(slots=True)
class Counters:
    """Totals since the worker started."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


class Scheduler:
    """Continuous batching over `slots` KV slots.

    `batch` bounds the tokens of one step; `chunk` bounds its prompt tokens while anything
    decodes (running streams wait that long at most).
    """

    def __init__(self, slots: int, batch: int, chunk: int) -> None:
        assert slots <= batch, "every slot decodes a token in a step"
        self._cache = PrefixCache(slots)
        self._batch = batch
        self._chunk = chunk
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.counters = Counters()

    @property
    def idle(self) -> bool:
        return not self.running and not self.waiting

    @property
    def cells(self) -> int:
        """KV cells in use, by running sequences and by the prefix cache."""
        return sum(seq.computed for seq in self.running) + self._cache.cells

    def add(self, sequences: list[Sequence]) -> None:
        self.waiting.extend(sequences)

    def cancel(self, id: int) -> None:
        """Forget every sequence of request `id`; what it computed stays as cache."""
        self.waiting = deque(seq for seq in self.waiting if seq.id != id)
        for seq in [seq for seq in self.running if seq.id == id]:
            self._retire(seq)

    def plan(self, now: float) -> StepPlan:
        keeps = self._admit(now)
        decodes = tuple(Chunk(seq, seq.computed, 1) for seq in self.running if seq.pending == 1)
        budget = min(self._chunk, self._batch - len(decodes)) if decodes else self._batch
        return StepPlan(keeps, decodes, self._prefills(budget))

    def commit(self, plan: StepPlan, sampled: list[Sampled], now: float) -> list[Progress]:
        """Book a step that was run; what it gave each sequence that got a token."""
        for chunk in plan.chunks:
            chunk.seq.computed = chunk.start + chunk.count
        return [self._advance(result, now) for result in sampled]

    def _admit(self, now: float) -> tuple[Keep, ...]:
        keeps = []
        while self.waiting and (found := self._cache.acquire(self.waiting[0].tokens)):
            seq = self.waiting.popleft()
            seq.slot, seq.cached = found
            seq.computed = seq.cached
            seq.admitted = now
            self.running.append(seq)
            self.counters.prompt_tokens += seq.prompt_len
            self.counters.cached_tokens += seq.cached
            keeps.append(Keep(seq.slot, seq.cached))
        return tuple(keeps)

    def _prefills(self, budget: int) -> tuple[Chunk, ...]:
        chunks = []
        for seq in self.running:
            count = min(seq.pending, budget)
            if seq.pending > 1 and count:
                chunks.append(Chunk(seq, seq.computed, count))
                budget -= count
        return tuple(chunks)

    def _advance(self, result: Sampled, now: float) -> Progress:
        seq = result.seq
        if result.fault:
            self._retire(seq)
            return Progress(seq, "", fault=result.fault)
        seq.first_token = seq.first_token or now
        seq.tokens.append(result.token)
        self.counters.completion_tokens += 1
        text, stopped = ("", True) if result.ends else seq.text.feed(result.piece)
        if not stopped and len(seq.tokens) < seq.limit:
            return Progress(seq, text)
        self._retire(seq)
        if result.ends or not stopped:
            text += seq.text.finish()
        return Progress(seq, text, "stop" if stopped else "length")

    def _retire(self, seq: Sequence) -> None:
        self.running.remove(seq)
        self._cache.release(seq.slot, seq.tokens[: seq.computed], seq.prompt_len)
