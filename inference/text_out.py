"""From the bytes of tokens to text that can be shown. Knows no tokens and no request."""

import codecs

from inference.holdback import Holdback
from inference.preamble import Preamble


class TextOut:
    """Bytes of tokens -> text that can be shown: UTF-8 never split, stop strings never leaked; in
    a `preamble` there are none."""

    def __init__(self, stop: tuple[str, ...] = (), preamble: Preamble | None = None) -> None:
        self._preamble = preamble
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._holdback = Holdback(stop)
        self.met = ""  # the stop string that was

    def feed(self, piece: bytes) -> tuple[str, bool]:
        """Text to show now, and whether a stop string was met (and cut off)."""
        thoughts, text = self._parts(self._decoder.decode(piece))
        text, marker = self._holdback.feed(text)
        self.met = marker or ""
        return thoughts + text, marker is not None

    @property
    def whole(self) -> bool:
        """Whether the last character is there with all its bytes."""
        return not self._decoder.getstate()[0]

    def finish(self) -> str:
        """The rest, when generation ended without a stop string."""
        thoughts, text = self._parts(self._decoder.decode(b"", final=True), last=True)
        text, marker = self._holdback.feed(text)
        return thoughts + (text if marker else text + self._holdback.flush())

    def _parts(self, text: str, last: bool = False) -> tuple[str, str]:
        return self._preamble.feed(text, last) if self._preamble else ("", text)
