"""Frames between the API process and a worker: msgpack, length-prefixed, typed, never pickle.

`Command`s go to the worker, `Report`s come back. A frame is a 4-byte little-endian length and a
msgpack body; what does not decode to one of these types is refused.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from inference.errors import BadRequest
from inference.gguf_format import Stamp
from inference.sequence import SamplingParams
from inference.types import (
    Constraint,
    FinishReason,
    Message,
    ModelInfo,
    Pooling,
    TokenLogprob,
    Tool,
)

MAX_FRAME = 32 << 20  # the largest accepted prompt, escaped, with room
DRAFTS = 16  # tokens guessed in a step
_ALL_LAYERS = 1000  # more than any model has: llama.cpp takes what there is
_LENGTH = struct.Struct("<I")


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a worker needs to load a model; `context` counts tokens over all slots.

    `gpu` is the CUDA device to use, as CUDA_VISIBLE_DEVICES spells it; empty leaves it open.
    `flash_attention=None` leaves the choice to llama.cpp. `unified` is the KV layout: one pool of
    cells for all slots, or one stream of `context / slots` for each. `joint` puts decodes and
    prefill chunks in one `llama_decode` call. `batch` bounds the tokens of a step: newcomers wait
    for its end, so it had better be short. `itl_target_ms` is the longest step wanted while
    anything decodes; None leaves it to the scheduler. `drafts` bounds the tokens guessed in a step,
    0 for no speculation; `draft` is the file of a model that guesses too, if there is one; the
    stamps are those of the files that were looked at, which are the ones to load; `host_cells` the
    KV cells kept in host memory when they had to leave the cache. A model with a `pooling` makes
    vectors and no answers; of `whole_inputs` none is longer than a batch.
    """

    name: str
    path: str
    context: int
    slots: int
    threads: int
    gpu: str = ""
    gpu_layers: int = 0
    kv_type: str = "f16"
    batch: int = 512
    itl_target_ms: float | None = None
    drafts: int = DRAFTS
    draft: str = ""
    stamp: Stamp | None = None
    draft_stamp: Stamp | None = None
    host_cells: int = 0
    flash_attention: bool | None = None
    unified: bool = False
    joint: bool = False
    pooling: Pooling = ""
    whole_inputs: bool = False

    @property
    def request_context(self) -> int:
        """Tokens that one request may use."""
        if self.whole_inputs:
            return min(self.context, self.batch)
        return self.context if self.unified else self.context // self.slots

    @property
    def tiled(self) -> bool:
        """Whether attention takes tokens by the tile, as flash attention does on a CPU."""
        return self.flash_attention is not False and not self.gpu_layers

    @property
    def for_draft(self) -> "EngineConfig":
        """The draft model's settings: it is on the GPU as a whole, if any layer of this one is."""
        layers = _ALL_LAYERS if self.gpu_layers else 0
        return msgspec.structs.replace(
            self, path=self.draft, stamp=self.draft_stamp, gpu_layers=layers
        )


class Load(msgspec.Struct, tag=True):
    config: EngineConfig


class Chat(msgspec.Struct, tag=True):
    """A conversation for the model's own template; of one that is `continued` the last message is
    the beginning of the answer."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    kwargs: dict[str, Any]
    continued: bool = False


class Text(msgspec.Struct, tag=True):
    text: str


class Tokens(msgspec.Struct, tag=True):
    ids: tuple[int, ...]


class Said(msgspec.Struct, array_like=True):
    """What a choice was given before its worker died: tokens, the text of which was passed on, and
    the seconds from the request to the first of them. One that has `ended` is not computed."""

    tokens: list[int] = []
    first_token: float = 0.0
    ended: bool = False


class Submit(msgspec.Struct, tag=True):
    """Start `n` choices, or go on with what was `said`; sampling is resolved, choice i draws with
    `seed + i`. `waited` are the seconds since the request came, from which `deadline` counts; KV
    cells are shared among requests of the same `salt` only."""

    id: int
    prompt: Chat | Text | Tokens
    sampling: SamplingParams
    constraint: Constraint | None = None
    parallel_calls: bool = True
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    thinking_budget: Annotated[int, Meta(ge=0)] | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    priority: Annotated[int, Meta(ge=-1, le=1)] = 0
    deadline: Annotated[float, Meta(gt=0)] | None = None
    salt: str = ""
    tenant: str = ""
    speculate: bool = True
    stop: tuple[Annotated[str, Meta(min_length=1)], ...] = ()
    stop_tokens: tuple[int, ...] = ()
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool = False
    n: Annotated[int, Meta(ge=1)] = 1
    waited: float = 0.0
    said: tuple[Said, ...] = ()


class Embed(msgspec.Struct, tag=True):
    """Make vectors of `inputs`, but not of those of which the vector was `said`. The rest is as in
    an EmbeddingRequest and in `Submit`."""

    id: int
    inputs: Annotated[tuple[str | tuple[int, ...], ...], Meta(min_length=1)]
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    truncate: bool = False
    normalised: bool = True
    deadline: Annotated[float, Meta(gt=0)] | None = None
    tenant: str = ""
    waited: float = 0.0
    said: tuple[Said, ...] = ()


class Count(msgspec.Struct, tag=True):
    """Tell how many tokens a prompt has, and what `wants` says beside that: which ones, or the text
    that they spell."""

    id: int
    prompt: Chat | Text | Tokens
    wants: Literal["", "tokens", "text"] = ""
    tenant: str = ""


class Cancel(msgspec.Struct, tag=True):
    id: int


class Stats(msgspec.Struct, array_like=True):
    """Gauges now and totals since the worker started."""

    waiting: int = 0
    running: int = 0
    cells: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    preemptions: int = 0
    drafted: int = 0
    accepted: int = 0


class Loaded(msgspec.Struct, tag=True):
    """The weights are in memory; next come the first calls of the model."""


class Ready(msgspec.Struct, tag=True):
    info: ModelInfo


class LoadFailed(msgspec.Struct, tag=True):
    message: str


class Accepted(msgspec.Struct, tag=True):
    """Answer to `Submit` and `Embed`; `thinking` says that the prompt ends inside a think block,
    `guided` that a call, once it has begun, is one of the tools with arguments that fit."""

    id: int
    prompt_tokens: int
    thinking: bool = False
    guided: bool = False


class Counted(msgspec.Struct, tag=True):
    """Answer to `Count`; what it did not want is empty."""

    id: int
    count: int
    tokens: list[int] = []
    text: str = ""


class Rejected(msgspec.Struct, tag=True):
    """The end of a request that cannot be served: the code of an `InferenceError`."""

    id: int
    code: str
    message: str
    field: str | None = None


class Begin(msgspec.Struct, tag=True):
    """Sent before a step that computes prompts: of these requests, in about so many seconds. Every
    request that is computed is in one of them."""

    ids: list[int]
    seconds: float


class Delta(msgspec.Struct, array_like=True):
    """The next text of a choice, and the tokens since the delta before it. Their log probabilities,
    where they are wanted, may be of text that is to come; the prompt's come with the first."""

    id: int
    index: int
    text: str
    tokens: list[int] = []
    logprobs: list[TokenLogprob] = []


class End(msgspec.Struct, array_like=True):
    """The last of a choice. Seconds count from the worker's intake of the request; `stop` is the
    stop string that was met, and `reasoning_tokens` of the completion are thoughts."""

    id: int
    index: int
    text: str
    reason: FinishReason
    completion_tokens: int
    cached_tokens: int
    queued: float
    first_token: float
    total: float
    stop: str = ""
    reasoning_tokens: int = 0
    logprobs: list[TokenLogprob] = []


class Vector(msgspec.Struct, array_like=True):
    """The vector of input `index`, as little-endian 32-bit floats."""

    id: int
    index: int
    data: bytes


class Step(msgspec.Struct, tag=True):
    """What one step of the model gave everybody."""

    deltas: list[Delta]
    ends: list[End]
    stats: Stats
    vectors: list[Vector] = []


Command = Load | Submit | Embed | Count | Cancel
Report = Loaded | Ready | LoadFailed | Accepted | Counted | Rejected | Begin | Step

_encoder = msgspec.msgpack.Encoder()
_commands = msgspec.msgpack.Decoder(Command)
_reports = msgspec.msgpack.Decoder(Report)


def frame(message: Command | Report) -> bytes:
    """`message` as it goes over the wire. Raises BadRequest if it is too large."""
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME:
        raise BadRequest(f"the request is larger than {MAX_FRAME >> 20} MiB")
    return _LENGTH.pack(len(body)) + body


class Channel:
    """The worker's blocking end; `send` may be called from several threads."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._reader = sock.makefile("rb", buffering=1 << 16)
        self._lock = threading.Lock()

    def close(self) -> None:
        """End the connection, and with it a `receive` that waits in another thread."""
        with contextlib.suppress(OSError):  # closed already, from either end
            self._socket.shutdown(socket.SHUT_RDWR)

    def send(self, report: Report) -> None:
        """Write one report. Raises OSError when the other end is gone."""
        data = frame(report)
        with self._lock:
            self._socket.sendall(data)

    def receive(self) -> Command | None:
        """The next command; None when the other end is gone."""
        head = self._reader.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            return None
        command: Command = _commands.decode(self._reader.read(_length(head)))
        return command


async def receive(reader: asyncio.StreamReader) -> Report | None:
    """The next report of a worker; None when it is gone. Raises ValueError if it is none."""
    try:
        head = await reader.readexactly(_LENGTH.size)
        report: Report = _reports.decode(await reader.readexactly(_length(head)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    except msgspec.DecodeError as error:
        raise ValueError(f"a frame cannot be read: {error}") from None
    return report


def _length(head: bytes) -> int:
    length: int = _LENGTH.unpack(head)[0]
    if length > MAX_FRAME:
        raise ValueError(f"a frame of {length} bytes is over the limit of {MAX_FRAME}")
    return length
