"""From the bytes of tokens to text that can be shown. Knows no tokens and no request."""

import codecs

from inference.holdback import Holdback


class TextOut:
    """Bytes of tokens -> text that can be shown: UTF-8 never split, stop strings never leaked."""

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._holdback = Holdback(stop)
        self.met = ""  # the stop string that was

    def feed(self, piece: bytes) -> tuple[str, bool]:
        """Text to show now, and whether a stop string was met (and cut off)."""
        text, marker = self._holdback.feed(self._decoder.decode(piece))
        self.met = marker or ""
        return text, marker is not None

    @property
    def whole(self) -> bool:
        """Whether the last character is there with all its bytes."""
        return not self._decoder.getstate()[0]

    def finish(self) -> str:
        """The rest, when generation ended without a stop string."""
        text, marker = self._holdback.feed(self._decoder.decode(b"", final=True))
        return text if marker else text + self._holdback.flush()
