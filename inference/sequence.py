"""The nouns of one step: a sequence, a chunk of it, a plan, and what was sampled.

A sequence has no phase. `0 <= computed <= len(tokens)` holds always, and a step lets the first
catch up with the second: prefill, decoding and what follows a preemption are all this one rule.
Knows neither llama.cpp nor how a plan is made.
"""

import math
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Any, Protocol

from msgspec import Meta

from inference.budget import Block, Budget
from inference.errors import InferenceError
from inference.history import History, Rate
from inference.logprobs import Ledger
from inference.text_out import TextOut
from inference.types import FinishReason, TokenLogprob


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Resolved sampling: nothing is left unsaid. Neutral values switch a step off."""

    temperature: Annotated[float, Meta(ge=0)] = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0
    logit_bias: tuple[tuple[int, float], ...] = ()


class Guide(Protocol):
    """Keeps an answer to what it has to be."""

    def follow(self, tokens: list[int]) -> None:
        """Catch up with `tokens`, prompt and answer."""

    def mask(self, row: Any, tokens: list[int], may_end: bool) -> InferenceError | None:
        """Make impossible, in a row of logits, what may not follow `tokens`; or why there is
        nothing that may."""

    def take(self, token: int) -> bool:
        """Go on with `token`; whether the answer is whole with it."""


@dataclass(slots=True, eq=False, kw_only=True)
class Sequence:
    """One choice of one request on its way through the model.

    `limit` is the length at which it ends, and `guide` what it is kept to; `slot` is the llama.cpp
    sequence id it runs in, -1 while it waits. Only sequences of the same `salt` share cells. Higher
    `priority` goes first, and tenants take turns; at `deadline` it ends unfinished. That it is
    computed was reported once it has `begun`, and the text of its first `told` tokens. `history`
    and `trust` tell how often guesses were right, its own and the draft model's; `abandoned` that
    nobody wants the rest: its client hung up, or another choice of its request failed. While it
    waits for a prefix, `leader` says who computes it, up to which length. `budget` bounds its
    thoughts, as long as there may be some, and `block` says where they are. `echo` is a text that
    the answer begins with; `prompt_logprobs` and `logprobs` collect what was asked for of the
    tokens of the prompt, the first of which is in it from the start, and of the answer. Times are
    seconds on the worker's monotonic clock.
    """

    id: int
    index: int = 0
    tokens: list[int]
    limit: int
    sampling: SamplingParams = SamplingParams()
    min_tokens: int = 0
    ignore_eos: bool = False
    stop_tokens: frozenset[int] = frozenset()
    guide: Guide | None = None
    text: TextOut = field(default_factory=TextOut)
    budget: Budget | None = None
    block: Block | None = None
    arrived: float = 0.0
    priority: int = 0
    deadline: float = math.inf
    salt: str = ""
    tenant: str = ""
    speculate: bool = True
    echo: str = ""
    prompt_logprobs: Ledger | None = None
    logprobs: Ledger | None = None
    history: History = field(default_factory=History)
    trust: Rate = field(default_factory=Rate)
    prompt_len: int = field(init=False)
    begun: bool = False
    told: int = field(init=False)
    slot: int = -1
    cached: int = 0
    computed: int = 0
    rank: float = 0.0
    leader: "tuple[Sequence, int] | None" = None
    abandoned: bool = False
    admitted: float = -1.0
    first_token: float = 0.0

    def __post_init__(self) -> None:
        self.prompt_len = self.told = len(self.tokens)

    def resume(self, said: list[int], pieces: list[bytes], first_token: float) -> None:
        """Go on after tokens that another worker drew, and the text of which was shown, after that
        of the prompt where it was wanted."""
        self.echo, self.prompt_logprobs = "", None
        self.tokens += said
        self.told = len(self.tokens)
        self.first_token = first_token
        for token in said:
            self.text.feed(pieces[token])
            if self.logprobs:
                self.logprobs.add(pieces[token], None)
            self.budget = self.budget and self.budget.after(token)
        if self.guide:
            self.guide.follow(self.tokens)

    def say(
        self,
        token: int,
        piece: bytes,
        ends: bool = False,
        logprob: TokenLogprob | None = None,
    ) -> tuple[str, FinishReason | None]:
        """Add a token: the text to show now, and how the answer ended if it did."""
        self.tokens.append(token)
        if self.logprobs:
            self.logprobs.add(piece, logprob)
        self.budget = self.budget and self.budget.after(token)
        text, stopped = self.text.feed(piece)
        if not (stopped or ends) and len(self.tokens) < self.limit:
            return text, None
        if not stopped:
            text += self.text.finish()
        return text, "stop" if stopped or ends else "length"

    @property
    def forced(self) -> tuple[tuple[int, bytes], ...]:
        """Tokens that come next, whatever the model would say, and their bytes; not in the middle
        of a character, unless that never ends."""
        if self.budget is None or not (self.text.whole or self.budget.overdrawn):
            return ()
        return self.budget.forced

    @property
    def pending(self) -> int:
        """Tokens the model has not seen yet; 1 while decoding."""
        return len(self.tokens) - self.computed

    @property
    def spare(self) -> int:
        """How many tokens may be guessed after the next one."""
        room = self.limit - len(self.tokens) - 1
        if self.budget:
            room = min(room, self.budget.room)
        return max(0, room) if self.speculate else 0

    @property
    def unscored(self) -> int:
        """The first position whose logits are needed: the last one, for what comes next, or one of
        the prompt, for the log probability of the token after it."""
        if self.prompt_logprobs is None or self.generated:
            return len(self.tokens) - 1
        return self.prompt_logprobs.count - 1

    @property
    def shareable(self) -> list[int]:
        """The tokens that need not be computed where their cells are there already."""
        return self.tokens[: self.unscored]

    def score(self, logprob: TokenLogprob) -> None:
        """The next token of the prompt has its log probability."""
        assert self.prompt_logprobs
        self.prompt_logprobs.add(logprob.token, logprob)

    def take_logprobs(self) -> list[TokenLogprob]:
        """Those that were not passed on yet."""
        ledgers = (self.prompt_logprobs, self.logprobs)
        return [logprob for ledger in ledgers if ledger for logprob in ledger.take()]

    @property
    def generated(self) -> int:
        return len(self.tokens) - self.prompt_len

    @property
    def thoughts(self) -> int:
        """How many of the tokens that it generated are."""
        answer = islice(self.tokens, self.prompt_len, None)
        return self.block.length(answer) if self.block else 0

    def may_end(self, length: int) -> bool:
        """Whether an end-of-text token may follow the first `length` tokens."""
        return not self.ignore_eos and not self.is_early(length)

    def stops_at(self, token: int, length: int) -> bool:
        """Whether `token` ends an answer when it follows the first `length` tokens. Who is kept to
        something may have to say it before."""
        return token in self.stop_tokens and not self.is_early(length)

    def is_early(self, length: int) -> bool:
        """Whether an answer of the first `length` tokens is too short."""
        return length - self.prompt_len < self.min_tokens


@dataclass(frozen=True, slots=True)
class Chunk:
    """`count` tokens of `seq` from position `start`; `sample` iff they reach its last token.

    `drafts` are guesses at what comes after it, to be verified in the same call; `asked` is how
    many of them are the draft model's, which makes them after the plan and before the step.
    """

    seq: Sequence
    start: int
    count: int
    drafts: tuple[int, ...] = ()
    asked: int = 0

    @property
    def rows(self) -> int:
        """Tokens of the batch."""
        return self.count + (self.asked or len(self.drafts))

    @property
    def sample(self) -> bool:
        return self.start + self.count == len(self.seq.tokens)

    @property
    def scored(self) -> range:
        """Positions of the prompt whose logits are needed beside that."""
        if self.seq.prompt_logprobs is None:
            return range(0)
        end = min(self.start + self.count, self.seq.prompt_len - 1)
        return range(max(self.start, self.seq.unscored), end)


@dataclass(frozen=True, slots=True)
class Keep:
    """Trim the KV cache of `slot` to its first `length` tokens."""

    slot: int
    length: int


@dataclass(frozen=True, slots=True)
class Copy:
    """Let `target`, which is empty, hold the first `length` tokens of `source`."""

    source: int
    target: int
    length: int


@dataclass(frozen=True, slots=True)
class Save:
    """Store what `slot` holds in host memory, under `key`."""

    slot: int
    key: int


@dataclass(frozen=True, slots=True)
class Restore:
    """Let `slot`, which is empty, hold the first `length` tokens of what is stored."""

    key: int
    slot: int
    length: int


@dataclass(frozen=True, slots=True)
class Forget:
    """Free what is stored under `key`."""

    key: int


Move = Keep | Copy | Save | Restore | Forget


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What one step does: moves of KV cells in order, then decodes, then prefill chunks. The
    draft model's guesses, if there are any, took `draft_seconds` a call."""

    moves: tuple[Move, ...] = ()
    decodes: tuple[Chunk, ...] = ()
    prefills: tuple[Chunk, ...] = ()
    draft_seconds: float = 0.0

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        return self.decodes + self.prefills

    @property
    def asked(self) -> tuple[Chunk, ...]:
        """For which the draft model has to guess."""
        return tuple(chunk for chunk in self.decodes if chunk.asked)


@dataclass(frozen=True, slots=True)
class Sampled:
    """A token that continues `seq`, what it adds to the text, and whether it ends it.

    `fault` says why no token could be drawn (NaN logits); the sequence then fails alone.
    """

    seq: Sequence
    token: int
    piece: bytes
    ends: bool = False
    fault: InferenceError | None = None
    logprob: TokenLogprob | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """The next token of a prompt whose log probability is wanted."""

    seq: Sequence
    logprob: TokenLogprob


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step drew, in order of the text where a sequence has several tokens, and the seconds
    that its decode call and its prefill call took; what it `scored` of prompts. An `aborted` step
    computed nothing."""

    sampled: list[Sampled]
    decode_seconds: float = 0.0
    prefill_seconds: float = 0.0
    aborted: bool = False
    scored: tuple[Scored, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """What a step gave a sequence: text to show, and how it ended if it did."""

    seq: Sequence
    text: str
    reason: FinishReason | None = None
    fault: InferenceError | None = None
