"""Frames: what was sent arrives however it is cut, and nothing else gets through."""

import asyncio
import socket
import struct
from contextlib import suppress
from itertools import pairwise

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inference.errors import BadRequest
from inference.sequence import SamplingParams
from inference.types import Message, ModelInfo, Tool
from inference.wire import (
    MAX_FRAME,
    Accepted,
    Cancel,
    Channel,
    Chat,
    Count,
    Counted,
    Delta,
    End,
    EngineConfig,
    Load,
    LoadFailed,
    Ready,
    Rejected,
    Stats,
    Step,
    Submit,
    Text,
    Tokens,
    frame,
    receive,
)

BAD_FRAME = (ValueError, msgspec.DecodeError)
MESSAGES = (Message("user", "Hi"),)
PROMPTS = (
    Chat(MESSAGES, (Tool("f", "", {"type": "object"}),), {"a": 1}),
    Text("Hi"),
    Tokens((1, 2)),
)
COMMANDS = [
    Load(EngineConfig(name="m", path="m.gguf", context=64, slots=1, threads=1)),
    *(
        Submit(
            id=1,
            prompt=prompt,
            sampling=SamplingParams(seed=2**64 - 1),
            deadline=1.5,
            stop=("x",),
            n=2,
        )
        for prompt in PROMPTS
    ),
    *(Count(1, prompt, "tokens", "ada") for prompt in PROMPTS),
    Cancel(2**63),
]
REPORTS = [
    Ready(ModelInfo("m", "qwen3", 64, 1, 100, 1000, 2000)),
    LoadFailed("no such file"),
    Accepted(1, 7, False),
    Counted(1, 2, [5, 6], "Hé"),
    Rejected(1, "invalid_value", "n: too large", "n"),
    Step([Delta(1, 0, "Hél\0lo")], [End(1, 0, "", "stop", 2, 0, 0.0, 0.1, 0.2)], Stats(waiting=1)),
]


async def _received(pieces):
    """The reports in a stream that comes in `pieces`, and then ends."""
    reader = asyncio.StreamReader()
    for piece in pieces:
        reader.feed_data(piece)
    reader.feed_eof()
    found = []
    while (report := await receive(reader)) is not None:
        found.append(report)
    return found


def received(*pieces):
    return asyncio.run(_received(pieces))


def taken(content):
    """The commands in a stream that a worker reads, until it ends."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(theirs)
        ours.sendall(content)
        ours.shutdown(socket.SHUT_WR)
        found = []
        while (command := channel.receive()) is not None:
            found.append(command)
        return found


@given(st.lists(st.sampled_from(REPORTS), max_size=5), st.lists(st.floats(0, 1), max_size=9))
def test_reports_arrive_however_the_stream_is_cut(reports, cuts):
    stream = b"".join(map(frame, reports))
    edges = [0, *sorted(int(cut * len(stream)) for cut in cuts), len(stream)]
    assert received(*(stream[a:b] for a, b in pairwise(edges))) == reports


def test_commands_arrive():
    assert taken(b"".join(map(frame, COMMANDS))) == COMMANDS


@given(st.sampled_from(REPORTS), st.floats(0, 0.999))
def test_a_worker_that_is_gone_in_the_middle_of_a_frame_is_gone(report, kept):
    whole = frame(report)
    assert received(frame(REPORTS[0]), whole[: int(kept * len(whole))]) == REPORTS[:1]


def damaged(messages):
    """Frames of `messages` with an honest length and other bytes within."""
    bodies = st.sampled_from([frame(message)[4:] for message in messages])
    places = st.lists(st.tuples(st.floats(0, 0.999), st.binary(max_size=3)), max_size=4)
    return st.builds(_damaged, bodies, places) | st.binary(max_size=40)


def _damaged(body, changes):
    for place, found in changes:
        at = int(place * len(body))
        body = body[:at] + found + body[at + len(found) + len(found) // 3 :]
    return body


def with_length(body):
    return struct.pack("<I", len(body)) + body


@given(st.lists(damaged(REPORTS), max_size=3), st.binary(max_size=9))
@example([b"\xdd\xff\xff\xff\xff"], b"")  # an array that claims 2**32 elements
@example([b"\xc6\xff\xff\xff\xff"], b"")  # bytes that claim as many
def test_any_bytes_from_a_worker_are_reports_or_a_clear_error(bodies, rest):
    with suppress(*BAD_FRAME):
        for report in received(*map(with_length, bodies), rest):
            assert frame(report)


@given(st.lists(damaged(COMMANDS), max_size=3), st.binary(max_size=9))
@example([b"\xdd\xff\xff\xff\xff"], b"")
def test_any_bytes_for_a_worker_are_commands_or_a_clear_error(bodies, rest):
    with suppress(*BAD_FRAME):
        for command in taken(b"".join(map(with_length, bodies)) + rest):
            assert frame(command)


@pytest.mark.parametrize("read", [received, taken], ids=["from a worker", "for a worker"])
def test_a_frame_over_the_limit_is_refused_before_its_body(read):
    for length in (MAX_FRAME + 1, 2**32 - 1):
        with pytest.raises(ValueError, match="over the limit"):
            read(struct.pack("<I", length))


def test_what_would_be_over_the_limit_is_not_sent():
    room = MAX_FRAME - len(frame(LoadFailed(""))) - 16
    assert len(received(frame(LoadFailed("x" * room)))) == 1
    with pytest.raises(BadRequest, match="larger than 32 MiB"):
        frame(LoadFailed("x" * MAX_FRAME))
