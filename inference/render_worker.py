"""Renders conversations for a `Renderer`: `inference.render_worker FD SECONDS`, a socket there.

Compiling and rendering may take so long, so much memory and so much room; whoever wants more of
them dies. Ends with its socket. Knows no tokens.
"""

import signal
import socket
import sys

import msgspec

from inference.errors import InferenceError
from inference.renderer import (
    MEMORY,
    Compiled,
    Conversation,
    Refused,
    Rendered,
    Source,
    receive,
    room_for,
    seconds_for,
    send,
)
from inference.sandbox import confine, limit_cpu, limit_memory
from inference.template import ChatTemplate

_questions = msgspec.msgpack.Decoder(Source | Conversation)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started it
    confine()
    limit_memory(MEMORY)
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        serve(sock, float(sys.argv[2]))


def serve(sock: socket.socket, seconds: float) -> None:
    """Answer every question until the other end is gone."""
    template: ChatTemplate | None = None
    while (question := receive(sock, MEMORY)) is not None:
        limit_cpu(seconds_for(question, seconds))
        match _questions.decode(question):
            case Source() as source:
                template, answer = _compile(source)
            case conversation:
                answer = _render(template, conversation, room_for(question))
        limit_cpu(0)
        send(sock, answer)


def _compile(source: Source) -> tuple[ChatTemplate | None, bytes]:
    try:
        template = ChatTemplate(source.text, source.control_texts, source.bos, source.eos)
    except InferenceError as error:
        return None, msgspec.msgpack.encode(Refused(error.message))
    return template, msgspec.msgpack.encode(Compiled())


def _render(template: ChatTemplate | None, asked: Conversation, room: int) -> bytes:
    assert template, "a template comes first"
    try:
        prompt = template.render(asked.messages, asked.tools, asked.kwargs, asked.continued)
        segments = [(segment.text, segment.special) for segment in prompt.segments]
        answer = msgspec.msgpack.encode(Rendered(segments, prompt.thinking))
    except InferenceError as error:
        return msgspec.msgpack.encode(Refused(error.message))
    except UnicodeEncodeError:
        return _refused("writes what is no text")
    return answer if len(answer) <= room else _refused(f"writes more than {room:,} bytes")


def _refused(what: str) -> bytes:
    return msgspec.msgpack.encode(Refused(f"the model's chat template {what}"))
