"""Decides what each step computes: a pure state machine over token counts.

`add`, `cancel`, `plan`, `commit`: no clock, no llama.cpp, no I/O. Time is handed in, a plan is
handed out, and the engine's result is handed back. Decodes go first, and prompts are computed in
chunks as large as the time between two tokens of the running streams allows.
"""

import math
from bisect import insort
from collections import Counter
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter

from inference.cost_model import TILE, CostModel, reach
from inference.errors import DeadlineExceeded
from inference.kv_cache import KvCache
from inference.logprobs import ROWS
from inference.prefix_tree import common_prefix
from inference.sequence import Chunk, Progress, Sampled, Sequence, StepPlan, StepResult
from inference.speculation import Speculation

PRIORITY = 30.0  # seconds of waiting that one class of priority is worth
SHORT_FIRST = 2.0  # seconds of waiting that a second of a prompt's own work is worth
HEADROOM = 64  # tokens of answer that must fit beside a prompt before it is admitted
FAIR = 0.8  # share of a step that goes to prompts, where no target was asked for
LONGEST_STEP = 0.8  # seconds, where no target was asked for
CROWD = 3  # times its decodes a step gives to prompts, where that alone is longer


@dataclass(slots=True)
class Totals:
    """Totals since the worker started."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    preemptions: int = 0
    drafted: int = 0
    accepted: int = 0


class Scheduler:
    """Continuous batching over the slots of `cache`.

    `batch` bounds the tokens of one step. `itl_target` is the longest step wanted while anything
    decodes, in seconds; None finds the balance: a step is as short as it can be while four
    fifths of it go to the prompts that are waited for. A step guesses at most `drafts` tokens.
    """

    def __init__(
        self,
        cache: KvCache,
        cost: CostModel,
        batch: int,
        itl_target: float | None = None,
        drafts: int = 0,
    ) -> None:
        self._cache = cache
        self._cost = cost
        self._batch = batch
        self._itl_target = itl_target
        self._speculation = Speculation(cost, min(drafts, batch - cache.slots))
        self._expired: list[Progress] = []
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.counters = Totals()

    @property
    def idle(self) -> bool:
        return not (self.running or self.waiting or self._expired)

    @property
    def restless(self) -> bool:
        """Whether there is something to do while nobody waits."""
        return self._cache.restless

    @property
    def cells(self) -> int:
        """KV cells in use, by running sequences and by the prefix cache."""
        return self._cache.cells

    def add(self, sequences: list[Sequence]) -> None:
        """Queue sequences by rank: arrival, where a class of priority and little to compute count
        as an earlier one. Nobody is overtaken for ever."""
        for seq in sequences:
            known = self._cache.known(seq)
            rows = seq.pending - known
            work = self._cost.prefill.predict(rows, reach(known, rows))
            seq.rank = seq.arrived + SHORT_FIRST * work - PRIORITY * seq.priority
            insort(self.waiting, seq, key=lambda seq: seq.rank)

    def cancel(self, id: int) -> None:
        """Forget every sequence of request `id`; what it computed stays as cache."""
        for seq in [seq for seq in self.waiting + self.running if seq.id == id]:
            seq.abandoned = True
            self._retire(seq)

    def plan(self, now: float) -> StepPlan:
        if self.idle:
            self._cache.rest()
        self._expire(now)
        self._make_way()
        self._admit(now)
        self._cache.gather(self.running)
        decodes, prefills = self._chunks()
        while not self._cache.reserve(sum(chunk.rows for chunk in decodes + prefills)):
            if any(chunk.rows > 1 for chunk in decodes):
                decodes = _plain(decodes)
                continue
            assert len(self.running) > 1, "a sequence that fits the context fits alone"
            self._preempt(self.running)
            decodes, prefills = self._chunks()
        return StepPlan(self._cache.take_moves(), decodes, prefills)

    def predict(self, plan: StepPlan) -> float:
        """Seconds that a step will take."""
        decode = self._cost.decode.predict(*self._cost.load(plan.decodes))
        return decode + self._cost.prefill.predict(*self._cost.load(plan.prefills))

    def commit(self, plan: StepPlan, result: StepResult, now: float) -> list[Progress]:
        """Book a step that was run; what it gave each sequence that got a token."""
        if result.aborted:
            return []
        self._cost.observe(plan, result)
        for scored in result.scored:
            scored.seq.score(scored.logprob)
        drawn = {seq: list(group) for seq, group in groupby(result.sampled, lambda s: s.seq)}
        for chunk in plan.chunks:
            self._cache.extend(chunk.seq, chunk.count)
            if chunk.drafts:
                self._book(chunk, drawn[chunk.seq])
        progress, self._expired = self._expired, []
        return progress + [self._advance(seq, tokens, now) for seq, tokens in drawn.items()]

    def _book(self, chunk: Chunk, drawn: list[Sampled]) -> None:
        """Guesses were verified: how many, and how many were right."""
        self.counters.drafted += len(chunk.drafts)
        self.counters.accepted += len(drawn) - 1
        if chunk.asked:
            chunk.seq.trust.checked(chunk.drafts, [result.token for result in drawn])

    def _expire(self, now: float) -> None:
        for seq in [seq for seq in self.waiting + self.running if seq.deadline <= now]:
            self._retire(seq)
            waited = f"The deadline of {seq.deadline - seq.arrived:.3g} seconds has passed"
            fault = DeadlineExceeded(f"{waited} after {seq.generated} tokens of the answer.")
            self._expired.append(Progress(seq, "", fault=fault))

    def _admit(self, now: float) -> None:
        following = 0
        for _, seq in self._turns():
            if self._cache.idle <= following:  # a slot is kept for everybody who waits for a prefix
                return
            if self._follows(seq):
                following += 1
                continue
            if not self._fits(seq):
                return
            self.waiting.remove(seq)
            self._cache.admit(seq)
            self.running.append(seq)
            if seq.admitted < 0:
                seq.admitted = now
                seq.cached = min(seq.computed, seq.prompt_len)
                self.counters.prompt_tokens += seq.prompt_len
                self.counters.cached_tokens += seq.cached

    def _turns(self) -> list[tuple[int, Sequence]]:
        """Who waits, in order: of several tenants first the one of whom least runs, by rank within
        a tenant. With each the number of its tenant's sequences up to it."""
        busy = Counter(seq.tenant for seq in self.running)
        turns: list[tuple[int, Sequence]] = []
        for seq in self.waiting:
            busy[seq.tenant] += 1
            turns.append((busy[seq.tenant], seq))
        return sorted(turns, key=itemgetter(0))

    def _make_way(self) -> None:
        """Where no slot is free, a tenant of whom nothing runs gets one of who has most of them."""
        if self._cache.idle or not self.waiting or self._turns()[0][0] > 1:
            return
        ((tenant, count),) = Counter(seq.tenant for seq in self.running).most_common(1)
        if count > 1:
            self._preempt([seq for seq in self.running if seq.tenant == tenant])

    def _follows(self, seq: Sequence) -> bool:
        """Whether somebody is just computing more of this prompt's prefix than there is: then
        it waits, and shares, and the other one is as urgent as both."""
        leader, shared = seq.leader or (None, 0)
        if not (leader and leader.slot >= 0 and leader.computed < shared):
            seq.leader = self._leader(seq)
        if seq.leader:
            seq.leader[0].rank = min(seq.leader[0].rank, seq.rank)
        return bool(seq.leader)

    def _leader(self, seq: Sequence) -> tuple[Sequence, int] | None:
        """Who computes a prefix of `seq`, and how long that is."""
        present = self._cache.prefix(seq)[1]
        for other in self.running:
            if other.pending > 1 and other.salt == seq.salt:
                shared = common_prefix(other.tokens, seq.shareable)
                if shared >= max(present, other.computed) + self._cache.worth:
                    return other, shared
        return None

    def _fits(self, seq: Sequence) -> bool:
        """Whether the cells suffice for this one beside those who run, and for a while."""
        if not self.running:
            return True
        wanted = sum(s.pending + min(HEADROOM, s.limit - len(s.tokens)) for s in self.running)
        wanted += len(seq.tokens) + min(HEADROOM, seq.limit - len(seq.tokens))
        return self._cache.fits(seq, wanted, [s.slot for s in self.running])

    def _chunks(self) -> tuple[tuple[Chunk, ...], tuple[Chunk, ...]]:
        """What decodes and what is prefilled in the next step."""
        decoding = [seq for seq in self.running if seq.pending == 1]
        prompts = [seq for seq in self.running if seq.pending > 1]
        decodes = self._speculation.chunks(decoding)
        scores = ROWS
        if any(seq.unscored < len(seq.tokens) - 1 for seq in prompts):
            decodes = _plain(decodes)  # their rows of logits go to the prompts
        most = self._batch - sum(chunk.rows for chunk in decodes)
        room = self._room(decodes) if decodes and prompts else math.inf
        prefills: list[Chunk] = []
        for seq in sorted(prompts, key=lambda seq: seq.rank):
            left, wanted = self._cost.left(room, prefills), _wanted(seq)
            if seq.unscored < len(seq.tokens) - 1:
                wanted = min(wanted, scores)
                if not wanted:
                    continue
                scores -= wanted
            count = self._cost.chunk(seq.computed, wanted, most, left)
            if not (count or prefills):
                longest = left if self._itl_target else LONGEST_STEP
                count = self._cost.least(seq.computed, wanted, most, longest)
            if count:
                prefills.append(Chunk(seq, seq.computed, count))
                most -= count
        return decodes, tuple(prefills)

    def _room(self, decodes: tuple[Chunk, ...]) -> float:
        """Seconds for prompts in a step that decodes too."""
        decode = self._cost.decode.predict(*self._cost.load(decodes))
        if self._itl_target:
            return self._itl_target - decode
        fair = self._cost.fair(decode, self._batch, FAIR)
        return min(fair, max(LONGEST_STEP - decode, CROWD * decode))

    def _preempt(self, candidates: list[Sequence]) -> None:
        """The youngest of the lowest priority gives its cells up and is computed again later."""
        victim = min(reversed(candidates), key=lambda seq: (seq.priority, -seq.arrived))
        self._stop(victim)
        self.counters.preemptions += 1
        insort(self.waiting, victim, key=lambda seq: seq.rank)

    def _advance(self, seq: Sequence, drawn: list[Sampled], now: float) -> Progress:
        seq.first_token = seq.first_token or now
        progress, seq.echo = Progress(seq, seq.echo), ""
        for result in drawn:
            if result.fault:
                self._retire(seq)
                return replace(progress, fault=result.fault)
            if len(seq.tokens) == seq.limit:  # the prompt was all that was asked for
                self._retire(seq)
                return replace(progress, reason="length")
            if seq.pending:  # the token before was a draft that was right
                self._cache.extend(seq, 1)
            progress = self._say(progress, result)
            if progress.reason:
                return progress
        for token, piece in seq.forced:
            progress = self._say(progress, Sampled(seq, token, piece))
            if progress.reason:
                break
        return progress

    def _say(self, progress: Progress, said: Sampled) -> Progress:
        seq = progress.seq
        self.counters.completion_tokens += 1
        text, reason = seq.say(said.token, said.piece, said.ends, said.logprob)
        if reason:
            self._retire(seq)
        return Progress(seq, progress.text + text, reason)

    def _retire(self, seq: Sequence) -> None:
        if seq.slot >= 0:
            self._stop(seq)
        else:
            self.waiting.remove(seq)

    def _stop(self, seq: Sequence) -> None:
        self.running.remove(seq)
        self._cache.release(seq)
        seq.computed = 0


def _plain(decodes: tuple[Chunk, ...]) -> tuple[Chunk, ...]:
    """Without guesses."""
    return tuple(replace(chunk, drafts=(), asked=0) for chunk in decodes)


def _wanted(seq: Sequence) -> int:
    """Tokens that the next chunk may hold. What was decoded once is computed again by less than a
    tile: llama.cpp then takes the kernels that decode, and up to position 256, from which on these
    depend on whether one sequence or several are decoded, the text goes on as it would have."""
    if not seq.generated:
        return seq.pending
    prompt = seq.prompt_len - seq.computed
    return prompt if prompt > 0 else min(seq.pending, TILE - 1)
