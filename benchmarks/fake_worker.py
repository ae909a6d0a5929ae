"""A worker without a model: every running request gets one token in each step, on a steady beat.

Started as a worker is, with a socket at a descriptor: `python -m benchmarks.fake_worker FD`. What
is left of a server around it is its API process, which is what `benchmarks.limits` measures.
"""

import queue
import signal
import socket
import sys
import threading
import time
from typing import Final

from inference import ModelInfo
from inference.wire import Accepted, Channel, Delta, End, Ready, Stats, Step, Submit

BEAT: Final = 0.025  # seconds between two tokens of a stream
TEXT: Final = " token"
_INFO: Final = ModelInfo("none", "fake", 4096, 64, 32_000, 0, 0)


def main(sock: socket.socket) -> None:
    """Serve until the other end of `sock` closes."""
    channel = Channel(sock)
    channel.receive()  # what to load
    channel.send(Ready(_INFO))
    arrivals: queue.SimpleQueue[Submit] = queue.SimpleQueue()
    threading.Thread(target=_step, args=(channel, arrivals), daemon=True).start()
    while (command := channel.receive()) is not None:
        if isinstance(command, Submit):
            channel.send(Accepted(command.id, 1, False))
            arrivals.put(command)


def _step(channel: Channel, arrivals: "queue.SimpleQueue[Submit]") -> None:
    left: dict[int, int] = {}
    wanted: dict[int, int] = {}
    while True:
        time.sleep(BEAT)
        while not arrivals.empty():
            submit = arrivals.get()
            left[submit.id] = wanted[submit.id] = submit.max_tokens or 1
        ends = [_end(id, wanted[id]) for id, count in left.items() if count == 1]
        left = {id: count - 1 for id, count in left.items() if count > 1}
        channel.send(Step([Delta(id, 0, TEXT) for id in left], ends, Stats(running=len(left))))


def _end(id: int, tokens: int) -> End:
    return End(
        id=id,
        index=0,
        text=TEXT,
        reason="length",
        completion_tokens=tokens,
        cached_tokens=0,
        queued=0.0,
        first_token=BEAT,
        total=tokens * BEAT,
    )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with its socket
    main(socket.socket(fileno=int(sys.argv[1])))
