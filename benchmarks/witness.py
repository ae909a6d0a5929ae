"""Streams with an answer that is known: did it come once, whole, and word for word?

Everything is greedy on the bundled model, so that one text is right. Knows nothing of what is done
to the server meanwhile.
"""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

CHAT: Final = "/v1/chat/completions"
_TOPICS: Final = ("a fox", "a lighthouse", "two friends", "the sea", "a robot", "winter", "a baker")
_ASKED: Final = ("Tell me a story about", "Write four lines about", "What do you know about")


@dataclass(slots=True)
class Account:
    """What a client saw of one stream; `last` is the id of the last event, if events have one."""

    text: list[str] = field(default_factory=list)
    finishes: int = 0
    errors: list[str] = field(default_factory=list)
    done: bool = False
    last: str = ""
    numbers: list[int] = field(default_factory=list)

    @property
    def explicit(self) -> bool:
        """Whether it ended once, and said so."""
        return self.done and self.finishes + len(self.errors) == 1

    @property
    def whole(self) -> bool:
        return self.explicit and not self.errors

    @property
    def said(self) -> str:
        return "".join(self.text)

    def take(self, frame: str) -> None:
        """One whole event of the stream."""
        for line in frame.split("\n"):
            kind, _, value = line.partition(": ")
            if kind == "id":
                self.last = value
                self.numbers.append(int(value.rpartition(":")[2]))
            elif kind == "data" and value == "[DONE]":
                self.done = True
            elif kind == "data":
                self._book(json.loads(value))

    def _book(self, chunk: Mapping[str, Any]) -> None:
        if error := chunk.get("error"):
            self.errors.append(error["code"])
        for choice in chunk.get("choices", ()):
            self.text.append(choice["delta"].get("content") or "")
            self.finishes += choice["finish_reason"] is not None


def question(number: int, tokens: int = 200) -> dict[str, Any]:
    """A body that is answered with exactly so many tokens; the same number, the same answer."""
    asked, topic = _ASKED[number % len(_ASKED)], _TOPICS[number // len(_ASKED) % len(_TOPICS)]
    return {
        "messages": [{"role": "user", "content": f"{asked} {topic}. ({number})"}],
        "temperature": 0,
        "max_tokens": tokens,
        "ignore_eos": True,
        "enable_thinking": False,
        "stream": True,
    }


async def witness(http: httpx.AsyncClient, body: Mapping[str, Any]) -> Account:
    """Ask, and read to the end."""
    account = Account()
    async with http.stream("POST", CHAT, json=body) as response:
        if response.status_code != 200:
            account.errors.append(await _code(response))
            account.done = True
            return account
        async for frame in frames(response):
            account.take(frame)
    return account


async def frames(response: httpx.Response) -> AsyncIterator[str]:
    """Whole events; one that is cut off is none."""
    held = ""
    async for text in response.aiter_text():
        *whole, held = (held + text).split("\n\n")
        for frame in whole:
            yield frame


async def _code(response: httpx.Response) -> str:
    try:
        return str(json.loads(await response.aread())["error"]["code"])
    except (ValueError, LookupError, TypeError):
        return f"status {response.status_code}"
