"""What is stored, as values. Times are seconds since 1970; ids are opaque texts."""

from typing import Any, Final, Literal

from msgspec import Struct

from inference import Role

State = Literal["running", "done", "stopped", "cut", "failed"]
"""Of a message: being written, whole, ended by its reader, ended by a fault of the server's (a
restart), or by an error."""


class Settings(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How answers are made, of a session or of an agent; `None` means "not said"."""

    system_prompt: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    thinking: bool | None = None
    compaction: bool | None = None
    tools: list[dict[str, Any]] | None = None


UNSAID: Final = Settings()


class About(Struct, frozen=True, kw_only=True):
    """What somebody says of an agent; its `model` is never an agent, and "" the one that is served.
    Everybody may use one that is `shared`."""

    name: str
    description: str = ""
    model: str = ""
    shared: bool = False
    settings: Settings = UNSAID


class Agent(About, frozen=True, kw_only=True):
    id: str
    tenant: str
    created: float
    updated: float


class Call(Struct, frozen=True):
    """A call of a tool; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


class Usage(Struct, frozen=True, kw_only=True):
    """Of one answer; `ttft_ms` from the request to the first token."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int = 0
    ttft_ms: float
    total_ms: float
    tokens_per_second: float


class Message(Struct, frozen=True, kw_only=True):
    """One message of a session, which is a tree of them: an edited message and its old self have
    the same `parent`.

    Of an answer, `thought_ms` is how long its `reasoning` took, `reason` why it ended, `error` the
    sentence of what went wrong and `model` who was asked. `answers` is the id of the call that a
    tool's message is the result of.
    """

    id: str
    parent: str | None
    role: Role
    content: str = ""
    reasoning: str = ""
    thought_ms: int | None = None
    tool_calls: tuple[Call, ...] = ()
    answers: str = ""
    state: State = "done"
    reason: str = ""
    error: str = ""
    model: str = ""
    usage: Usage | None = None
    created: float = 0.0


class Session(Struct, frozen=True, kw_only=True):
    """A conversation; `head` is the last message of the branch that is read now, `model` the name
    of a model or an agent, "" for the model that is served."""

    id: str
    title: str
    model: str
    settings: Settings
    head: str | None
    created: float
    updated: float


class Summary(Struct, frozen=True, kw_only=True):
    """What stands for a branch's first `messages`, the last of which is `upto`: what is known from
    them, and what else there was."""

    upto: str
    facts: tuple[str, ...]
    content: str
    messages: int
    created: float


class Conversation(Struct, frozen=True):
    """A session with all that is in it; messages stand after the ones they belong to."""

    session: Session
    messages: list[Message]
    summaries: list[Summary]
