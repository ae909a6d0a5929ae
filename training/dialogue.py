"""The values of the corpus: one exchange, one dialogue, and the text that the network reads.

The text comes from the very template that ships in the file, so training equals inference.
"""

import json
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from zlib import crc32

from jinja2.sandbox import ImmutableSandboxedEnvironment

Message = dict[str, Any]
TEMPLATE = Path(__file__).with_name("template.jinja")
HELD_OUT_SHARE = 40


@dataclass(frozen=True)
class Exchange:
    """One question of a person and its answer.

    `steps` are the tool calls and results between the two. `key` is what makes the question the
    same question; by default its text. `closed` marks small fixed sets that are learned whole, and
    `aloud` those thoughts that belong into the answer when thinking is off.
    """

    ability: str
    user: str
    answer: str
    thought: str
    key: str = ""
    closed: bool = False
    aloud: bool = False
    tools: tuple[Message, ...] = ()
    steps: tuple[Message, ...] = ()
    system: str = ""

    @property
    def held_out(self) -> bool:
        return not self.closed and crc32((self.key or self.user).encode()) % HELD_OUT_SHARE == 0

    def reply(self, thinking: bool) -> str:
        return f"{self.thought} {self.answer}" if self.aloud and not thinking else self.answer


# Exchanges that belong together, in order; the last one is the one to be answered.
Scene = tuple[Exchange, ...]


@dataclass(frozen=True)
class Dialogue:
    """Messages up to one assistant message, which is the one to be generated."""

    ability: str
    messages: tuple[Message, ...]
    thinking: bool
    tools: tuple[Message, ...] = field(default=())

    @cached_property
    def prompt(self) -> str:
        return render(self.messages[:-1], self.tools, self.thinking)

    @cached_property
    def completion(self) -> str:
        """What follows the prompt, think block and end of turn included."""
        whole = render(self.messages, self.tools, self.thinking, ask=False)
        prompt = self.prompt
        assert whole.startswith(prompt), (prompt, whole)
        return whole[len(prompt) :].removesuffix("\n")


@cache
def compiled() -> Any:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8"))


def render(
    messages: tuple[Message, ...] | list[Message],
    tools: tuple[Message, ...] | list[Message] = (),
    thinking: bool = True,
    ask: bool = True,
) -> str:
    """The prompt text; `ask` opens the turn of the assistant."""
    options = {} if thinking else {"enable_thinking": False}
    return str(
        compiled().render(
            messages=list(messages), tools=list(tools), add_generation_prompt=ask, **options
        )
    )
