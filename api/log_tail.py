"""The last lines of the log, for an operator to look at.

Keeps what is logged and no traceback: an exception's words may have come from a client. Knows no
HTTP.
"""

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

MOST: Final = 200  # lines
MAX_TEXT: Final = 500  # characters of one
_OURS: Final = ("api", "inference", "uvicorn.error")


@dataclass(frozen=True, slots=True)
class Line:
    """One record; `time` in Unix seconds."""

    time: float
    level: str
    logger: str
    text: str


class LogTail(logging.Handler):
    """Remembers the last `most` records of the loggers that it is `attached` to."""

    def __init__(self, most: int = MOST) -> None:
        super().__init__()
        self._lines: deque[Line] = deque(maxlen=most)

    def lines(self) -> list[Line]:
        """The oldest first."""
        return list(self._lines)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(_line(record))
            last = logging.lastResort
            if last and record.levelno >= last.level and not _is_written(record):
                last.handle(record)
        except Exception:
            self.handleError(record)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Listen to the loggers of this project, and to what the server says of a bug in it."""
        loggers = [logging.getLogger(name) for name in _OURS]
        for logger in loggers:
            logger.addHandler(self)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeHandler(self)


def _line(record: logging.LogRecord) -> Line:
    words = " ".join(record.getMessage().split())
    if record.exc_info and record.exc_info[0]:
        words = f"{words} ({record.exc_info[0].__name__})"
    text = "".join(letter if letter.isprintable() else "?" for letter in words[: MAX_TEXT + 1])
    if len(text) > MAX_TEXT:
        text = text[: MAX_TEXT - 3] + "..."
    return Line(record.created, record.levelname, record.name, text)


def _is_written(record: logging.LogRecord) -> bool:
    """Whether anybody else has it. Python writes a record of which nobody wants to know to stderr
    by itself: it still should where only a tail listens."""
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger:
        if not all(isinstance(handler, LogTail) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False
