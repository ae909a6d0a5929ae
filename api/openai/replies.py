"""What the answers of OpenAI's two generation endpoints share: their frame, usage and timings."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from time import time
from typing import Any, ClassVar, Final, Generic, TypeVar
from uuid import uuid4

import msgspec
from msgspec import UNSET, UnsetType

from api import __version__
from api.folding import Answer, answers
from api.openai.errors import DONE, framed
from inference import Finished, GenerationEvent

FINGERPRINT: Final = f"onebox-{__version__}"


@dataclass(frozen=True, slots=True)
class Head:
    """What every chunk of one answer repeats; `created` in Unix seconds. Of a stored conversation
    it names `session` and `message`."""

    id: str
    model: str
    created: int
    session: str | UnsetType = UNSET
    message: str | UnsetType = UNSET

    @classmethod
    def new(cls, prefix: str, model: str) -> "Head":
        return cls(f"{prefix}{uuid4().hex}", model, int(time()))


class PromptDetails(msgspec.Struct):
    cached_tokens: int


class Usage(msgspec.Struct):
    """OpenAI's usage object; the choices of one prompt count it once."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails

    @classmethod
    def of(cls, ends: list[Finished], n: int) -> "Usage":
        """The sum over `ends`, where each prompt has `n` consecutive choices."""
        prompts = [end.usage for end in ends if end.index % n == 0]
        prompt = sum(usage.prompt_tokens for usage in prompts)
        completion = sum(end.usage.completion_tokens for end in ends)
        cached = PromptDetails(sum(usage.cached_tokens for usage in prompts))
        return cls(prompt, completion, prompt + completion, cached)


class Timings(msgspec.Struct):
    """llama.cpp's names for one choice's speed, and the wait; `_n` in tokens, `_ms` in ms."""

    prompt_n: int
    cache_n: int
    predicted_n: int
    queued_ms: float
    ttft_ms: float
    predicted_ms: float
    predicted_per_second: float

    @classmethod
    def of(cls, end: Finished) -> "Timings":
        usage, times = end.usage, end.timings
        return cls(
            prompt_n=usage.prompt_tokens - usage.cached_tokens,
            cache_n=usage.cached_tokens,
            predicted_n=usage.completion_tokens,
            queued_ms=round(times.queued * 1e3, 3),
            ttft_ms=round(times.first_token * 1e3, 3),
            predicted_ms=round((times.total - times.first_token) * 1e3, 3),
            predicted_per_second=round(end.tokens_per_second, 2),
        )


AnyChoice = TypeVar("AnyChoice")


class Reply(msgspec.Struct, Generic[AnyChoice]):
    """A chunk of a stream, or the whole answer."""

    id: str
    object: str
    created: int
    model: str
    choices: list[AnyChoice]
    system_fingerprint: str = FINGERPRINT
    usage: Usage | UnsetType = UNSET
    timings: Timings | UnsetType = UNSET
    session_id: str | UnsetType = UNSET
    message_id: str | UnsetType = UNSET


class ReplyEncoder(ABC):
    """Writes the events of one body's prompts with `n` choices each; of what a choice looks like
    it knows nothing."""

    chunk: ClassVar[str]
    """What a chunk is called."""
    whole: ClassVar[str]
    """What an answer is called that is not streamed."""

    def __init__(self, head: Head, n: int, include_usage: bool) -> None:
        self.head = head
        self._n = n
        self._include_usage = include_usage
        self._ends: list[Finished] = []

    @abstractmethod
    def _choice(self, answer: Answer) -> Any:
        """A choice that is whole."""

    def close(self) -> list[bytes]:
        """The usage chunk, which has no choices; old clients fail on it, so only if asked for."""
        if not self._include_usage:
            return [DONE]
        reply: Reply[Any] = self._reply()
        reply.usage = Usage.of(self._ends, self._n)
        return [framed(reply), DONE]

    def fold(self, events: list[GenerationEvent]) -> bytes:
        found = answers(events)
        reply = self._reply(*map(self._choice, found))
        reply.object = self.whole
        reply.usage = Usage.of([answer.end for answer in found], self._n)
        reply.timings = Timings.of(found[0].end)
        return msgspec.json.encode(reply)

    def _said(self, choice: object) -> list[bytes]:
        return [framed(self._reply(choice))]

    def _ended(self, choice: object, end: Finished) -> list[bytes]:
        self._ends.append(end)
        reply = self._reply(choice)
        reply.timings = Timings.of(end)
        return [framed(reply)]

    def _reply(self, *choices: AnyChoice) -> Reply[AnyChoice]:
        head = self.head
        return Reply(
            head.id,
            self.chunk,
            head.created,
            head.model,
            list(choices),
            session_id=head.session,
            message_id=head.message,
        )
