"""A pool whose model has a perfect memory of what it is shown, and of nothing else.

It sums up a conversation by the facts in it, and answers a question from its prompt.
"""

import json
import re
from collections.abc import AsyncGenerator
from dataclasses import replace

from inference import GenerationEvent, GenerationRequest, ModelInfo, Started, TextDelta
from tests.fake_pool import FakePool, end

_FACT = re.compile(r"(?:the|The) (\w+) word is (\w+)")
_QUESTION = re.compile(r"What is the (\w+) word")


def tokens(request: GenerationRequest) -> int:
    """Four characters a token, and four tokens around each message."""
    calls = [call for message in request.messages for call in message.tool_calls]
    said = sum(4 + len(message.content) // 4 for message in request.messages)
    return said + sum(len(call.arguments) // 4 for call in calls)


class ScriptedPool(FakePool):
    """A model with a context of `context` tokens."""

    def __init__(self, context: int = 2048) -> None:
        super().__init__()
        info = ModelInfo("fake", "qwen3", context, 4, 151936, 600_000_000, 640_000_000)
        self.now = replace(self.now, info=info)

    async def count(self, request: GenerationRequest) -> int:
        return tokens(request)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        self.requests.append(request)
        said = "\n".join(message.content for message in request.messages)
        facts = dict(_FACT.findall(said))
        yield Started(tokens(request))
        if request.constraints:
            yield TextDelta(0, _summary(request))
        else:
            [wanted] = _QUESTION.findall(request.messages[-1].content) or [""]
            yield TextDelta(0, facts.get(wanted, "I do not know."))
        yield end()


def _summary(request: GenerationRequest) -> str:
    """What is new in the last message of a request to sum up."""
    known, _, piece = request.messages[-1].content.partition("\n\n")
    facts = [f"The {name} word is {word}." for name, word in _FACT.findall(piece)]
    new = [fact for fact in facts if fact not in known]
    return json.dumps({"facts": new, "summary": f"{piece.count('user:')} questions were asked."})
