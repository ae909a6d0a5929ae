"""What happens in one simulation: who asks for what and when, and what befalls the workers.

All of it follows from a seed. What every request has to be answered follows from the request
alone: token t is a function of the tokens before it and of the seed it is drawn with, so that
whatever is lost, doubled or mixed up on the way shows in the text.
"""

import codecs
import random
import signal
import zlib
from dataclasses import dataclass
from typing import Literal

from inference.errors import NumericalError
from inference.sequence import Sampled
from inference.types import GenerationRequest, Sampling, TokenLogprob
from inference.wire import EngineConfig
from tests.fake_engine import END, VOCABULARY, FakeEngine

SEEDS = 1000  # between two requests: choice i draws with the seed of its request + i
NAN = "not a number"
HANG = 0  # instead of the exit code of a worker that dies
CODES = (-signal.SIGKILL, -signal.SIGSEGV, -signal.SIGABRT, 1, HANG)

# The commonest tokens, 1, 2 and 3 in turn, make a character of three bytes out of two of them.
PIECES = [b"%d " % token for token in range(VOCABULARY)]
PIECES[3], PIECES[1] = "€".encode()[:2], "€".encode()[2:] + b" "
STOPS = ((), (), ("€ 2 € 7",), ("9",), ("2 € 2 € 2 € 2",), ("€ 2 € 2 €",))
BASES = ([1, 2, 3] * 12, [2, 2, 1] * 12, [3, 1] * 15)
UNKNOWN = VOCABULARY + 5  # no token


def next_token(tokens: list[int], seed: int) -> int:
    digest = zlib.crc32(repr((seed, tokens)).encode())
    return tokens[-1] % 3 + 1 if digest % 8 else digest // 8 % VOCABULARY


@dataclass(frozen=True, slots=True)
class Poison:
    """What the last choice of a request does to a worker: to its intake thread, to the first step
    that computes it, or to the step that draws token `after`. `code` as of a process, or HANG."""

    where: Literal["intake", "prompt", "answer"]
    code: int
    after: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """A request and its client: it comes at `at`, takes `pace` seconds for every event, and leaves
    after so many `events`, or so many seconds of `patience`. From token `nan` on there is none for
    its last choice."""

    request: GenerationRequest
    at: float = 0.0
    pace: float = 0.0
    events: int | None = None
    patience: float | None = None
    poison: Poison | None = None
    nan: int | None = None

    @property
    def number(self) -> int:
        return self.request.sampling.seed // SEEDS

    @property
    def leaves(self) -> bool:
        return self.events is not None or self.patience is not None

    def answer(self, index: int, context: int) -> tuple[str, str, int]:
        """Text, reason and tokens of choice `index`."""
        request, tokens = self.request, list(self.request.prompt)
        start, decoder = len(tokens), codecs.getincrementaldecoder("utf-8")("replace")
        limit, text, reason = min(context, start + (request.max_tokens or context)), "", "length"
        before = b"".join(PIECES[token] for token in tokens).decode(errors="replace")
        before = before if request.echo else ""
        while len(tokens) < limit:
            token = next_token(tokens, request.sampling.seed + index)
            ends = token == END and self._may_end(len(tokens) - start)
            tokens.append(token)
            text += "" if ends else decoder.decode(PIECES[token])
            if found := [text.find(stop) for stop in request.stop if stop in text]:
                return before + text[: min(found)], "stop", len(tokens) - start
            if ends:
                reason = "stop"
                break
        return before + text + decoder.decode(b"", final=True), reason, len(tokens) - start

    def _may_end(self, generated: int) -> bool:
        return not self.request.ignore_eos and generated >= self.request.min_tokens

    def fates(self, context: int, bound: int) -> set[str]:
        """How it ends where workers die of poison only; one of these, if there are several."""
        if self.request.n > bound:
            return {"invalid_value"}
        if self.poison and self.poison.where == "intake":
            return {"request_quarantined"}
        if UNKNOWN in self.request.prompt:
            return {"invalid_value"}
        if len(self.request.prompt) >= context:
            return {"context_length_exceeded"}
        if self.poison and self.poison.where == "prompt":
            return {"request_quarantined"}
        tokens = self.answer(self.request.n - 1, context)[2]
        deadly = bool(self.poison) and tokens > self.poison.after
        faulty = self.nan is not None and tokens > self.nan
        ends = {"request_quarantined": deadly, "numerical_error": faulty}
        return {end for end, comes in ends.items() if comes} or {"finished"}


Stage = Literal["start", "loading", "first decode", "intake", "plan", "step", "report", "any time"]


@dataclass(frozen=True, slots=True)
class Fate:
    """How a worker ends: in the stage, at the `count`th request or step, or after `seconds`. With
    `refuses` it says that it cannot load; with `garbled` its last words are no frame. All its
    steps are `slow` times as long."""

    stage: Stage = "any time"
    code: int = HANG
    count: int = 0
    seconds: float = float("inf")
    refuses: bool = False
    garbled: bool = False
    slow: float = 1.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """`stall` is how long a worker may be silent; the server closes at `closes`. Steps end early
    now and then, in the share `interrupted`. Workers beyond the last of the `fates` live on."""

    seed: int
    asks: tuple[Ask, ...]
    fates: tuple[Fate, ...]
    config: EngineConfig
    queue: int
    stall: float
    closes: float | None
    interrupted: float
    draft: bool

    @property
    def peaceful(self) -> bool:
        """Whether workers die of poison only."""
        return all(fate.stage == "any time" and fate.seconds == float("inf") for fate in self.fates)


class Engine(FakeEngine):
    """Draws with the seed of each sequence; `asks` tells who is to get no token."""

    def __init__(self, config: EngineConfig, asks: tuple[Ask, ...], slow: float) -> None:
        cells = config.context if config.unified else None
        super().__init__(config.slots, cells, lambda rows: slow * (0.01 + 0.001 * rows))
        self._asks = asks

    def draw(self, seq, tokens: list[int]) -> Sampled:
        ask = self._asks[seq.sampling.seed // SEEDS]
        generated = len(tokens) - seq.prompt_len
        if ask.nan is not None and seq.index == ask.request.n - 1 and generated >= ask.nan:
            return Sampled(seq, -1, b"", fault=NumericalError(NAN))
        token = next_token(tokens, seq.sampling.seed)
        ends = token == END and seq.may_end(len(tokens))
        logprob = TokenLogprob(PIECES[token], -float(len(tokens))) if seq.logprobs else None
        return Sampled(seq, token, b"" if ends else PIECES[token], ends, logprob=logprob)

    def piece(self, token: int) -> bytes:
        return PIECES[token]


def draw(seed: int) -> Scenario:
    """The scenario of this seed."""
    rng = random.Random(seed)
    weather = rng.choice(("calm", "poison", "poison", "storm", "storm", "flood", "closing"))
    closing = weather == "closing"
    poisons = rng.randint(1, 3) if weather == "poison" or closing else 0
    poisons += rng.randint(0, 1) if weather == "storm" else 0
    count = rng.randint(8, 30) if weather == "flood" else rng.randint(max(1, poisons), 12)
    asks = [_ask(rng, number) for number in range(count)]
    for number in rng.sample(range(count), poisons):
        asks[number] = _poisoned(rng, asks[number])
    fates = _fates(rng) if weather == "storm" or closing else ()
    return Scenario(
        seed=seed,
        asks=tuple(asks),
        fates=fates,
        config=_config(rng),
        queue=rng.randint(0, 6) if weather == "flood" else 60,
        stall=rng.choice((2.0, 8.0, 30.0)),
        closes=rng.choice((rng.uniform(0, 3), rng.uniform(0, 60))) if closing else None,
        interrupted=rng.choice((0.0, 0.0, 0.1)),
        draft=rng.random() < 0.3,
    )


def _config(rng: random.Random) -> EngineConfig:
    slots, unified, share = rng.randint(1, 5), rng.random() < 0.5, rng.choice((64, 128))
    cells = int(share * rng.choice((1, 1.5, 3))) if unified else share * slots
    return EngineConfig(
        name="simulated",
        path="",
        context=cells,
        slots=slots,
        threads=1,
        batch=rng.choice((16, 32, 64)),
        itl_target_ms=rng.choice((None, 20.0)),
        drafts=rng.choice((0, 8)),
        host_cells=rng.choice((0, 60, 300)),
        unified=unified,
    )


def _ask(rng: random.Random, number: int) -> Ask:
    base = rng.choice(BASES)
    prompt = base[: rng.randint(1, len(base))] + rng.choices(range(1, 9), k=rng.randint(0, 12))
    if rng.random() < 0.03:
        prompt = prompt * 20 if rng.random() < 0.5 else [*prompt, UNKNOWN]
    request = GenerationRequest(
        id=str(number),
        prompt=tuple(prompt),
        sampling=Sampling(seed=number * SEEDS),
        max_tokens=rng.choice((None, rng.randint(1, 30), rng.randint(1, 30))),
        min_tokens=rng.choice((0, 5)),
        ignore_eos=rng.random() < 0.5,
        stop=rng.choice(STOPS),
        n=rng.choice((1, 1, 1, 2, 3)),
        priority=rng.choice((0, 0, -1, 1)),
        deadline=rng.choice((None,) * 9 + (rng.uniform(0.01, 5),)),
        salt=rng.choice(("", "", "mine")),
        speculate=rng.random() < 0.8,
        logprobs=0 if number % 3 == 0 else None,
        echo=number % 4 == 0,
    )
    return Ask(
        request,
        at=rng.choice((0.0, 0.5, rng.uniform(0, 3), rng.uniform(0, 10))),
        pace=rng.choice((0.0, 0.0, 0.0, 0.02, 1.0, 5.0)),
        events=rng.choice((None,) * 7 + (rng.randint(0, 8),)),
        patience=rng.choice((None,) * 7 + (rng.uniform(0, 2), rng.uniform(0, 30))),
        nan=rng.choice((None,) * 15 + (rng.randint(0, 10),)),
    )


def _poisoned(rng: random.Random, ask: Ask) -> Ask:
    code = rng.choice((-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGKILL, HANG))
    where = rng.choice(("intake", "prompt", "answer", "answer"))
    poison = Poison(where, code, rng.randint(0, 12))
    return Ask(ask.request, at=ask.at, pace=ask.pace, poison=poison)


def _fates(rng: random.Random) -> tuple[Fate, ...]:
    fates = [_fate(rng) for _ in range(rng.randint(1, 6))]
    if rng.random() < 0.9:  # the first one gets as far as to serve
        fates[0] = Fate("step", rng.choice(CODES), count=rng.randint(1, 30))
    return tuple(fates)


def _fate(rng: random.Random) -> Fate:
    early = rng.random() < 0.3
    stages = ("start", "loading", "first decode") if early else ("intake", "plan", "step", "report")
    stage = rng.choice((*stages, "any time"))
    return Fate(
        stage,
        rng.choice(CODES),
        count=rng.choice((1, rng.randint(1, 5), rng.randint(1, 60))),
        seconds=rng.expovariate(0.5) if stage == "any time" else float("inf"),
        refuses=stage == "loading" and rng.random() < 0.5,
        garbled=stage == "report" and rng.random() < 0.2,
        slow=rng.choice((1.0, 1.0, 20.0)),
    )
