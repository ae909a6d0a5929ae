"""What a client asks of a conversation, over HTTP or a WebSocket: a body of chat completions, and
where in which session its answer belongs. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from api.body import MAX_BODY, Word
from api.fields import STRING, Content
from api.openai import chat, common
from api.openai.chat import ChatBody, MessageBody
from api.store.copies import message_id
from inference import BadRequest, GenerationRequest, Message

REFUSED: Final[Mapping[str, tuple[Any, ...]]] = {**chat.REFUSED, "n": (1,)}
ROOT: Final = ""
_MESSAGES: Final = 2048


def _messages(history: Any) -> Any:
    """Pairs of what was said and answered, as messages."""
    if not isinstance(history, list):
        return history
    return [message for turn in history for message in _turn(turn)]


def _turn(turn: Any) -> list[Any]:
    if not isinstance(turn, list):
        return [turn]
    if len(turn) != 2:
        raise ValueError("A turn should be a pair: what was said, and what was answered")
    roles = zip(("user", "assistant"), turn, strict=True)
    return [{"role": role, "content": text} for role, text in roles if text is not None]


_PAIR: Final = {
    "type": "array",
    "items": {"anyOf": [STRING, {"type": "null"}]},
    "minItems": 2,
    "maxItems": 2,
}


class OrPairs:
    """Says in a JSON schema that a message may be a pair instead."""

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core)
        return {**schema, "items": {"anyOf": [schema["items"], _PAIR]}}


History = Annotated[
    list[MessageBody], Field(max_length=_MESSAGES), BeforeValidator(_messages), OrPairs()
]


class TurnBody(ChatBody):
    """`message` is the last of `messages`, and `history` stands before them. In a session they are
    what is new: it goes on after the message `parent`, which is its head if that is not said, and
    "" for a new beginning. `thinking` is said as of agents and sessions."""

    messages: list[MessageBody] = Field([], max_length=_MESSAGES)
    message: Annotated[Content, Field(max_length=MAX_BODY)] | None = None
    history: History = Field([])
    session_id: Word | None = None
    parent: Word | None = None
    regenerate: bool = False
    thinking: bool | None = None

    def wants_thoughts(self) -> bool | None:
        said = super().wants_thoughts()
        return self.thinking if said is None else said

    def told(self) -> tuple[Message, ...]:
        said = () if self.message is None else (Message("user", self.message),)
        return (*map(chat.message_of, (*self.history, *self.messages)), *said)

    @model_validator(mode="after")
    def _something_to_answer(self) -> Self:
        told = self.told()
        if self.session_id is None and not told:
            raise BadRequest("There is nothing to answer: say it in message.", "message")
        if self.session_id is not None and self.regenerate and told:
            raise BadRequest("What is answered again has no new message.", "regenerate")
        if self.session_id is not None and not (self.regenerate or told):
            raise BadRequest("There is nothing new to answer: say it in message.", "message")
        return self

    @model_validator(mode="after")
    def _only_what_is_new(self) -> Self:
        if self.session_id is None:
            return self
        if any(message.role not in ("user", "tool") for message in self.told()):
            raise BadRequest(
                "A session is told what is new only, by the user or a tool; "
                "it has its own system_prompt.",
                "messages",
            )
        if self.continue_final_message:
            raise BadRequest("In a session no answer is begun.", "continue_final_message")
        return self


@dataclass(frozen=True, slots=True)
class Wish:
    """An answer of a session, to be stored as message `answer`: to the `request`, whose messages
    are what is new, after the message `parent` (None: after its head, `ROOT`: at its beginning).
    It is told as a `stream`, or whole. Whoever asks may have so many of these at a time, None for
    any number."""

    session: str
    answer: str
    parent: str | None
    request: GenerationRequest
    stream: bool
    most: int | None = None


def read(raw: Mapping[str, Any], *, stream: bool = False) -> TurnBody:
    """Raises `BadRequest` naming the field that is wrong. An answer is a `stream`, or is not, where
    nothing is said."""
    if raw.get("stream") is None:
        raw = {**raw, "stream": stream}
    if raw.get("parent", ROOT) is None:  # null, which says nothing elsewhere
        raw = {**raw, "parent": ROOT}
    return common.read(TurnBody, raw, REFUSED)


def wish_of(body: TurnBody, id: str, most: int | None) -> Wish | None:
    """What is asked of a session, if it is one."""
    if body.session_id is None:
        return None
    request = chat.to_request(body, id)
    return Wish(body.session_id, message_id(), body.parent, request, body.stream, most)
