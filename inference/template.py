"""Renders a conversation with the model's own chat template, in a sandbox.

What a template is given and how it is run follows transformers' `apply_chat_template`, with one
exception: user text can never become a control token. The text of one is broken up before rendering
and comes back as a `Segment` that must be tokenised as plain text. Knows no tokens.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from inference.errors import BadModelFile, BadRequest
from inference.gguf_format import printable
from inference.types import Message, Tool, ToolCall

_BREAK = "\ufdd0"  # a noncharacter: never part of interchanged text (Unicode 23.7)
_END = 2 * _BREAK  # of a message that is continued; whether a space follows tells who strips it
_OPEN, _CLOSE = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of prompt; control tokens count as such only where `special`."""

    text: str
    special: bool


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt; `thinking` says that it ends inside an open think block."""

    segments: tuple[Segment, ...]
    thinking: bool


class ChatTemplate:
    """A compiled template; `control_texts` are the written forms of the control tokens.

    Raises BadModelFile where it does not compile. Templates can take any time and memory: let
    another process be the one that runs out of them.
    """

    def __init__(self, source: str, control_texts: tuple[str, ...], bos: str, eos: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals |= {"raise_exception": _refuse, "strftime_now": _strftime_now}
        self._tokens = {k: v for k, v in (("bos_token", bos), ("eos_token", eos)) if v}
        try:
            self._template = environment.from_string(source)
        except MemoryError:
            raise
        except Exception as error:  # whatever its author made the compiler run into
            raise BadModelFile(f"its chat template does not compile: {_said(error)}") from None
        controls = "|".join(re.escape(t) for t in control_texts if len(t) > 1)
        self._control = re.compile(controls or r"(?!)")
        broken = "|".join(re.escape(_break(t)) for t in control_texts if len(t) > 1)
        self._broken = re.compile(f"({broken})" if broken else r"((?!))")

    def render(
        self,
        messages: tuple[Message, ...],
        tools: tuple[Tool, ...],
        kwargs: dict[str, Any],
        continued: bool = False,
    ) -> Prompt:
        """The prompt of a conversation, ready for the assistant's turn, or, if `continued`, for the
        rest of the last message.

        Raises BadRequest where the template refuses the conversation.
        """
        rest = (tools, kwargs, continued)
        try:
            try:
                text = self._text([_message(m, _arguments) for m in messages], *rest)
            except TypeError:  # it joins arguments to a text, as some older templates do
                text = self._text([_message(m, str) for m in messages], *rest)
        except (MemoryError, BadRequest):
            raise
        except Exception as error:  # a template is a program of its author: it may fail in any way
            raise BadRequest(
                f"the model's chat template refuses this conversation: {_said(error)}", "messages"
            ) from None
        thinking = _opens(messages[-1].content) if continued else text.rstrip().endswith(_OPEN)
        return Prompt(self._segments(text), thinking)

    def _text(
        self,
        messages: list[dict[str, Any]],
        tools: tuple[Tool, ...],
        kwargs: dict[str, Any],
        continued: bool,
    ) -> str:
        plain = [self._plain(message) for message in messages]
        last = plain[-1]["content"] if continued else ""
        if continued:
            plain[-1]["content"] += f"{_END} "
        text = self._template.render(
            self._tokens
            | {"documents": None}
            | self._plain(kwargs)
            | {
                "messages": plain,
                "tools": [self._plain(_tool(t)) for t in tools] or None,
                "add_generation_prompt": not continued,
            }
        )
        return _until_the_end(text, last.strip()) if continued else text

    def _segments(self, text: str) -> tuple[Segment, ...]:
        return tuple(
            Segment(part.replace(_BREAK, ""), special=place % 2 == 0)
            for place, part in enumerate(self._broken.split(text))
            if part
        )

    def _plain(self, value: Any) -> Any:
        """`value` with every control token in its texts broken up."""
        match value:
            case str():
                return self._control.sub(
                    lambda found: _break(found.group()), value.replace(_BREAK, "\ufffd")
                )
            case dict():
                return {self._plain(key): self._plain(item) for key, item in value.items()}
            case list():
                return [self._plain(item) for item in value]
        return value


def _break(text: str) -> str:
    return text[0] + _BREAK + text[1:]


def _said(error: Exception) -> str:
    return printable(" ".join(str(error).split()) or type(error).__name__, most=300)


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


class _Generation(Extension):
    """`{% generation %}`: for training it marks what the assistant says, here it is a scope."""

    tags = {"generation"}  # noqa: RUF012 (jinja's own type)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), True)).set_lineno(line)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers does it, so that a prompt is what the model was trained on."""
    text = json.dumps(
        value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys
    )
    # What keeps control tokens apart stays itself, or they would not be found again.
    return re.sub(f"[^\0-~{_BREAK}]", _escaped, text) if ensure_ascii else text


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found.group())[1:-1]


def _until_the_end(text: str, last: str) -> str:
    """`text` up to the end of its last message. Raises BadRequest if that is not all in it."""
    before, found, after = text.rpartition(_END)
    if not found or last not in before:
        raise BadRequest(
            "the model's chat template changes the last message, so that it cannot be continued",
            "messages",
        )
    before = before.replace(f"{_END} ", "")  # it may say the message twice
    return before if after.startswith(" ") else before.rstrip()


def _opens(text: str) -> bool:
    """Whether an answer that begins so is still in its thoughts, which come before all else."""
    return text.lstrip().startswith(_OPEN) and _CLOSE not in text


def _message(message: Message, arguments: Callable[[str], Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning:
        plain["reasoning_content"] = plain["thinking"] = message.reasoning
    if message.tool_calls:
        plain["tool_calls"] = [_call(call, arguments) for call in message.tool_calls]
    if message.answers:
        plain["tool_call_id"] = message.answers
    if message.name:
        plain["name"] = message.name
    return plain


def _call(call: ToolCall, arguments: Callable[[str], Any]) -> dict[str, Any]:
    function = {"name": call.name, "arguments": arguments(call.arguments)}
    return ({"id": call.id} if call.id else {}) | {"type": "function", "function": function}


def _arguments(text: str) -> Any:
    """The object that `text` is, to be written as in training; else the text."""
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()  # not if it holds half of a surrogate pair
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def _tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": tool.written or function}
