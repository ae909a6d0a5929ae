"""What an export of a session has to be to become one again.

It comes from anybody: every value is checked as if a client had said it. Does no I/O.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from api.body import Text, WireModel, Word, validate
from api.gateway.settings import SettingsBody
from api.store.exports import Format
from api.store.records import Call, Conversation, Message, Session, Summary, Usage
from api.store.sessions import MOST_MESSAGES
from api.store.tree import check
from inference import BadRequest, Role

MAX_TITLE: Final = 200  # characters
_MOST_CALLS: Final = 1000  # of an answer
_MOST_FACTS: Final = 10_000  # of a summary
Title = Annotated[str, Field(max_length=MAX_TITLE)]
Id = Annotated[str, Field(min_length=1, max_length=256)]
Time = Annotated[float, Field(ge=0, le=253_402_300_799)]  # the year 9999
_Count = Annotated[int, Field(ge=0, le=2**53)]
_Measure = Annotated[float, Field(ge=0, le=2**53)]


class CallBody(WireModel):
    id: Word
    name: Word
    arguments: Text

    def call(self) -> Call:
        return Call(self.id, self.name, self.arguments)


class UsageBody(WireModel):
    prompt_tokens: _Count
    cached_tokens: _Count
    completion_tokens: _Count
    reasoning_tokens: _Count = 0
    ttft_ms: _Measure
    total_ms: _Measure
    tokens_per_second: _Measure


class StoredMessageBody(WireModel):
    id: Id
    parent: Id | None = None
    role: Role
    content: Text = ""
    reasoning: Text = ""
    thought_ms: _Count | None = None
    tool_calls: list[CallBody] = Field([], max_length=_MOST_CALLS)
    answers: Word = ""
    state: Literal["done", "stopped", "cut", "failed"] = "done"
    reason: Word = ""
    error: Text = ""
    model: Word = ""
    usage: UsageBody | None = None
    created: Time = 0.0

    def message(self) -> Message:
        said = {name: getattr(self, name) for name in Message.__struct_fields__}
        said["tool_calls"] = tuple(call.call() for call in self.tool_calls)
        said["usage"] = self.usage and Usage(**self.usage.model_dump())
        return Message(**said)


class SummaryBody(WireModel):
    upto: Id
    facts: list[Text] = Field([], max_length=_MOST_FACTS)
    content: Text
    messages: Annotated[int, Field(ge=0, le=MOST_MESSAGES)]
    created: Time = 0.0

    def summary(self) -> Summary:
        return Summary(
            upto=self.upto,
            facts=tuple(self.facts),
            content=self.content,
            messages=self.messages,
            created=self.created,
        )


class AboutBody(WireModel):
    title: Title = ""
    model: Word = ""
    settings: SettingsBody = SettingsBody()
    head: Id | None = None
    created: Time = 0.0


class ImportBody(WireModel):
    """What `GET /api/v1/sessions/{id}/export` wrote."""

    format: Format
    session: AboutBody
    messages: list[StoredMessageBody] = Field(max_length=MOST_MESSAGES)
    summaries: list[SummaryBody] = Field([], max_length=MOST_MESSAGES)


def understand(raw: Mapping[str, Any]) -> Conversation:
    """Raises `BadRequest`: a value is none that an export has, or the messages are no tree."""
    body = validate(ImportBody, raw)
    messages = [message.message() for message in body.messages]
    check(messages)
    ids = {message.id for message in messages}
    _check_known("session.head", body.session.head, ids)
    for number, summary in enumerate(body.summaries):
        _check_known(f"summaries.{number}.upto", summary.upto, ids)
    return Conversation(_session(body.session), messages, [one.summary() for one in body.summaries])


def _check_known(field: str, id: str | None, ids: set[str]) -> None:
    if id is not None and id not in ids:
        raise BadRequest(f"{field}: There is no message with this id.", field)


def _session(about: AboutBody) -> Session:
    """It has no id of its own yet."""
    return Session(
        id="",
        title=about.title,
        model=about.model,
        settings=about.settings.settings(),
        head=about.head,
        created=about.created,
        updated=about.created,
    )
