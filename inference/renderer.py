"""Renders conversations in a process of their own, which is ended where a template goes astray.

A template that behaves when it is tried can still explode on some conversation: that one is then
refused, and a new process renders the next one. Knows no tokens.
"""

import contextlib
import socket
import struct
import subprocess
from typing import Any

import msgspec

from inference.errors import BadModelFile, BadRequest
from inference.sandbox import command, environment
from inference.template import Prompt, Segment
from inference.types import Message, Tool

MEMORY = 512 << 20  # bytes, beside what Python itself needs
_SECONDS = 2.0  # of computing
_SECONDS_PER_MIB = 2.0  # more: 4 MiB of control tokens take 2
_PATIENCE = 5.0  # times as long may pass on a busy box
_LONGEST_START = 30.0  # seconds, for the process
_LENGTH = struct.Struct("<I")


class Source(msgspec.Struct, tag=True):
    """A template to compile; meanings as in ChatTemplate."""

    text: str
    control_texts: tuple[str, ...]
    bos: str
    eos: str


class Conversation(msgspec.Struct, tag=True):
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    kwargs: dict[str, Any]
    continued: bool = False


class Compiled(msgspec.Struct, tag=True):
    pass


class Rendered(msgspec.Struct, tag=True):
    """A `Prompt`: its segments are texts, and whether control tokens count there."""

    segments: list[tuple[str, bool]]
    thinking: bool


class Refused(msgspec.Struct, tag=True):
    message: str


_answers = msgspec.msgpack.Decoder(Compiled | Rendered | Refused)


class Renderer(contextlib.AbstractContextManager["Renderer"]):
    """The process, started when the context is entered; `use` gives it the template.

    `seconds` are what rendering some words may take.
    """

    def __init__(self, seconds: float = _SECONDS) -> None:
        self._seconds = seconds
        self._source: Source | None = None
        self._compiled = False

    def __enter__(self) -> "Renderer":
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        with self._process as process:  # waits for it
            process.kill()

    def use(self, source: Source) -> None:
        """Compile a template. Raises BadModelFile."""
        self._source = source
        answer = self._ask(source, _LONGEST_START)
        if isinstance(answer, Refused):
            raise BadModelFile(f"The model cannot be used: {answer.message}.")
        self._compiled = isinstance(answer, Compiled)
        if not self._compiled:
            raise BadModelFile(
                "The model cannot be used: compiling its chat template takes too long or too much "
                "memory."
            )

    def render(
        self,
        messages: tuple[Message, ...],
        tools: tuple[Tool, ...],
        kwargs: dict[str, Any],
        continued: bool = False,
    ) -> Prompt:
        """As `ChatTemplate.render`, in bounded time and memory. Raises BadRequest."""
        if self._process.poll() is not None:  # it was ended by somebody else
            self._restart()
        if not self._compiled:
            assert self._source, "`use` comes first"
            self.use(self._source)
        match self._ask(Conversation(messages, tools, kwargs, continued)):
            case Rendered(segments, thinking):
                return Prompt(tuple(Segment(*segment) for segment in segments), thinking)
            case Refused(message):
                raise BadRequest(message, "messages")
        raise BadRequest(
            "the model's chat template takes too long or too much memory for this conversation",
            "messages",
        )

    def _ask(
        self, question: Source | Conversation, more: float = 0
    ) -> Compiled | Rendered | Refused | None:
        """The answer; None, and a new process, where there is none. `more` seconds may pass."""
        body = msgspec.msgpack.encode(question)
        self._socket.settimeout(more + _PATIENCE * seconds_for(body, self._seconds))
        try:
            send(self._socket, body)
            answer = receive(self._socket, room_for(body))
        except OSError:
            answer = None
        if answer is None:
            self._restart()
            return None
        decoded: Compiled | Rendered | Refused = _answers.decode(answer)
        return decoded

    def _restart(self) -> None:
        self.__exit__()
        self._compiled = False
        self._start()

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                command("inference.render_worker", str(theirs.fileno()), str(self._seconds)),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment(),
            )


def seconds_for(question: bytes, least: float) -> float:
    """Seconds of computing that answering may take."""
    return least + _SECONDS_PER_MIB * len(question) / (1 << 20)


def room_for(question: bytes) -> int:
    """Bytes that the answer may have."""
    return 4 * len(question) + (1 << 20)


def send(sock: socket.socket, body: bytes) -> None:
    """Raises OSError."""
    sock.sendall(_LENGTH.pack(len(body)) + body)


def receive(sock: socket.socket, most: int) -> bytes | None:
    """The next frame; None when the other end is gone or claims more bytes. Raises OSError."""
    head = _exactly(sock, _LENGTH.size)
    if not head or (length := _LENGTH.unpack(head)[0]) > most:
        return None
    return _exactly(sock, length)


def _exactly(sock: socket.socket, count: int) -> bytes | None:
    read = bytearray()
    while len(read) < count:
        piece = sock.recv(min(count - len(read), 1 << 20))
        if not piece:
            return None
        read += piece
    return bytes(read)
