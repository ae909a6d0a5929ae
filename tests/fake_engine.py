"""An engine without a model: the next token follows from a hash of the tokens so far.

It checks what a real engine relies on: positions continue a slot's cells, no slot is used twice
in a step, the cells of a slot hold exactly the tokens that the sequence believes are there,
computed for its salt, and distinct cells are never more than there are. Cells are objects, shared
by copies where the layout shares them.
"""

import zlib
from dataclasses import replace

from inference.kv_cache import IDS
from inference.logprobs import ROWS
from inference.sequence import (
    Copy,
    Forget,
    Keep,
    Restore,
    Sampled,
    Save,
    Scored,
    StepPlan,
    StepResult,
)
from inference.types import TokenLogprob

END = 0  # the token that ends a text
VOCABULARY = 97


def next_token(tokens: list[int]) -> int:
    """Mostly the next of 1, 2, 3, so that texts repeat and guesses may be right."""
    digest = zlib.crc32(repr(tokens).encode())
    return tokens[-1] % 3 + 1 if digest % 4 else digest // 4 % VOCABULARY


class Cell:
    def __init__(self, token: int, salt: str) -> None:
        self.token = token
        self.salt = salt

    def copy(self) -> "Cell":
        return Cell(self.token, self.salt)


class FakeEngine:
    """`cells` bounds the unified layout; without it every slot is a stream of its own. A call
    takes `seconds(rows)`."""

    def __init__(self, slots, cells=None, seconds=lambda rows: 0.0, following=next_token) -> None:
        self.ids: list[list[Cell]] = [[] for _ in range(IDS)]
        self._slots = slots
        self._cells = cells
        self.seconds = seconds
        self._following = following
        self.computed = 0
        self.restored = 0
        self.host: dict[int, list[Cell]] = {}

    @property
    def used(self) -> int:
        """Distinct cells."""
        return len({id(cell) for cells in self.ids for cell in cells})

    def draft(self, plan: StepPlan) -> StepPlan:
        """A draft model that is right most of the time, and now and then has nothing to say."""
        asked = {chunk: self._guesses(chunk) for chunk in plan.asked}
        decodes = [
            replace(c, drafts=asked[c], asked=len(asked[c])) if c.asked else c for c in plan.decodes
        ]
        seconds = self.seconds(len(asked)) / 10
        return replace(plan, decodes=tuple(decodes), draft_seconds=seconds)

    def _guesses(self, chunk) -> tuple[int, ...]:
        tokens = list(chunk.seq.tokens)
        for _ in range(chunk.asked if len(tokens) % 7 else 0):
            right = self.draw(chunk.seq, tokens).token
            tokens.append(right if len(tokens) % 5 else right + 1)
        return tuple(tokens[len(chunk.seq.tokens) :])

    def step(self, plan: StepPlan, *, aborted: bool = False) -> StepResult:
        self._copied: set[int] = set()
        for move in plan.moves:
            self._move(move)
        if aborted:
            return StepResult([], aborted=True)
        slots = [chunk.seq.slot for chunk in plan.chunks]
        assert len(slots) == len(set(slots)) and all(0 <= slot < self._slots for slot in slots)
        sampled = [result for chunk in plan.chunks for result in self._compute(chunk)]
        rows = [sum(c.rows for c in chunks) for chunks in (plan.decodes, plan.prefills)]
        seconds = (self.seconds(n) if n else 0.0 for n in rows)
        return StepResult(sampled, *seconds, scored=self._scored(plan))

    def _scored(self, plan: StepPlan) -> tuple[Scored, ...]:
        """Where a token stands is how likely it is."""
        found = [(chunk.seq, at + 1) for chunk in plan.chunks for at in chunk.scored]
        drafts = sum(len(chunk.drafts) for chunk in plan.decodes)
        assert not found or len(found) + drafts <= ROWS
        return tuple(
            Scored(seq, TokenLogprob(self.piece(seq.tokens[n]), -float(n))) for seq, n in found
        )

    def _move(self, move) -> None:
        match move:
            case Keep(slot, length):
                del self.ids[slot][length:]
            case Copy(source, target, length):
                assert not self.ids[target] and 0 < length <= len(self.ids[source])
                self._copied.add(source)  # in streams only at the decode
                cells = self.ids[source][:length]
                shared = self._cells is not None
                self.ids[target] = cells if shared else [cell.copy() for cell in cells]
            case Save(slot, key):
                assert self.ids[slot] and slot <= self._slots and key not in self.host
                self.host[key] = list(self.ids[slot])
            case Restore(key, slot, length):
                assert not self.ids[slot] and 0 < length <= len(self.host[key])
                assert self._cells or slot not in self._copied
                self.ids[slot] = [cell.copy() for cell in self.host[key]]
                assert self._cells is None or self.used <= self._cells
                del self.ids[slot][length:]
                self.restored += length
            case Forget(key):
                del self.host[key]

    def _compute(self, chunk) -> list[Sampled]:
        seq, cells = chunk.seq, self.ids[chunk.seq.slot]
        assert chunk.count > 0 and chunk.start == len(cells)
        tokens = seq.tokens[chunk.start : chunk.start + chunk.count]
        cells += [Cell(token, seq.salt) for token in [*tokens, *chunk.drafts]]
        assert self._cells is None or self.used <= self._cells
        assert chunk.rows == chunk.count + len(chunk.drafts)  # the draft model was heard
        end = chunk.start + chunk.count
        assert [cell.token for cell in cells[:end]] == seq.tokens[:end]
        assert all(cell.salt == seq.salt for cell in cells)
        self.computed += chunk.rows
        return self._verified(chunk, list(seq.tokens)) if chunk.sample else []

    def _verified(self, chunk, tokens) -> list[Sampled]:
        results = []
        for draft in (*chunk.drafts, None):
            result = self.draw(chunk.seq, tokens)
            results.append(result)
            if result.ends or result.fault or result.token != draft:
                break
            tokens.append(result.token)
        del self.ids[chunk.seq.slot][len(tokens) :]
        return results

    def piece(self, token: int) -> bytes:
        return b"%d " % token

    def draw(self, seq, tokens: list[int]) -> Sampled:
        """What follows `tokens`."""
        token = self._following(tokens)
        ends = token == END and seq.may_end(len(tokens))
        return Sampled(seq, token, b"" if ends else b"%d " % token, ends=ends)
