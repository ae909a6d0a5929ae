"""Whether an answer begins with thoughts: the one place that decides, for every dialect.

What a request says explicitly comes first, then the switch that people write into a conversation
(Qwen3's models heed it by themselves), then the model's default. Knows no wire shape and no tokens.
"""

import re

from inference.types import GenerationRequest, Message

_SWITCH = re.compile(r"(?<!\S)/(no_)?think(?![\w/-])")


def thinks(request: GenerationRequest, default: bool) -> bool:
    if request.thinking_budget == 0:
        return False
    if request.thinking is not None:
        return request.thinking
    written = _switched(request.messages)
    return default if written is None else written


def _switched(messages: tuple[Message, ...]) -> bool | None:
    """What the last `/think` or `/no_think` says: it holds until there is another."""
    for message in reversed(messages):
        if message.role in ("user", "system"):
            words = _SWITCH.findall(message.content) if "think" in message.content else ()
            if words:
                return not words[-1]
    return None
