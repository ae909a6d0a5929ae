"""A generation as a response: the events of a stream, item by item, or the whole.

A stream is `response.created` and `response.in_progress`, the items one after the other, and the
whole once more with how it ended. Text comes in deltas between the start and the end of its part,
and that, like the arguments of a call, between the start and the end of its item.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from api.dialect import COMMENT, Problem
from api.openai.replies import Head
from api.openai.responses import wire
from api.openai.responses.wire import (
    ArgumentsDone,
    Completed,
    Created,
    Echo,
    Event,
    Failed,
    Failure,
    FunctionCall,
    Incomplete,
    IncompleteDetails,
    InProgress,
    ItemAdded,
    ItemDone,
    OutputItem,
    OutputMessage,
    OutputText,
    Progress,
    Reasoning,
    ReasoningText,
    ResponseOut,
    ResponseUsage,
    Status,
    SummaryText,
    framed,
    item_id,
)
from inference import (
    ArgumentsDelta,
    Finished,
    GenerationEvent,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCall,
    ToolCallDelta,
)


@dataclass(frozen=True, slots=True)
class Channel:
    """Where a kind of text stands, a `part` in a list of an `item`, and the events that tell it."""

    prefix: str
    item: type[OutputMessage] | type[Reasoning]
    part: type[OutputText] | type[ReasoningText] | type[SummaryText]
    place: str
    begins: Callable[..., Event]
    grows: Callable[..., Event]
    says: Callable[..., Event]
    ends: Callable[..., Event]


_TEXT: Final = Channel(
    "msg",
    OutputMessage,
    OutputText,
    "content",
    wire.PartAdded,
    wire.TextDelta,
    wire.TextDone,
    wire.PartDone,
)
_THOUGHTS: Final = Channel(
    "rs",
    Reasoning,
    ReasoningText,
    "content",
    wire.PartAdded,
    wire.ReasoningDelta,
    wire.ReasoningDone,
    wire.PartDone,
)
_SUMMARY: Final = Channel(
    "rs",
    Reasoning,
    SummaryText,
    "summary",
    wire.SummaryPartAdded,
    wire.SummaryDelta,
    wire.SummaryDone,
    wire.SummaryPartDone,
)


@dataclass(slots=True)
class _Open:
    """An item to which text is being added; without a `channel` it is the arguments of a call."""

    item: OutputItem
    channel: Channel | None = None
    texts: list[str] = field(default_factory=list)


def forget(_: ResponseOut) -> None:
    """What becomes of a response that is not stored."""


class Encoder:
    """Writes the events of one request. Thoughts are a `summary` if one was asked for.

    `namespaces` are the names of the tools that have one, as the model sees them, and what the
    client calls them. `keep` is given what has ended, before the client is.
    """

    def __init__(
        self,
        head: Head,
        echo: Echo,
        *,
        summary: bool = False,
        namespaces: Mapping[str, tuple[str, str]] | None = None,
        keep: Callable[[ResponseOut], None] = forget,
    ) -> None:
        self._head = head
        self._echo: dict[str, Any] = msgspec.structs.asdict(echo)
        self._thoughts = _SUMMARY if summary else _THOUGHTS
        self._namespaces = namespaces or {}
        self._keep = keep
        self._number = 0
        self._output: list[OutputItem] = []
        self._open: _Open | None = None
        self._whole = self._response("in_progress")

    def encode(self, event: GenerationEvent) -> list[bytes]:
        match event:
            case TextDelta(text=text):
                return self._text(_TEXT, text)
            case ReasoningDelta(text=text):
                return self._text(self._thoughts, text)
            case ToolCallDelta(call=call):
                return [*self._close("completed"), *self._call(call)]
            case ArgumentsDelta(text=text):
                return [self._add(wire.ArgumentsDelta, text)]
            case Started():
                return [self._say(kind, response=self._whole) for kind in (Created, InProgress)]
            case Finished():
                return self._end(event)

    def close(self) -> list[bytes]:
        """Nothing comes after the end of a response."""
        return []

    def fold(self, events: list[GenerationEvent]) -> bytes:
        for event in events:
            self.encode(event)
        return msgspec.json.encode(self._whole)

    def ping(self) -> bytes:
        """What a quiet stream carries: clients such as Codex do not see comments. It is none of the
        events that are numbered, and has the number of the last."""
        if self._whole.status != "in_progress":
            return COMMENT
        return framed(InProgress(sequence_number=max(0, self._number - 1), response=self._whole))

    def broken(self, problem: Problem) -> list[bytes]:
        """The end of a stream that fails."""
        frames = self._close("incomplete")
        self._whole = self._response("failed", error=_failure(problem))
        return [*frames, self._say(Failed, response=self._whole)]

    def _end(self, end: Finished) -> list[bytes]:
        """Clients look for a message: an answer of nothing at all is an empty one."""
        cut = end.reason == "length"
        frames = [] if self._output or self._open else self._begin(_TEXT)
        frames += self._close("incomplete" if cut else "completed")
        self._whole = self._response(
            "incomplete" if cut else "completed",
            usage=ResponseUsage.of(end.usage),
            incomplete_details=IncompleteDetails("max_output_tokens") if cut else None,
        )
        self._keep(self._whole)
        return [*frames, self._say(Incomplete if cut else Completed, response=self._whole)]

    def _text(self, channel: Channel, text: str) -> list[bytes]:
        frames = []
        if self._open is None or self._open.channel is not channel:
            frames = [*self._close("completed"), *self._begin(channel)]
        return [*frames, self._add(channel.grows, text)]

    def _add(self, kind: Callable[..., Event], text: str) -> bytes:
        assert self._open
        self._open.texts.append(text)
        return self._inside(kind, delta=text)

    def _begin(self, channel: Channel) -> list[bytes]:
        item = channel.item(self._id(channel.prefix), "in_progress")
        added = self._added(_Open(item, channel))
        return [added, self._inside(channel.begins, part=channel.part(""))]

    def _call(self, call: ToolCall) -> list[bytes]:
        namespace, name = self._namespaces.get(call.name, ("", call.name))
        item = FunctionCall(self._id("fc"), call.id, name, "", "in_progress", namespace)
        added = self._added(_Open(item))
        return [added, self._add(wire.ArgumentsDelta, call.arguments or "{}")]

    def _added(self, opened: _Open) -> bytes:
        self._open = opened
        return self._say(ItemAdded, output_index=len(self._output), item=opened.item)

    def _close(self, status: Progress) -> list[bytes]:
        if self._open is None:
            return []
        item, channel, text = self._open.item, self._open.channel, "".join(self._open.texts)
        if channel is None:
            assert isinstance(item, FunctionCall)
            frames = [self._inside(ArgumentsDone, name=item.name, arguments=text)]
            item.arguments = text
        else:
            part = channel.part(text)
            frames = [self._inside(channel.says, text=text), self._inside(channel.ends, part=part)]
            getattr(item, channel.place).append(part)
        self._open = None
        return [*frames, self._done(item, status)]

    def _done(self, item: OutputItem, status: Progress) -> bytes:
        item.status = status
        self._output.append(item)
        return self._say(ItemDone, output_index=len(self._output) - 1, item=item)

    def _inside(self, kind: Callable[..., Event], **about: Any) -> bytes:
        """An event of the item that is open, and of its one part, if it has any."""
        assert self._open
        if channel := self._open.channel:
            about[f"{channel.place}_index"] = 0
        index = len(self._output)
        return self._say(kind, item_id=self._open.item.id, output_index=index, **about)

    def _say(self, kind: Callable[..., Event], **about: Any) -> bytes:
        event = kind(sequence_number=self._number, **about)
        self._number += 1
        return framed(event)

    def _id(self, prefix: str) -> str:
        return item_id(prefix, self._head.id, str(len(self._output)))

    def _response(self, status: Status, **how: Any) -> ResponseOut:
        head = self._head
        return ResponseOut(
            **self._echo,
            id=head.id,
            created_at=head.created,
            model=head.model,
            status=status,
            output=self._output,
            **how,
        )


def _failure(problem: Problem) -> Failure:
    """The codes are the few that clients know; the message says what it was."""
    match problem.status:
        case 400:
            return Failure("invalid_prompt", problem.message)
        case 429:
            return Failure("rate_limit_exceeded", problem.message)
    return Failure("server_error", problem.message)
