"""Runs a StepPlan: moves of KV cells, `llama_decode`, sampling.

Decodes and prefill chunks go into separate calls unless `joint` is set: on a CPU one mixed call
costs 1.5 to 1.9 times as much. A batch is sorted by slot, which the per-slot KV layout wants.
Knows no requests and no policy.
"""

import math
import time
from collections.abc import Iterator

import numpy as np

from inference import sampler
from inference.drafter import Drafter
from inference.errors import InferenceError, NumericalError
from inference.llama import Aborted, Llama, State
from inference.sequence import (
    Chunk,
    Copy,
    Forget,
    Keep,
    Move,
    Restore,
    Sampled,
    Save,
    Scored,
    Sequence,
    StepPlan,
    StepResult,
)
from inference.types import TokenLogprob

_NO_NUMBERS = "no token can be drawn from the model's output"


class Engine:
    """The doing half of the loop; `draft` and `step` may only be called from one thread."""

    def __init__(
        self, llama: Llama, drafter: Drafter | None = None, *, joint: bool = False
    ) -> None:
        self._llama = llama
        self._drafter = drafter
        self._models = [llama, drafter.llama] if drafter else [llama]
        self._joint = joint
        self._saved: dict[int, State] = {}

    def draft(self, plan: StepPlan) -> StepPlan:
        """The plan, with the draft model's guesses where it asks for them."""
        return self._drafter.fill(plan) if self._drafter and plan.asked else plan

    def interrupt(self, now: bool) -> None:
        """Make a step end at once, or no longer; from any thread."""
        for llama in self._models:
            llama.interrupt(now)

    def close(self) -> None:
        for llama in self._models:
            llama.close()

    def step(self, plan: StepPlan) -> StepResult:
        """Compute the plan; at least one token for every chunk that asked for one, unless the step
        was interrupted.

        Raises DecodeFailed when llama.cpp refuses a batch.
        """
        for move in plan.moves:
            self._move(move)
        try:
            return self._calls(plan)
        except Aborted:
            for chunk in plan.chunks:
                self._llama.keep(chunk.seq.slot, chunk.start)
            return StepResult([], aborted=True)

    def _calls(self, plan: StepPlan) -> StepResult:
        if self._joint:
            sampled, scored, seconds = self._compute(plan.chunks)
            rows = sum(chunk.rows for chunk in plan.chunks) or 1
            share = sum(chunk.rows for chunk in plan.decodes) / rows
            return StepResult(sampled, seconds * share, seconds * (1 - share), scored=scored)
        decoded, _, decode_seconds = self._compute(plan.decodes)
        prefilled, scored, prefill_seconds = self._compute(plan.prefills)
        return StepResult(decoded + prefilled, decode_seconds, prefill_seconds, scored=scored)

    def _move(self, move: Move) -> None:
        match move:
            case Keep(slot, length):
                self._llama.keep(slot, length)
            case Copy(source, target, length):
                self._llama.copy(source, target, length)
            case Save(slot, key):
                self._saved[key] = self._llama.save(slot)
            case Restore(key, slot, length):
                self._llama.restore(slot, self._saved[key])
                self._llama.keep(slot, length)
            case Forget(key):
                del self._saved[key]

    def _compute(
        self, chunks: tuple[Chunk, ...]
    ) -> tuple[list[Sampled], tuple[Scored, ...], float]:
        """One call, and the seconds it took."""
        if not chunks:
            return [], (), 0.0
        start = time.perf_counter()
        chunks = tuple(sorted(chunks, key=lambda chunk: chunk.seq.slot))
        tokens, positions, slots, outputs = _batch(chunks)
        self._llama.decode(tokens, positions, slots, outputs)
        sampled: list[Sampled] = []
        scored: list[Scored] = []
        rows = iter(self._llama.logits())
        for chunk in chunks:
            for position in chunk.scored:
                scored.append(self._scored(chunk.seq, position + 1, next(rows)))
                if math.isnan(scored[-1].logprob.logprob or 0.0):
                    sampled.append(_without_numbers(chunk.seq))
            if chunk.sample:
                sampled += self._verified(chunk, [next(rows) for _ in range(1 + len(chunk.drafts))])
        return sampled, tuple(scored), time.perf_counter() - start

    def _scored(self, seq: Sequence, place: int, row: sampler.Row) -> Scored:
        """The token at `place` of a prompt, for which `row` has the logits."""
        assert seq.prompt_logprobs
        return Scored(seq, self._logprob(row, seq.tokens[place], seq.prompt_logprobs.top))

    def _logprob(self, row: sampler.Row, token: int, top: int) -> TokenLogprob:
        written = self._llama.written
        logprob, likeliest = sampler.score(row, token, top)
        return TokenLogprob(written(token), logprob, tuple((written(t), p) for t, p in likeliest))

    def _verified(self, chunk: Chunk, rows: list[sampler.Row]) -> Iterator[Sampled]:
        """Tokens as long as they are those that were guessed, and the first that is not."""
        seq = chunk.seq
        tokens = [*seq.tokens] if chunk.drafts else seq.tokens
        for row, draft in zip(rows, (*chunk.drafts, None), strict=True):
            result = self._sample(seq, tokens, row)
            yield result
            if result.ends or result.fault or result.token != draft:
                break
            tokens.append(draft)
        if chunk.drafts:
            self._llama.keep(seq.slot, len(tokens))

    def _sample(self, seq: Sequence, tokens: list[int], row: sampler.Row) -> Sampled:
        """The token that follows `tokens`."""
        ledger = seq.logprobs
        raw = row.copy() if ledger else row  # what follows changes it
        sampler.adjust(row, seq.sampling, tokens, seq.prompt_len)
        if fault := self._restrict(seq, tokens, row):
            return Sampled(seq, -1, b"", fault=fault)
        token = sampler.draw(row, seq.sampling, len(tokens))
        if token < 0:
            return _without_numbers(seq)
        logprob = self._logprob(raw, token, ledger.top) if ledger else None
        whole = seq.guide is not None and seq.guide.take(token)
        if token in self._llama.end_tokens or seq.stops_at(token, len(tokens)):
            return Sampled(seq, token, b"", ends=True, logprob=logprob)
        return Sampled(seq, token, self._llama.pieces[token], ends=whole, logprob=logprob)

    def _restrict(
        self, seq: Sequence, tokens: list[int], row: sampler.Row
    ) -> InferenceError | None:
        """Rule out what may not follow; why nothing may, if so."""
        may_end = seq.may_end(len(tokens))
        if seq.guide:
            return seq.guide.mask(row, tokens, may_end)
        if not may_end:
            sampler.forbid(row, self._llama.end_tokens)
        if seq.stop_tokens and seq.is_early(len(tokens)):
            sampler.forbid(row, tuple(seq.stop_tokens))
        return None


def _without_numbers(seq: Sequence) -> Sampled:
    return Sampled(seq, -1, b"", fault=NumericalError(_NO_NUMBERS))


def _batch(chunks: tuple[Chunk, ...]) -> tuple[np.ndarray, ...]:
    """Tokens, positions, slots and which rows have logits, each of shape (rows,)."""
    tokens = [t for c in chunks for t in (*c.seq.tokens[c.start : c.start + c.count], *c.drafts)]
    positions = [p for c in chunks for p in range(c.start, c.start + c.rows)]
    slots = np.repeat([c.seq.slot for c in chunks], [c.rows for c in chunks])
    outputs = [c.sample and i >= c.count - 1 for c in chunks for i in range(c.rows)]
    first = 0
    for chunk in chunks:
        for position in chunk.scored:
            outputs[first + position - chunk.start] = True
        first += chunk.rows
    return (
        np.asarray(tokens, np.int32),
        np.asarray(positions, np.int32),
        slots.astype(np.int32),
        np.asarray(outputs, np.bool_),
    )
