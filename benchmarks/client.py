"""One streamed completion from any OpenAI-compatible server, and what its client saw of it.

Times are seconds of this process's monotonic clock. Token counts come from the server's own
`usage` and from nothing else: where a server sends none, they are unknown. Knows no workload.
"""

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

import h11
import httpx

from benchmarks import BenchmarkError
from benchmarks.post import Reply, post

_COMMON: Final = (
    "the and for are but not you all any can her was one our out day get has him his how man new "
    "now old see two way who boy did its let put say she too use run sun"
)
WORDS: Final = tuple(_COMMON.split())  # single tokens in most vocabularies
_PATIENCE: Final = 600  # seconds for an answer
_SPECIALS: Final = 300  # ids at the end of a vocabulary that are no ordinary tokens
_UNKNOWN_VOCABULARY: Final = 32_000  # a server that does not tell has at least so many

Prompt = str | list[int]


@dataclass(frozen=True, slots=True)
class Server:
    """A server to measure. `ids` are token ids that prompts may be made of; None: words only."""

    name: str
    url: str
    model: str
    ids: range | None

    def prompt(self, rng: random.Random, length: int) -> Prompt:
        """A random prompt of `length` tokens, or of as many words where ids are refused."""
        if self.ids is None:
            return words(rng, length)
        return [rng.choice(self.ids) for _ in range(length)]


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(WORDS, k=count))


@dataclass(slots=True)
class Answer:
    """One answer while it comes and after: `chunks` are the times at which text arrived.

    `role` tells apart the requests of one workload; `wanted` is the exact number of tokens.
    """

    role: str
    wanted: int
    sent: float = field(default_factory=time.perf_counter)
    ended: float = 0.0
    chunks: list[float] = field(default_factory=list)
    status: int = 0
    retry_after: str | None = None
    tokens: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    finished: bool = False
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether the answer came whole."""
        return self.finished and not self.error

    @property
    def refused(self) -> bool:
        return self.status == 429

    @property
    def ttft(self) -> float:
        return self.chunks[0] - self.sent

    @property
    def gaps(self) -> list[float]:
        return [b - a for a, b in pairwise(self.chunks)]

    @property
    def seconds(self) -> float:
        return self.ended - self.sent

    def feed(self, line: str) -> None:
        """Take one line of the event stream."""
        if not line.startswith("data: {"):
            return
        chunk: dict[str, Any] = json.loads(line.removeprefix("data: "))
        if "error" in chunk:
            self.error = str(chunk["error"].get("message", chunk["error"]))
        for choice in chunk.get("choices", ()):
            if choice["text"]:
                self.chunks.append(time.perf_counter())
            self.finished = self.finished or choice.get("finish_reason") is not None
        if usage := chunk.get("usage"):
            self.tokens, self.prompt_tokens = usage["completion_tokens"], usage["prompt_tokens"]
            self.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")

    def end(self) -> None:
        """Book the end of the stream; says in `error` what is missing."""
        self.ended = time.perf_counter()
        if self.error:
            return
        if not self.finished:
            self.error = "the stream ended before the answer did"
        elif self.tokens not in (None, self.wanted):
            self.error = f"the answer has {self.tokens} tokens instead of {self.wanted}"


class Client:
    """Asks one server; `watch` sees every answer when it has ended."""

    def __init__(self, server: Server, watch: Callable[[Answer], None] = lambda _: None) -> None:
        self.server = server
        self._watch = watch

    async def ask(
        self,
        prompt: Prompt,
        tokens: int,
        *,
        role: str = "",
        begun: asyncio.Event | None = None,
        fields: Mapping[str, Any] = MappingProxyType({}),
    ) -> Answer:
        """One streamed answer of exactly `tokens` tokens, greedy unless `fields` of the body say
        otherwise. `begun` is set with the first text, or with the end."""
        answer = Answer(role, tokens)
        try:
            url = f"{self.server.url}/v1/completions"
            body = json.dumps(completion_of(self.server, prompt, tokens) | dict(fields)).encode()
            async with asyncio.timeout(_PATIENCE), post(url, body) as reply:
                await _read(reply, answer, begun)
        except (OSError, h11.ProtocolError) as error:
            answer.error = f"{type(error).__name__}: {error}"
        finally:  # a stream that failed or was cancelled shall not be waited for
            if begun:
                begun.set()
        answer.end()
        self._watch(answer)
        return answer


def completion_of(server: Server, prompt: Prompt, tokens: int) -> dict[str, Any]:
    """The body that asks for exactly `tokens` tokens, streamed, greedy."""
    return {
        "model": server.model,
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        "speculation": False,  # Onebox's own: random weights repeat themselves, unlike real ones
    }


async def _read(reply: Reply, answer: Answer, begun: asyncio.Event | None) -> None:
    answer.status = reply.status
    answer.retry_after = reply.headers.get("retry-after")
    if reply.status != 200:
        answer.error = _reason("".join([line async for line in reply.lines()]))
        return
    async for line in reply.lines():
        answer.feed(line)
        if begun and answer.chunks:
            begun.set()


def _reason(text: str) -> str:
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return text[:200]


async def discover(url: str, name: str | None = None) -> Server:
    """What the server at `url` (with or without /v1) serves, and whether it takes token ids.

    Raises BenchmarkError if it does not answer.
    """
    url = url.rstrip("/").removesuffix("/v1")
    async with httpx.AsyncClient(base_url=url, timeout=10) as http:
        try:
            response = await http.get("/v1/models")
            response.raise_for_status()
            card = response.json()["data"][0]
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError) as error:
            raise BenchmarkError(
                f"{url} does not answer like an OpenAI-compatible server: {error}; "
                "start one with onebox serve."
            ) from None
    size = (card.get("meta") or {}).get("n_vocab") or _UNKNOWN_VOCABULARY
    ids = range(min(1000, size // 4), min(100_000, size - _SPECIALS))
    takes_ids = Server(name or urlsplit(url).netloc, url, card["id"], ids)
    for server in (takes_ids, replace(takes_ids, ids=None)):
        probe = await Client(server).ask(server.prompt(random.Random(0), 2), 1)
        if probe.status == 200:
            return server
    raise BenchmarkError(f"{url} does not answer a prompt: {probe.error}")
