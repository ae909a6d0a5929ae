"""Tells the thoughts that an answer may begin with from the rest of it, while its text grows.

The worker looks for stop strings in the rest only: what a model says to itself is no answer. A
think block comes before anything else, and white space around it belongs to neither side. Knows
no tokens.
"""

from typing import Literal

from inference.holdback import Holdback

_OPEN, _CLOSE = "<think>", "</think>"


class Preamble:
    """Of an answer that is `inside` a think block when it begins, or may open one.

    Law: however the text is cut, both parts are the same.
    """

    def __init__(self, *, inside: bool) -> None:
        self._stage: Literal["before", "inside", "after", "over"] = "inside" if inside else "before"
        self._held = ""
        self._close = Holdback((_CLOSE,))

    def feed(self, text: str, last: bool = False) -> tuple[str, str]:
        """Add `text`; what is certain of the thoughts, tags and white space included, and of the
        rest. After the `last` text nothing is held back."""
        thoughts = ""
        if self._stage == "before":
            thoughts, text = self._begin(self._held + text, last)
        if self._stage == "inside":
            released, tag = self._close.feed(text)
            text = self._close.flush() if tag or last else ""
            thoughts += released + (tag or "")
            if tag is None:
                return thoughts + text, ""
            self._stage = "after"
        if self._stage == "after":
            rest = text.lstrip()
            thoughts, text = thoughts + text[: len(text) - len(rest)], rest
            self._stage = "over" if text else "after"
        return thoughts, text

    def _begin(self, text: str, last: bool) -> tuple[str, str]:
        body = text.lstrip()
        if body.startswith(_OPEN):
            self._stage = "inside"
            end = len(text) - len(body) + len(_OPEN)
            return text[:end], text[end:]
        if _OPEN.startswith(body) and not last:
            self._held = text
            return "", ""
        self._stage = "over"
        return "", text
