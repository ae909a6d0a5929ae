"""Hold back only text that may still become a marker; release the rest at once.

Used for stop strings (worker) and for the tags of reasoning and tool calls (parser). Knows
nothing of what a marker means. Law: however the text is cut into pieces, what is released
before the first marker is the same.
"""


class Holdback:
    """Searches a growing text for the first of several non-empty markers."""

    def __init__(self, markers: tuple[str, ...]) -> None:
        self._markers = markers
        self._held = ""

    def feed(self, text: str) -> tuple[str, str | None]:
        """Add `text`; return what may be released and the marker that was met, if any.

        After a marker the text that follows it is what `flush` returns. Of several markers the
        first to be complete wins, then the longer one.
        """
        self._held += text
        found = [(at + len(m), at, m) for m in self._markers if (at := self._held.find(m)) >= 0]
        if found:
            _, at, marker = min(found)
            released, self._held = self._held[:at], self._held[at + len(marker) :]
            return released, marker
        keep = len(self._held) - self._possible_marker()
        released, self._held = self._held[:keep], self._held[keep:]
        return released, None

    def flush(self) -> str:
        """Give up waiting: whatever is still held."""
        held, self._held = self._held, ""
        return held

    def _possible_marker(self) -> int:
        """Length of the longest end of the held text that begins a marker."""
        longest = max((len(m) for m in self._markers), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(m.startswith(self._held[-length:]) for m in self._markers):
                return length
        return 0
