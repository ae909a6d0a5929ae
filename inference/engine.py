"""Runs a StepPlan: trims, `llama_decode`, sampling. The only place that knows a batch's shape.

Decodes and prefill chunks go into separate calls unless `joint` is set: on a CPU one mixed call
costs 1.5 to 1.9 times as much. A batch is sorted by slot, which the per-slot KV layout wants.
Knows no requests and no policy.
"""

import numpy as np

from inference import sampler
from inference.llama import Llama
from inference.sequence import Chunk, Sampled, Sequence, StepPlan


class Engine:
    """The doing half of the loop; `step` may only be called from one thread."""

    def __init__(self, llama: Llama, *, joint: bool = False) -> None:
        self._llama = llama
        self._joint = joint

    def step(self, plan: StepPlan) -> list[Sampled]:
        """Compute the plan; one result for every chunk that asked for a token.

        Raises DecodeFailed when llama.cpp refuses a batch.
        """
        for keep in plan.keeps:
            self._llama.keep(keep.slot, keep.length)
        calls = [plan.chunks] if self._joint else [plan.decodes, plan.prefills]
        return [result for chunks in calls if chunks for result in self._compute(chunks)]

    def _compute(self, chunks: tuple[Chunk, ...]) -> list[Sampled]:
        chunks = tuple(sorted(chunks, key=lambda chunk: chunk.seq.slot))
        tokens = [t for c in chunks for t in c.seq.tokens[c.start : c.start + c.count]]
        positions = [p for c in chunks for p in range(c.start, c.start + c.count)]
        slots = np.repeat([c.seq.slot for c in chunks], [c.count for c in chunks])
        outputs = np.zeros(len(tokens), np.bool_)
        ends = np.cumsum([c.count for c in chunks]) - 1
        outputs[ends] = [c.sample for c in chunks]
        self._llama.decode(
            np.asarray(tokens, np.int32), np.asarray(positions, np.int32), slots, outputs
        )
        sampled = [chunk.seq for chunk in chunks if chunk.sample]
        if not sampled:
            return []
        return [self._sample(s, row) for s, row in zip(sampled, self._llama.logits(), strict=True)]

    def _sample(self, seq: Sequence, row: sampler.Row) -> Sampled:
        sampler.adjust(row, seq.sampling, seq.tokens, seq.prompt_len)
        if not seq.may_end:
            sampler.forbid(row, self._llama.end_tokens)
        if not np.isfinite(row[row.argmax()]):  # argmax finds a NaN if there is one
            return Sampled(seq, -1, b"", fault="no token can be drawn from the model's output")
        token = sampler.draw(row, seq.sampling, len(seq.tokens))
        return Sampled(seq, token, self._llama.pieces[token], token in self._llama.end_tokens)
