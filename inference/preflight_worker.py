"""Looks at a model file and tries its chat template: `inference.preflight_worker PATH SECONDS`.

Writes a line of JSON for each of the two; what is missing took too long or too much memory. A
throw-away process, because a file can be made to do harm. Knows no llama.cpp.
"""

import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import msgspec

from inference.errors import BadModelFile, BadRequest, InferenceError
from inference.gguf_header import read_header
from inference.preflight import MEMORY, OUT_OF_MEMORY, Finding
from inference.sandbox import confine, limit_cpu, limit_memory
from inference.template import ChatTemplate
from inference.types import Message, Tool, ToolCall

_LONGEST_PROMPT = 1 << 20  # characters, of a conversation of some words

_USER = Message("user", "What is the weather in Paris?")
_CALL = ToolCall("call-1", "weather", '{"city": "Paris"}')
_TOOL = Tool("weather", "The weather of a city.", {"type": "object", "properties": {"city": {}}})
_CONVERSATIONS = (
    (_USER,),
    (Message("system", "Be brief."), _USER, Message("assistant", "Mild.", "It is May."), _USER),
    (_USER, Message("assistant", "", tool_calls=(_CALL,)), Message("tool", "18 degrees")),
)


def main() -> None:
    confine()
    limit_memory(MEMORY)
    path = Path(sys.argv[1])
    try:
        for finding in look(path, float(sys.argv[2])):
            _tell(finding)
    except InferenceError as error:
        _tell(Finding(refusal=error.message))
    except MemoryError:
        sys.exit(OUT_OF_MEMORY)


def look(path: Path, seconds: float) -> Iterator[Finding]:
    """What is in the file at `path`, and then that its template does no harm to a conversation
    of some words within so many seconds. Raises BadModelFile."""
    header = read_header(path)
    yield Finding(header)
    limit_cpu(seconds)
    if header.chat_template:
        try_template(header.chat_template, path)
    yield Finding()


def try_template(source: str, path: Path) -> None:
    """Compile a template and render with it; it may refuse. Raises BadModelFile."""
    try:
        template = ChatTemplate(source, (), "", "")
    except BadModelFile as error:
        raise BadModelFile(f"{path} cannot be used: {error.message}.") from None
    for messages, tools, thinking in product(_CONVERSATIONS, ((), (_TOOL,)), (True, False)):
        try:
            prompt = template.render(messages, tools, {"enable_thinking": thinking})
        except BadRequest:
            continue
        if sum(len(segment.text) for segment in prompt.segments) > _LONGEST_PROMPT:
            raise BadModelFile(
                f"{path} cannot be used: its chat template makes more than {_LONGEST_PROMPT:,} "
                "characters of a few words."
            )


def _tell(finding: Finding) -> None:
    print(msgspec.json.encode(finding, enc_hook=str).decode(), flush=True)
