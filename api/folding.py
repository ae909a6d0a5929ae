"""Puts an answer together that is told as a whole, not streamed. Knows no dialect."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from inference import (
    Finished,
    GenerationEvent,
    ReasoningDelta,
    Started,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One choice, whole; `calls` by their position."""

    end: Finished
    text: str
    reasoning: str
    calls: tuple[ToolCall, ...]
    logprobs: tuple[TokenLogprob, ...]


def answers(events: Iterable[GenerationEvent]) -> list[Answer]:
    """The choices by their index, each of which has ended."""
    of: defaultdict[int, list[GenerationEvent]] = defaultdict(list)
    for event in events:
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
