"""A small model guesses what a large one says next, in the slots of the same numbers.

Its cells follow the texts that it is asked about, and nothing else: whatever a text has more than
its slot holds is computed before the first guess. A guess is its most likely token. Decides
nothing: how much is guessed, the plan says; whether it is right, the large model.
"""

import time
from dataclasses import replace

import numpy as np

from inference.llama import Aborted, DecodeFailed, Ints, Llama
from inference.prefix_tree import common_prefix
from inference.sequence import Chunk, Sequence, StepPlan


class Drafter:
    """`batch` bounds the tokens of a call."""

    def __init__(self, llama: Llama, batch: int) -> None:
        self.llama = llama
        self._batch = batch
        self._held: dict[int, list[int]] = {}  # slot -> the tokens in its cells

    def fill(self, plan: StepPlan) -> StepPlan:
        """`plan` with the guesses that it asks for. There are none for a text of which more is
        missing than fits a call, and none at all after a call that failed: guesses are optional."""
        try:
            guesses, seconds = self._guess(sorted(plan.asked, key=lambda chunk: chunk.seq.slot))
        except (Aborted, DecodeFailed):
            guesses, seconds = {}, 0.0
            self._forget()
        decodes = tuple(_with(chunk, guesses.get(chunk.seq.slot, [])) for chunk in plan.decodes)
        return replace(plan, decodes=decodes, draft_seconds=seconds)

    def _guess(self, chunks: list[Chunk]) -> tuple[dict[int, list[int]], float]:
        """Guesses for each slot, and the seconds of a call that makes one for each."""
        missing: dict[int, list[int]] = {}
        room = self._batch
        for chunk in chunks:
            slot, held = chunk.seq.slot, self._trimmed(chunk.seq)
            if new := chunk.seq.tokens[held : held + room]:
                missing[slot] = new
                room -= len(new)
        first = self._feed(missing)
        wanted = {c.seq.slot: c.asked for c in chunks if c.seq.tokens == self._held[c.seq.slot]}
        guesses = {slot: [first[slot]] for slot in wanted}
        calls, start = 0, time.perf_counter()
        while more := {s: g[-1:] for s, g in guesses.items() if len(g) < wanted[s]}:
            for slot, token in self._feed(more).items():
                guesses[slot].append(token)
            calls += 1
        return guesses, (time.perf_counter() - start) / calls if calls else 0.0

    def _trimmed(self, seq: Sequence) -> int:
        """How much of `seq` its slot holds, and nothing else; one token is left to compute."""
        held = self._held.setdefault(seq.slot, [])
        same = min(common_prefix(held, seq.tokens), len(seq.tokens) - 1)
        del held[same:]
        self.llama.keep(seq.slot, same)
        return same

    def _feed(self, tokens: dict[int, list[int]]) -> dict[int, int]:
        """Compute tokens after those that their slots hold; the most likely next ones."""
        lengths = [len(new) for new in tokens.values()]
        starts = [len(self._held[slot]) for slot in tokens]
        outputs = np.zeros(sum(lengths), np.bool_)
        outputs[np.cumsum(lengths) - 1] = True
        self.llama.decode(
            np.concatenate(list(tokens.values())).astype(np.int32),
            np.concatenate(list(map(_range, starts, lengths))),
            np.repeat(list(tokens), lengths).astype(np.int32),
            outputs,
        )
        for slot, new in tokens.items():
            self._held[slot] += new
        return dict(zip(tokens, self.llama.logits().argmax(axis=1).tolist(), strict=True))

    def _forget(self) -> None:
        for slot in self._held:
            self.llama.keep(slot, 0)
        self._held.clear()


def _range(start: int, count: int) -> Ints:
    return np.arange(start, start + count, dtype=np.int32)


def _with(chunk: Chunk, guesses: list[int]) -> Chunk:
    return replace(chunk, drafts=tuple(guesses), asked=len(guesses)) if chunk.asked else chunk
