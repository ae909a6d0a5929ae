"""Log probabilities in OpenAI's two shapes: that of chats, and the older one of completions.

Bytes that are no text by themselves are written as each of the two has always done.
"""

import msgspec

from inference import TokenLogprob


class TopLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int]


class ContentLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct):
    content: list[ContentLogprob]
    refusal: None = None

    @classmethod
    def of(cls, logprobs: tuple[TokenLogprob, ...]) -> "ChatLogprobs":
        return cls([_content(one) for one in logprobs])


class TextLogprobs(msgspec.Struct):
    """A column for every token. `top_logprobs` has the token itself as well; `text_offset` counts
    characters."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]

    @classmethod
    def of(cls, logprobs: tuple[TokenLogprob, ...]) -> "TextLogprobs":
        return cls(
            [_text(one.token) for one in logprobs],
            [one.logprob for one in logprobs],
            [_with_itself(one) for one in logprobs],
            [one.start for one in logprobs],
        )


def _content(one: TokenLogprob) -> ContentLogprob:
    top = [TopLogprob(_shown(token), logprob, list(token)) for token, logprob in one.top]
    return ContentLogprob(_shown(one.token), one.logprob or 0.0, list(one.token), top)


def _shown(token: bytes) -> str:
    return token.decode(errors="replace")


def _with_itself(one: TokenLogprob) -> dict[str, float] | None:
    if one.logprob is None:
        return None
    return {_text(token): logprob for token, logprob in (*one.top, (one.token, one.logprob))}


def _text(token: bytes) -> str:
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)
