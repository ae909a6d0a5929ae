"""What a model is shown of a session: a summary, and the messages after it. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from api.store.records import UNSAID, Agent, Message, Settings, Summary
from api.underlay import laid_under, of_agent
from inference import GenerationRequest, ToolCall
from inference import Message as Said


@dataclass(frozen=True, slots=True)
class Prompt:
    """The answer that is wanted to a `path` of messages, root first, of which `summary` stands for
    the first ones. What `settings` of its session and an `agent` say is laid under it."""

    request: GenerationRequest
    path: tuple[Message, ...]
    summary: Summary | None = None
    settings: Settings = UNSAID
    agent: Agent | None = None

    @property
    def recent(self) -> tuple[Message, ...]:
        """What is shown word for word."""
        return self.path[self.summed_up :]

    @property
    def summed_up(self) -> int:
        """How many messages the summary stands for."""
        if self.summary is None:
            return 0
        return 1 + [message.id for message in self.path].index(self.summary.upto)

    def asked(self) -> GenerationRequest:
        """The request with all its messages."""
        known = (Said("system", shown(self.summary)),) if self.summary else ()
        said = tuple(_said(message) for message in self.recent if _tells(message))
        request = replace(self.request, messages=(*known, *said))
        return of_agent(laid_under(request, self.settings), self.agent)


def shown(summary: Summary) -> str:
    """A summary as the model reads it, and as a person may."""
    facts = "".join(f"\n- {fact}" for fact in summary.facts)
    parts = ["The conversation before this was summed up."]
    if facts:
        parts.append(f"What is known from it:{facts}")
    if summary.content:
        parts.append(summary.content)
    return "\n\n".join(parts)


def latest(summaries: Iterable[Summary], path: Sequence[Message]) -> Summary | None:
    """That which stands for most of a path, but not for its end, which is to be answered; those of
    other branches do not count."""
    places = {message.id: place for place, message in enumerate(path[:-1])}
    found = [summary for summary in summaries if summary.upto in places]
    return max(found, key=lambda summary: places[summary.upto], default=None)


def _tells(message: Message) -> bool:
    """An answer that failed before its first word tells nothing."""
    return message.role != "assistant" or bool(message.content or message.tool_calls)


def _said(message: Message) -> Said:
    calls = tuple(ToolCall(call.id, call.name, call.arguments) for call in message.tool_calls)
    return Said(message.role, message.content, message.reasoning, calls, message.answers)
