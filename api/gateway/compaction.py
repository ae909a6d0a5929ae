"""Keeps a long conversation within its model's context: old messages become a summary.

The model writes it: facts, one by one, and a few sentences. Facts that were found once are kept as
they are, so that what was said at the beginning is not worn away by summing up sums. The messages
themselves stay in the store. Knows no store and no HTTP.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from time import time
from typing import Any, Final

from pydantic_core import from_json

from api.body import json_text
from api.gateway.events import Compacted, Compacting
from api.gateway.prompt import Prompt, shown
from api.store.records import Message, Summary
from inference import Constraint, GenerationRequest, Models, Sampling, TextDelta
from inference import Message as Said

_MOST_FACTS: Final = 12  # at a time
_FACT: Final = 200  # characters
_INSTRUCTIONS: Final = (
    "You keep the memory of a conversation. Read it and answer in JSON: `facts` are the things "
    "that must not be forgotten (names, numbers, dates, places, wishes, decisions, code "
    "identifiers), each a short sentence of its own that says whom or what it is about; "
    "`summary` says in a few sentences what was talked about and what is still open. Write in "
    "the language of the conversation. Leave out facts that are known already."
)
_SCHEMA: Final = json_text(
    {
        "type": "object",
        "properties": {
            "facts": {
                "type": "array",
                "items": {"type": "string", "maxLength": _FACT},
                "maxItems": _MOST_FACTS,
            },
            "summary": {"type": "string", "maxLength": 2000},
        },
        "required": ["facts", "summary"],
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
    def characters(self) -> int:
        """Of a piece that is summed up at once."""
        return int(self.context / 2 / self.per_character)

    def tokens(self, message: Message) -> float:
        return 8 + self.per_character * _length(message)


async def fitted(models: Models, prompt: Prompt, tell: Tell, keep: Keep) -> Prompt:
    """`prompt`, or one in which a summary, which is kept, stands for more of its beginning.

    What cannot be made to fit is returned as it is. Raises as `Models.generate`.
    """
    scale = await _measured(models, prompt)
    while scale and (place := _beginning(prompt, scale)):
        await tell(Compacting())
        summary = await _summed_up(models, prompt, place, scale)
        await keep(summary)
        await tell(Compacted(summary.messages, shown(summary)))
        prompt = replace(prompt, summary=summary)
        scale = await _measured(models, prompt)
    return prompt


async def _measured(models: Models, prompt: Prompt) -> _Scale | None:
    """None if there is room for the prompt and an answer."""
    asked = prompt.asked()
    status = models.status(asked.model)
    characters = sum(map(_length, prompt.recent)) or 1
    # A byte is a token at most: short conversations are not counted.
    bound = sum(len(message.content.encode()) + 32 for message in asked.messages)
    if status.info and not asked.tools and bound < status.info.context // 2:
        return None
    tokens = await models.count(asked)
    info = models.status(asked.model).info
    assert info, "who counts is loaded"
    usual = info.context // 4
    answer = min(asked.max_tokens or usual, usual)
    if tokens + answer <= info.context:
        return None
    return _Scale(info.context, answer, max(tokens / characters, 0.05))


def _beginning(prompt: Prompt, scale: _Scale) -> int:
    """How many messages of the path are to be summed up, 0 if there is nothing to be gained: the
    first ones, up to one of the user's from which on they are few enough, or the last of those."""
    places = [
        place
        for place, message in enumerate(prompt.path)
        if message.role == "user" and place > prompt.summed_up
    ]
    for place in places:
        if sum(map(scale.tokens, prompt.path[place:])) <= scale.recent:
            return place
    return places[-1] if places else 0


async def _summed_up(models: Models, prompt: Prompt, place: int, scale: _Scale) -> Summary:
    facts: tuple[str, ...] = prompt.summary.facts if prompt.summary else ()
    content = prompt.summary.content if prompt.summary else ""
    old = prompt.path[prompt.summed_up : place]
    for piece in _pieces(old, scale.characters):
        found = await _written(models, _question(prompt.asked(), facts, content, piece, scale))
        facts = _bounded((*facts, *_facts(found)), scale)
        content = _text(found.get("summary")) or content
    return Summary(
        upto=prompt.path[place - 1].id,
        facts=facts,
        content=content,
        messages=place,
        created=time(),
    )


def _question(
    request: GenerationRequest, facts: Sequence[str], content: str, piece: str, scale: _Scale
) -> GenerationRequest:
    """What the model is asked about a piece of the conversation."""
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
    while sum(4 + scale.per_character * len(fact) for fact in kept) > scale.memory:
        del kept[len(kept) // 2]
    return tuple(kept)


def _pieces(messages: Sequence[Message], size: int) -> Iterator[str]:
    """The messages as text, in pieces of at most `size` characters; of a message that is longer the
    middle is left out."""
    piece = ""
    for message in messages:
        line = f"{message.role}: {_shortened(_told(message), size - 16)}\n"
        if piece and len(piece) + len(line) > size:
            yield piece
            piece = ""
        piece += line
    if piece:
        yield piece


def _shortened(text: str, size: int) -> str:
    if len(text) <= size:
        return text
    return f"{text[: size // 2 - 3]} ... {text[len(text) - (size // 2 - 3) :]}"


def _told(message: Message) -> str:
    calls = (f"[calls {call.name}({call.arguments})]" for call in message.tool_calls)
    return " ".join(filter(None, (message.content, *calls)))


def _length(message: Message) -> int:
    return len(_told(message))
