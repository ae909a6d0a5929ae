"""Keeps a long conversation within its model's context: old messages become a summary.

The model writes it: facts, one by one, and a few sentences. Facts that were found once are kept as
they are, so that what was said at the beginning is not worn away by summing up sums. The messages
themselves stay in the store. Knows no store and no HTTP.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from time import time
from typing import Any, Final

from pydantic_core import from_json

from api.body import json_text
from api.gateway.events import Compacted, Compacting
from api.gateway.prompt import Prompt, shown
from api.store.records import Message, Summary
from inference import (
    Constraint,
    ContextTooLong,
    GenerationRequest,
    Models,
    Sampling,
    TextDelta,
)
from inference import Message as Said

_MOST_FACTS: Final = 12  # at a time
_FACT: Final = 200  # characters
_LEAST: Final = 400  # characters of a piece that is summed up at once
_INSTRUCTIONS: Final = (
    "You keep the memory of a conversation. Read it and answer in JSON: `summary` says in two or "
    "three sentences what was talked about and what is still open; `facts` are the things that "
    "must not be forgotten (names, numbers, dates, places, wishes, decisions, code identifiers), "
    "each a short sentence of its own that says whom or what it is about. Write in the language "
    "of the conversation. Leave out facts that are known already."
)
_SCHEMA: Final = json_text(
    {
        "type": "object",
        "properties": {
            "summary": {"type": "string", "maxLength": 400},
            "facts": {
                "type": "array",
                "items": {"type": "string", "maxLength": _FACT},
                "maxItems": _MOST_FACTS,
            },
        },
        "required": ["summary", "facts"],
        "additionalProperties": False,
    }
)

Tell = Callable[[Compacting | Compacted], Awaitable[None]]
Keep = Callable[[Summary], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Scale:
    """How a context is shared out, in tokens: `answer` for what is to come, `recent` for messages
    that stay word for word, and `memory` for the summary. Of a message `per_character` tokens."""

    context: int
    answer: int
    per_character: float

    @property
    def recent(self) -> int:
        return (self.context - self.answer) * 2 // 5

    @property
    def memory(self) -> int:
        return self.context // 6

    @property
    def piece(self) -> int:
        """Characters that are summed up at once."""
        return max(_LEAST, int(self.context / 2 / self.per_character))

    def tokens(self, message: Message) -> float:
        return 8 + self.per_character * len(_words(message))


async def fitted(models: Models, prompt: Prompt, tell: Tell, keep: Keep) -> Prompt:
    """`prompt`, or one in which summaries, which are kept, stand for more of its beginning.

    What cannot be made to fit is returned as it is. Raises as `Models.generate`.
    """
    scale = await _measured(models, prompt)
    while scale and (place := _beginning(prompt, scale)):
        await tell(Compacting())
        prompt = await _summed_up(models, prompt, place, scale, keep)
        assert prompt.summary
        await tell(Compacted(prompt.summary.messages, shown(prompt.summary)))
        scale = await _measured(models, prompt)
    return prompt


async def _measured(models: Models, prompt: Prompt) -> _Scale | None:
    """None if there is room for the prompt and an answer."""
    asked = prompt.asked()
    status = models.status(asked.model)
    told = [_whole(message) for message in asked.messages]
    # A byte is a token at most: short conversations are not counted.
    bound = sum(len(text.encode()) + 32 for text in told)
    if status.info and not asked.tools and bound < status.info.context // 2:
        return None
    tokens = await models.count(asked)
    info = models.status(asked.model).info
    assert info, "who counts is loaded"
    usual = info.context // 4
    answer = min(asked.max_tokens or usual, usual)
    if tokens + answer <= info.context:
        return None
    characters = sum(map(len, told)) + sum(len(json_text(tool.written)) for tool in asked.tools)
    return _Scale(info.context, answer, max(tokens / max(characters, 1), 0.05))


def _beginning(prompt: Prompt, scale: _Scale) -> int:
    """How many messages of the path are to be summed up, 0 if there is nothing to be gained: the
    first ones, up to one of the user's from which on they are few enough, or the last of those."""
    first, last, tokens = prompt.summed_up, 0, 0.0
    for place in range(len(prompt.path) - 1, first, -1):
        tokens += scale.tokens(prompt.path[place])
        if prompt.path[place].role == "user":
            if last and tokens > scale.recent:
                break
            last = place
    return last


async def _summed_up(
    models: Models, prompt: Prompt, place: int, scale: _Scale, keep: Keep
) -> Prompt:
    """The prompt with its path summed up to `place`, piece by piece; each is kept, so that who is
    interrupted goes on there."""
    asked, size = prompt.asked(), scale.piece
    begun = prompt.summed_up
    while begun < place:
        piece, end = _piece(prompt.path, begun, place, size)
        try:
            found = await _written(models, _question(asked, prompt.summary, piece, scale))
        except ContextTooLong:  # it is denser than the others
            if size <= _LEAST:
                raise
            size = max(_LEAST, size // 2)
            continue
        summary = _more(prompt.summary, found, prompt.path[end - 1].id, end, scale)
        await keep(summary)
        prompt, begun = replace(prompt, summary=summary), end
    return prompt


def _more(
    before: Summary | None, found: dict[str, Any], upto: str, messages: int, scale: _Scale
) -> Summary:
    """A summary, with what was found after it."""
    facts = before.facts if before else ()
    content = before.content if before else ""
    return Summary(
        upto=upto,
        facts=_bounded((*facts, *_facts(found)), scale),
        content=_text(found.get("summary")) or content,
        messages=messages,
        created=time(),
    )


def _question(
    request: GenerationRequest, before: Summary | None, piece: str, scale: _Scale
) -> GenerationRequest:
    """What the model is asked about a piece of the conversation."""
    facts, content = (before.facts, before.content) if before else ((), "")
    known = json_text({"known_facts": facts, "summary_so_far": content})
    return GenerationRequest(
        id=f"{request.id}-summary",
        model=request.model,
        messages=(Said("system", _INSTRUCTIONS), Said("user", f"{known}\n\n{piece}")),
        constraints=(Constraint("schema", "session_id", _SCHEMA),),
        thinking=False,
        sampling=Sampling(temperature=0.0),
        max_tokens=scale.memory,
        deadline=request.deadline,
        salt=request.salt,
        tenant=request.tenant,
        keep_alive=request.keep_alive,
    )


async def _written(models: Models, question: GenerationRequest) -> dict[str, Any]:
    """The JSON of an answer, as far as it came."""
    async with aclosing(models.generate(question)) as events:
        text = "".join([event.text async for event in events if isinstance(event, TextDelta)])
    try:
        found = from_json(text, allow_partial="trailing-strings")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _facts(found: dict[str, Any]) -> list[str]:
    facts = found.get("facts")
    return [_text(fact)[:_FACT] for fact in facts] if isinstance(facts, list) else []


def _text(value: Any) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""


def _bounded(facts: Sequence[str], scale: _Scale) -> tuple[str, ...]:
    """Each fact once, in as many tokens as memory has: else those in the middle go, as the first
    ones say who is who, and the last ones what is going on."""
    kept = list(dict.fromkeys(filter(None, facts)))
    tokens = [4 + scale.per_character * len(fact) for fact in kept]
    room, first, last = float(scale.memory), 0, len(kept)
    while first < last:
        place = first if first <= len(kept) - last else last - 1
        room -= tokens[place]
        if room < 0:
            break
        first, last = (first + 1, last) if place == first else (first, last - 1)
    return (*kept[:first], *kept[last:])


def _piece(path: Sequence[Message], begun: int, end: int, size: int) -> tuple[str, int]:
    """As many messages as are at most `size` characters, but one at least, as text, and where they
    end. Of one that is longer the middle is left out."""
    lines: list[str] = []
    room = size
    for message in path[begun:end]:
        line = f"{message.role}: {_shortened(_words(message), size - 16)}\n"
        if lines and len(line) > room:
            break
        lines.append(line)
        room -= len(line)
    return "".join(lines), begun + len(lines)


def _shortened(text: str, size: int) -> str:
    half = size // 2 - 3
    return text if len(text) <= size else f"{text[:half]} ... {text[len(text) - half :]}"


def _words(message: Message) -> str:
    calls = (f"[calls {call.name}({call.arguments})]" for call in message.tool_calls)
    return " ".join(filter(None, (message.content, *calls)))


def _whole(message: Said) -> str:
    """All that a template may show of a message."""
    calls = (f"{call.name} {call.arguments}" for call in message.tool_calls)
    return " ".join((message.content, message.reasoning, *calls))
