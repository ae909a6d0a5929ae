"""Runs a StepPlan: moves of KV cells, `llama_decode`, sampling.

Decodes and prefill chunks go into separate calls unless `joint` is set: on a CPU one mixed call
costs 1.5 to 1.9 times as much. A batch is sorted by slot, which the per-slot KV layout wants.
Knows no requests and no policy.
"""

import time
from collections.abc import Iterator

import numpy as np

from inference import sampler
from inference.drafter import Drafter
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
    Sequence,
    StepPlan,
    StepResult,
)
from inference.types import InferenceError, NumericalError

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
            sampled, seconds = self._compute(plan.chunks)
            rows = sum(chunk.rows for chunk in plan.chunks) or 1
            share = sum(chunk.rows for chunk in plan.decodes) / rows
            return StepResult(sampled, seconds * share, seconds * (1 - share))
        decoded, decode_seconds = self._compute(plan.decodes)
        prefilled, prefill_seconds = self._compute(plan.prefills)
        return StepResult(decoded + prefilled, decode_seconds, prefill_seconds)

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

    def _compute(self, chunks: tuple[Chunk, ...]) -> tuple[list[Sampled], float]:
        """One call, and the seconds it took."""
        if not chunks:
            return [], 0.0
        start = time.perf_counter()
        chunks = tuple(sorted(chunks, key=lambda chunk: chunk.seq.slot))
        tokens, positions, slots, outputs = _batch(chunks)
        self._llama.decode(tokens, positions, slots, outputs)
        sampled: list[Sampled] = []
        rows = iter(self._llama.logits())
        for chunk in (chunk for chunk in chunks if chunk.sample):
            sampled += self._verified(chunk, [next(rows) for _ in range(1 + len(chunk.drafts))])
        return sampled, time.perf_counter() - start

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
        sampler.adjust(row, seq.sampling, tokens, seq.prompt_len)
        if fault := self._restrict(seq, tokens, row):
            return Sampled(seq, -1, b"", fault=fault)
        token = sampler.draw(row, seq.sampling, len(tokens))
        if token < 0:
            return Sampled(seq, -1, b"", fault=NumericalError(_NO_NUMBERS))
        whole = seq.guide is not None and seq.guide.take(token)
        if token in self._llama.end_tokens:
            return Sampled(seq, token, b"", ends=True)
        return Sampled(seq, token, self._llama.pieces[token], ends=whole)

    def _restrict(
        self, seq: Sequence, tokens: list[int], row: sampler.Row
    ) -> InferenceError | None:
        """Rule out what may not follow; why nothing may, if so."""
        may_end = seq.may_end(len(tokens))
        if seq.guide:
            return seq.guide.mask(row, tokens, may_end)
        if not may_end:
            sampler.forbid(row, self._llama.end_tokens)
        return None


def _batch(chunks: tuple[Chunk, ...]) -> tuple[np.ndarray, ...]:
    """Tokens, positions, slots and which rows have logits, each of shape (rows,)."""
    tokens = [t for c in chunks for t in (*c.seq.tokens[c.start : c.start + c.count], *c.drafts)]
    positions = [p for c in chunks for p in range(c.start, c.start + c.rows)]
    slots = np.repeat([c.seq.slot for c in chunks], [c.rows for c in chunks])
    outputs = [c.sample and i >= c.count - 1 for c in chunks for i in range(c.rows)]
    return (
        np.asarray(tokens, np.int32),
        np.asarray(positions, np.int32),
        slots.astype(np.int32),
        np.asarray(outputs, np.bool_),
    )
