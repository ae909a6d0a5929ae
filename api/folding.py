"""Puts together what is told as a whole: an answer that is not streamed, a call, its arguments.
Knows no dialect."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated

import msgspec

from inference import (
    ArgumentsDelta,
    Finished,
    GenerationEvent,
    ReasoningDelta,
    Started,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
)

JsonObject = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object"})]


@dataclass(frozen=True, slots=True)
class Answer:
    """One choice, whole; `calls` by their position."""

    end: Finished
    text: str
    reasoning: str
    calls: tuple[ToolCall, ...]
    logprobs: tuple[TokenLogprob, ...]


def with_whole_calls(events: Iterable[GenerationEvent]) -> Iterator[GenerationEvent]:
    """The events, but all of a call's arguments come with it."""
    events = [*events]
    more: defaultdict[tuple[int, int], str] = defaultdict(str)
    for event in events:
        if isinstance(event, ArgumentsDelta):
            more[event.index, event.position] += event.text
    for event in events:
        if isinstance(event, ToolCallDelta):
            yield extended(event, more[event.index, event.position])
        elif not isinstance(event, ArgumentsDelta):
            yield event


def extended(event: ToolCallDelta, more: str) -> ToolCallDelta:
    """The call, with more of its arguments."""
    return replace(event, call=replace(event.call, arguments=event.call.arguments + more))


def arguments_of(call: ToolCall) -> msgspec.Raw:
    """The arguments of a call as JSON; an empty object if they were cut off."""
    try:
        return msgspec.json.decode(call.arguments, type=msgspec.Raw)
    except msgspec.DecodeError:
        return msgspec.Raw(b"{}")


def answers(events: Iterable[GenerationEvent]) -> list[Answer]:
    """The choices by their index, each of which has ended."""
    of: defaultdict[int, list[GenerationEvent]] = defaultdict(list)
    for event in with_whole_calls(events):
        if not isinstance(event, Started):
            of[event.index].append(event)
    return [_answer(of[index]) for index in sorted(of)]


def _answer(events: list[GenerationEvent]) -> Answer:
    [end] = [event for event in events if isinstance(event, Finished)]
    texts = [event for event in events if isinstance(event, TextDelta)]
    return Answer(
        end,
        "".join(event.text for event in texts),
        "".join(event.text for event in events if isinstance(event, ReasoningDelta)),
        tuple(event.call for event in events if isinstance(event, ToolCallDelta)),
        tuple(logprob for event in texts for logprob in event.logprobs),
    )
