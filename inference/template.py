"""Renders a conversation with the model's own chat template, in a sandbox.

User text can never become a control token: the text of one is broken up before rendering and
comes back as a `Segment` that must be tokenised as plain text. Knows no tokens.
"""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from inference.gguf_format import printable
from inference.types import BadModelFile, BadRequest, Message, Tool

_BREAK = "\ufdd0"  # a noncharacter: never part of interchanged text (Unicode 23.7)


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
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals |= {
            "raise_exception": _refuse,
            "strftime_now": lambda form: datetime.now().strftime(form),
            "bos_token": bos,
            "eos_token": eos,
        }
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
        self, messages: tuple[Message, ...], tools: tuple[Tool, ...], kwargs: dict[str, Any]
    ) -> Prompt:
        """The prompt of a conversation, ready for the assistant's turn.

        Raises BadRequest where the template refuses the conversation.
        """
        try:
            text = self._template.render(
                messages=[self._plain(_message(m)) for m in messages],
                tools=[self._plain(_tool(t)) for t in tools] or None,
                add_generation_prompt=True,
                **self._plain(kwargs),
            )
        except MemoryError:
            raise
        except Exception as error:  # a template is a program of its author: it may fail in any way
            raise BadRequest(
                f"the model's chat template refuses this conversation: {_said(error)}", "messages"
            ) from None
        parts = self._broken.split(text)
        segments = tuple(
            Segment(part.replace(_BREAK, ""), special=place % 2 == 0)
            for place, part in enumerate(parts)
            if part
        )
        return Prompt(segments, thinking=text.rstrip().endswith("<think>"))

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


def _tojson(value: Any, indent: int | None = None) -> str:
    """As transformers does it, so that a prompt is what the model was trained on."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _message(message: Message) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning:
        plain["reasoning_content"] = message.reasoning
    if message.tool_calls:
        plain["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    return plain


def _tool(tool: Tool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
    return {"type": "function", "function": function}
