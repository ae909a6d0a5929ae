"""Splits an answer into channels while it streams: content, reasoning, tool calls.

Qwen3 writes `<think>...</think>` at the start of an answer and `<tool_call>{json}</tool_call>`
(the Hermes format) in it. Law: however the text is cut, each channel's text is the same. A tool
call that is not valid JSON stays what it is: text. Where a grammar sees to it that it is valid, its
arguments are told as they come. Knows neither models nor HTTP.
"""

import json
import re
from dataclasses import dataclass, field

from inference.holdback import Holdback

_THINK, _END_THINK = "<think>", "</think>"
_CALL, _END_CALL = "<tool_call>", "</tool_call>"
_ARGUMENTS, _END_ARGUMENTS = ', "arguments": ', f"}}\n{_END_CALL}"  # as a grammar spells them
_QUOTES = re.compile(r'\\.|(")', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Text:
    """`start` is the character of the answer that it begins with; of thoughts too."""

    text: str
    start: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Reasoning:
    text: str
    start: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Call:
    """`arguments` is JSON text, or the beginning of it."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """More of the arguments of a call."""

    text: str


@dataclass(frozen=True, slots=True)
class _Opened:
    """A call without any arguments yet, and what it is as text."""

    name: str
    text: Text


Piece = Text | Reasoning | Call | Arguments


class StreamParser:
    """`feed` text as it comes, `finish` at the end; both give the pieces that are certain.

    `thinking` says that the prompt already opened the think block, `tools` that a tool call may
    come, `guided` that it is one if it does, `begun` what the answer goes on from; `either` that
    after text no call may follow, so that what looks like one is text. White space around think
    blocks and tool calls belongs to neither side.
    """

    def __init__(
        self,
        *,
        thinking: bool,
        tools: bool,
        guided: bool = False,
        begun: str = "",
        either: bool = False,
    ) -> None:
        self._text_markers = (_THINK, _CALL) if tools else (_THINK,)
        self._call_markers = (_ARGUMENTS,) if guided else (_END_CALL,)
        self._channel: type[Piece] = Text
        self._holdback = Holdback(self._text_markers)
        self._either = either
        self._answered = False  # there is text, and no call may follow
        self._said = False  # a think block can only come before anything else
        self._strip = False  # drop white space until there is text
        self._blank = ""  # white space that counts only if text follows
        self._call = ""
        self._opened: _Opened | None = None
        self._known = 0  # characters of a call that stand in what was begun
        self._passed = 0  # characters of the answer that are decided on
        if begun:
            self._begin(begun, thinking)
        elif thinking:
            self._switch(Reasoning, (_END_THINK,))

    def feed(self, text: str) -> list[Piece]:
        pieces: list[Piece] = []
        while True:
            released, marker = self._holdback.feed(text)
            self._passed += len(released)
            pieces += self._emit(released)
            if marker is None:
                return pieces
            self._passed += len(marker)
            text = self._holdback.flush()
            pieces += self._cross(marker)

    def finish(self) -> list[Piece]:
        """The end of the answer: what was held back is text after all."""
        held = self._holdback.flush()
        self._passed += len(held)
        if self._channel is Call:
            return [self._no_call(held)]
        pieces = self._emit(held)
        if self._channel is Arguments and self._opened:
            pieces.append(self._opened.text)
        if self._channel is Text and self._blank and not self._strip:
            pieces.append(self._ending(self._blank))
        return pieces

    def _emit(self, released: str) -> list[Piece]:
        if self._channel is Call:
            self._call += released
            return []
        if self._channel is Arguments:
            opened, self._opened = self._opened, None if released else self._opened
            piece = Call(opened.name, released) if opened else Arguments(released)
            return [piece] if released else []
        text = self._blank + released
        if self._strip:
            text = text.lstrip()
        body = text.rstrip()
        self._blank = text[len(body) :]
        if not body:
            return []
        self._said, self._strip = True, False
        start = self._passed - len(text)
        if self._channel is Reasoning:
            return [Reasoning(body, start)]
        self._answered = self._either
        return [Text(body, start)]

    def _cross(self, marker: str) -> list[Piece]:
        match marker:
            case "<think>" if self._said:
                return self._emit(marker)
            case "<tool_call>" if self._answered:
                return self._emit(marker)
            case "<think>":
                self._switch(Reasoning, (_END_THINK,))
            case "<tool_call>":
                blank = self._blank
                self._switch(Call, self._call_markers)
                self._blank = blank  # text again if the call is none
            case "</think>" | "}\n</tool_call>":
                self._switch(Text, self._text_markers)
            case ', "arguments": ':
                return self._begin_arguments()
            case "</tool_call>" if _in_a_string(self._call):
                self._call += marker  # of an argument
            case "</tool_call>":
                text = self._no_call(_END_CALL)
                call = _parse(self._call)
                self._switch(Text, self._text_markers)
                self._strip = call is not None
                return [call or text]
        return []

    def _begin_arguments(self) -> list[Piece]:
        """A call of which name and arguments are in order is told with the first of these."""
        call = _parse(f"{self._call}{_ARGUMENTS}{{}}}}")
        text = self._no_call(_ARGUMENTS)
        if call is None:
            self._switch(Text, self._text_markers)
            self._strip = False
            return [text]
        self._switch(Arguments, (_END_ARGUMENTS,))
        self._opened = _Opened(call.name, text)
        return []

    def _begin(self, begun: str, thinking: bool) -> None:
        """Get to where `begun` ends. Clients may write tags by the million: only the last count.
        Thoughts that it leaves open were closed in the prompt unless it is `thinking`."""
        text, self._said = begun, bool(begun.strip())
        if begun.lstrip().startswith(_THINK):
            thought, closed, text = begun.partition(_END_THINK)
            if thinking and not closed:
                self._switch(Reasoning, (_END_THINK,))
                self._strip = thought.strip() == _THINK
                return
        start = text.find(_CALL, text.rfind(_END_CALL) + 1)
        if start >= 0 and _CALL in self._text_markers:
            self._switch(Call, (_END_CALL,))
            call = text[start + len(_CALL) :]
            self.feed(call)
            self._passed -= len(call)
            self._known = len(text) - start
        else:
            nothing_since = not text.strip() and text is not begun
            self._strip = nothing_since or text.rstrip().endswith(_END_CALL)

    def _no_call(self, end: str) -> Text:
        """What was taken for a call up to its `end`, as text."""
        text, self._known = (self._blank + _CALL + self._call + end)[self._known :], 0
        return self._ending(text)

    def _ending(self, text: str) -> Text:
        """`text` that ends with what is decided on."""
        return Text(text, self._passed - len(text))

    def _switch(self, channel: type[Piece], markers: tuple[str, ...]) -> None:
        self._channel, self._holdback = channel, Holdback(markers)
        self._said = self._strip = True
        self._blank = self._call = ""


def _parse(text: str) -> Call | None:
    """A Hermes tool call: `{"name": ..., "arguments": {...}}`, of what JSON can say."""
    try:
        match json.loads(text):
            case {"name": str(name), "arguments": dict(arguments)} if name:
                said = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
                (name + said).encode()  # half a surrogate pair is no text
                return Call(name, said)
    except (ValueError, RecursionError):
        pass
    return None


def _in_a_string(text: str) -> bool:
    """Whether JSON that begins like this is in the middle of a string."""
    return _QUOTES.findall(text).count('"') % 2 == 1
