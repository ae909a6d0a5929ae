"""What is asked of a server: when, how much, and by how many at once.

Prompts are random token ids (words where a server takes no ids), no two alike, so that nothing is
cached but what a workload means to be; greedy, of exactly the wanted length. Each workload runs
against one `Client` with a random generator of its own: the same seed asks the same of every
server. Knows neither how servers are started nor what figures are made of the answers, except
those that only it can have (`Outcome.own`).
"""

import asyncio
import random
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final, Protocol

from benchmarks.client import WORDS, Answer, Client, Prompt, words
from benchmarks.figures import Figures, Outcome, total

_USER: Final = "\n\nUser:"


class Workload(Protocol):
    """`title` names it in reports; `requests` is how many answers a run waits for."""

    @property
    def title(self) -> str: ...
    @property
    def requests(self) -> int: ...
    async def run(self, client: Client, rng: random.Random) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class Steady:
    """`clients` at once, each asking again as soon as it is answered."""

    clients: int = 8
    prompt: int = 128
    answer: int = 48
    each: int = 3
    name: str = "steady"

    @property
    def title(self) -> str:
        return f"{self.name} n={self.clients}"

    @property
    def requests(self) -> int:
        return self.clients * self.each

    async def run(self, client: Client, rng: random.Random) -> Outcome:
        prompts = [client.server.prompt(rng, self.prompt) for _ in range(self.requests)]
        answers: list[Answer] = []

        async def one_client() -> None:
            while prompts:
                answers.append(await client.ask(prompts.pop(), self.answer))

        start = time.perf_counter()
        await asyncio.gather(*(one_client() for _ in range(self.clients)))
        return Outcome(answers, time.perf_counter() - start)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """`streams` answers are running, each has its first token; then `arrivals` prompts come in the
    same instant. Roles: `stream`, `new`."""

    title: str
    arrivals: int
    new_prompt: int
    new_answer: int
    streams: int = 4
    prompt: int = 128
    answer: int = 128

    @property
    def requests(self) -> int:
        return self.streams + self.arrivals

    async def run(self, client: Client, rng: random.Random) -> Outcome:
        new = [client.server.prompt(rng, self.new_prompt) for _ in range(self.arrivals)]
        start = time.perf_counter()
        running = await _begin(client, rng, self.streams, self.prompt, self.answer, self.streams)
        arrived = (client.ask(prompt, self.new_answer, role="new") for prompt in new)
        answers = await asyncio.gather(*running, *arrived)
        return Outcome(answers, time.perf_counter() - start)


@dataclass(frozen=True, slots=True)
class Chat:
    """`users` start at the same instant with one system prompt and take `turns` turns each.

    Lengths are words (an answer's: tokens). The history of a turn holds a made-up answer of the
    same length in place of the one that came: with random weights that is garbage, which reads
    differently when it comes back as text. So answers are never found in a cache, as with a chat
    template that rewrites history, and `minimum` counts them as prompt tokens.
    """

    users: int = 4
    turns: int = 4
    system: int = 512
    turn: int = 32
    answer: int = 32
    title: str = "chat"

    @property
    def requests(self) -> int:
        return self.users * self.turns + 1

    async def run(self, client: Client, rng: random.Random) -> Outcome:
        system = words(rng, self.system)
        names = rng.sample(WORDS, self.users)  # so that no user's first word is another's
        talks = [self._talk(rng, system, name) for name in names]
        start = time.perf_counter()
        answers = await asyncio.gather(*(self._user(client, talk) for talk in talks))
        seconds = time.perf_counter() - start
        shared = await client.ask(system + _USER, 1)  # last: it would warm the cache
        return Outcome([*chain(*answers)], seconds, self._computed(answers, shared))

    def _talk(self, rng: random.Random, system: str, name: str) -> list[str]:
        """The prompts of one user, each the whole history before it and one turn more."""
        prompts, history = [], system
        for _ in range(self.turns):
            history += f"{_USER} {name} {words(rng, self.turn - 1)}\n\nAssistant:"
            prompts.append(history)
            history += f" {words(rng, self.answer)}"
        return prompts

    async def _user(self, client: Client, talk: list[str]) -> list[Answer]:
        return [await client.ask(prompt, self.answer) for prompt in talk]

    def _computed(self, users: list[list[Answer]], shared: Answer) -> Figures:
        """Prompt tokens computed over the fewest possible: what all users share once, then every
        token of every history once."""
        longest = total(answers[-1].prompt_tokens for answers in users)
        prompt = total(answer.prompt_tokens for user in users for answer in user)
        cached = total(answer.cached_tokens for user in users for answer in user)
        if longest is None or prompt is None or cached is None or shared.prompt_tokens is None:
            return {}
        minimum = longest - (self.users - 1) * shared.prompt_tokens
        return {
            "minimum prompt tokens": minimum,
            "prompt tokens computed / minimum": (prompt - cached) / minimum,
        }


@dataclass(frozen=True, slots=True)
class Cancel:
    """First tokens on an idle server, and right after `streams` clients hung up at once: when
    all were streaming, and when only the first was and the others' prompts were being computed.

    Roles: `idle`, `after streams`, `after prefill`.
    """

    streams: int = 8
    prompt: int = 512
    answer: int = 256
    probes: int = 5
    probe: int = 16
    title: str = "cancel"

    @property
    def requests(self) -> int:
        return self.probes + 2

    async def run(self, client: Client, rng: random.Random) -> Outcome:
        idle = [await self._probe(client, rng, "idle") for _ in range(self.probes)]
        after, whole = [], []
        for role, begun in (("after streams", self.streams), ("after prefill", 1)):
            running = await _begin(client, rng, self.streams, self.prompt, self.answer, begun)
            for stream in running:
                stream.cancel()
            ended = await asyncio.gather(*running, return_exceptions=True)
            whole += [answer for answer in ended if isinstance(answer, Answer)]
            after.append(await self._probe(client, rng, role))
        return Outcome(idle + after + whole, own=_slowdown(idle, after))

    async def _probe(self, client: Client, rng: random.Random, role: str) -> Answer:
        return await client.ask(client.server.prompt(rng, self.probe), self.probe, role=role)


def _slowdown(idle: list[Answer], after: list[Answer]) -> Figures:
    if not all(answer.chunks for answer in idle + after):
        return {}
    slowest = max(answer.ttft for answer in after)
    return {"TTFT after / idle": slowest / statistics.median(answer.ttft for answer in idle)}


async def _begin(
    client: Client, rng: random.Random, streams: int, prompt: int, answer: int, begun: int
) -> list[asyncio.Task[Answer]]:
    """Start `streams` answers and wait until `begun` of them have their first token."""
    first = [asyncio.Event() for _ in range(streams)]
    asks = (
        client.ask(client.server.prompt(rng, prompt), answer, role="stream", begun=event)
        for event in first
    )
    running = [asyncio.create_task(ask) for ask in asks]
    for waited in islice(asyncio.as_completed([event.wait() for event in first]), begun):
        await waited
    return running


@dataclass(frozen=True, slots=True)
class Overload:
    """`requests` in the same instant, many more than slots and queue take."""

    requests: int = 64
    prompt: int = 16
    answer: int = 32
    title: str = "overload"

    async def run(self, client: Client, rng: random.Random) -> Outcome:
        prompts = [client.server.prompt(rng, self.prompt) for _ in range(self.requests)]
        start = time.perf_counter()
        answers = await asyncio.gather(*(client.ask(p, self.answer) for p in prompts))
        seconds = time.perf_counter() - start
        refused = [answer for answer in answers if answer.refused]
        if not refused:
            return Outcome(answers, seconds)
        waits = [answer.seconds for answer in refused]
        own = {
            "refusal p50 ms": 1e3 * statistics.median(waits),
            "refusal max ms": 1e3 * max(waits),
            "refused without Retry-After": sum(answer.retry_after is None for answer in refused),
        }
        return Outcome(answers, seconds, own)


@dataclass(frozen=True, slots=True)
class Speculation:
    """One stream, each prompt twice: with `"speculation": true`, and with `false`.

    The server has seen the prompt before, so that both only generate. `repeats`: the prompt is a
    short pattern many times over and the answer greedy, which falls into a loop even where
    weights are random (the 0.6B shape: nine of ten tokens follow from the last three). Otherwise
    prompt and answer are random (temperature 1), and nothing follows from anything. Role of the
    second answer: `plain`.
    """

    title: str
    repeats: bool
    prompts: int = 4
    prompt: int = 128
    pattern: int = 8
    answer: int = 128

    @property
    def requests(self) -> int:
        return 3 * self.prompts

    async def run(self, client: Client, rng: random.Random) -> Outcome:
        answers: list[Answer] = []
        for number in range(self.prompts):
            prompt = self._prompt(client, rng)
            await client.ask(prompt, 1)
            drawn = {} if self.repeats else {"temperature": 1, "seed": number}
            sides = [("", True), ("plain", False)]
            for role, speculation in sides if number % 2 else reversed(sides):
                fields = drawn | {"speculation": speculation}
                answers.append(await client.ask(prompt, self.answer, role=role, fields=fields))
        return Outcome(answers, own=_gain(answers))

    def _prompt(self, client: Client, rng: random.Random) -> Prompt:
        if not self.repeats:
            return client.server.prompt(rng, self.prompt)
        pattern, times = client.server.prompt(rng, self.pattern), self.prompt // self.pattern
        return " ".join([pattern] * times) if isinstance(pattern, str) else pattern * times


def _gain(answers: list[Answer]) -> Figures:
    """Tokens per second of each side, and what speculation makes of them."""
    rates = []
    for role in ("", "plain"):
        whole = [answer for answer in answers if answer.ok and answer.role == role]
        tokens = total(answer.tokens for answer in whole)
        if not tokens:
            return {}
        rates.append(tokens / sum(answer.seconds for answer in whole))
    return {
        "output tok/s": rates[0],
        "plain output tok/s": rates[1],
        "speculation gain": rates[0] / rates[1],
    }


WORKLOADS: Final[Mapping[str, Workload]] = {
    "steady": Steady(),
    "burst": Arrivals("burst", arrivals=8, new_prompt=128, new_answer=48),
    "chat": Chat(),
    "mixed": Arrivals("mixed", arrivals=2, new_prompt=1500, new_answer=16),
    "cancel": Cancel(),
    "overload": Overload(),
    "growing": Steady(prompt=32, answer=480, each=1, name="growing"),
    "repeat": Speculation("repeat", repeats=True),
    "novel": Speculation("novel", repeats=False),
}
