"""The nouns that every room shares: what is asked, what is answered.

Plain frozen values without behaviour. This module imports nothing of the project and knows
neither HTTP nor llama.cpp; no vendor's wire shape appears here.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls"]
Pooling = Literal["", "mean", "cls", "last"]
ConstraintKind = Literal["json", "schema", "regex", "choice", "grammar", "calls"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function the model wants called; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `answers` is the id of the call that a tool's message is the result of, `name` who
    speaks, where a client says so."""

    role: Role
    content: str
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    answers: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call; `parameters` is a JSON schema. A call of one that is `strict`
    fits it wherever calls are forced; of others, if it can be kept to. A client that has more to
    say of it, or in another order, has `written` that: templates show it as it is."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    strict: bool = False
    written: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Constraint:
    """What an answer has to be, after any reasoning.

    Any JSON object, JSON of a `schema`, a text that matches a `regex`, one of some texts (a
    `choice`), what a Lark `grammar` derives, or `calls` of the tools. `source` is the schema as
    JSON text, the regex, the grammar, or the name of the one tool to call, "" for any. `field` is
    the part of the request that says so.
    """

    kind: ConstraintKind
    field: str
    source: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling wishes; `None` means "not said", so that defaults can be laid underneath."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    logit_bias: tuple[tuple[int, float], ...] | None = None

    def over(self, defaults: "Sampling") -> "Sampling":
        """These wishes, with `defaults` wherever nothing was said."""
        unsaid = {
            name: getattr(defaults, name) for name in self.__slots__ if getattr(self, name) is None
        }
        return replace(self, **unsaid)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One request of one client, whatever dialect it arrived in.

    Either `messages` (a chat, rendered by the model's template) or `prompt` (text or token ids,
    taken as they are). Of a chat that is `continued` the last message is the beginning of the
    answer. Without `parallel_calls` it makes one call of a tool at most; `allowed` names the tools
    that it may be offered, None any: `tools` are among them already. It thinks for
    `thinking_budget` tokens at most. `model=None` means the model that is served. `priority` is -1,
    0 or 1; after `deadline` seconds the request ends with DeadlineExceeded; computed prefixes are
    shared among requests of the same `salt` only. `tenant` is in whose name it is asked, "" if
    nobody's. With `logprobs`, so many alternatives of each token are told; an `echo` begins with
    the prompt, and only then `max_tokens` may be 0.
    The model stays in memory for `keep_alive` seconds after it, for ever if that is negative; so
    many seconds it has `waited` for the model.
    """

    id: str
    model: str | None = None
    messages: tuple[Message, ...] = ()
    prompt: str | tuple[int, ...] | None = None
    tools: tuple[Tool, ...] = ()
    allowed: frozenset[str] | None = None
    parallel_calls: bool = True
    continued: bool = False
    constraints: tuple[Constraint, ...] = ()
    thinking: bool | None = None
    thinking_budget: int | None = None
    template_kwargs: dict[str, Any] = field(default_factory=dict)
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    stop_tokens: tuple[int, ...] = ()
    logprobs: int | None = None
    echo: bool = False
    n: int = 1
    priority: int = 0
    deadline: float | None = None
    salt: str = ""
    tenant: str = ""
    speculate: bool = True
    keep_alive: float | None = None
    waited: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest:
    """Texts, or token ids as they are, of which each becomes a vector.

    With `dimensions` only so many of a vector's first numbers are kept; then it is scaled to length
    1, unless it is not to be `normalised`. An input that is longer than the context is refused with
    ContextTooLong, or cut at its end if one may `truncate`. The rest is as in GenerationRequest.
    """

    inputs: tuple[str | tuple[int, ...], ...]
    model: str | None = None
    dimensions: int | None = None
    truncate: bool = False
    normalised: bool = True
    deadline: float | None = None
    tenant: str = ""
    keep_alive: float | None = None
    id: str = ""
    waited: float = 0.0


Asked = GenerationRequest | EmbeddingRequest


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """A request that is not answered yet: `seconds` since it came, `tokens` of all its choices so
    far, and whether it is `running` or waits, for a slot or for its model."""

    id: str
    model: str
    tenant: str
    seconds: float
    tokens: int = 0
    running: bool = False


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A vector for each input, in their order, as little-endian 32-bit floats; `prompt_tokens` of
    all inputs, `seconds` from the request to the last vector, after `load` seconds in which the
    model was loaded."""

    vectors: tuple[bytes, ...]
    prompt_tokens: int
    seconds: float
    load: float = 0.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one choice; `cached_tokens` of the prompt were not computed again, and
    `reasoning_tokens` of the completion are thoughts."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds since the worker accepted the request: a slot, the first token, the last token.
    Before that it waited `load` seconds for the model to be loaded."""

    queued: float
    first_token: float
    total: float
    load: float = 0.0


@dataclass(frozen=True, slots=True)
class Started:
    """The request was accepted (an HTTP answer may begin); prompt length in tokens."""

    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token, as bytes, and its natural log probability before any sampling, which the first of a
    prompt has not; the `top` likeliest at its place; its characters in the text of the choice."""

    token: bytes
    logprob: float | None
    top: tuple[tuple[bytes, float], ...] = ()
    start: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Of tokens in several texts the `logprobs` are with the first."""

    index: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    index: int
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A tool call, whole or the beginning of one; `position` counts the calls of this choice from
    0."""

    index: int
    position: int
    call: ToolCall


@dataclass(frozen=True, slots=True)
class ArgumentsDelta:
    """More of the arguments of the call at `position`, which no other follows yet."""

    index: int
    position: int
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of choice `index`; every choice has exactly one. `stop` is the stop string met."""

    index: int
    reason: FinishReason
    usage: Usage
    timings: Timings
    stop: str = ""

    @property
    def tokens_per_second(self) -> float:
        """Of decoding: the first token ends the prefill, the others are what it took time for."""
        decoding = self.timings.total - self.timings.first_token
        more = max(self.usage.completion_tokens - 1, 0)
        return more / decoding if decoding > 0 else 0.0


GenerationEvent = Started | TextDelta | ReasoningDelta | ToolCallDelta | ArgumentsDelta | Finished


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the worker found in the weights it loaded; `context` is what one request may use, of an
    embedding model one input. `dimensions` are those of its vectors, 0 for other models."""

    name: str
    architecture: str
    context: int
    slots: int
    vocabulary: int
    parameters: int
    size: int
    dimensions: int = 0
