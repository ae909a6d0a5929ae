"""The items of a conversation as Responses have them, and what they mean to the model.

What an assistant does in one turn, thinking, speaking, calling functions, is several items and one
`Message`. An item that was kept is read like one that a client sends, so both are one prompt.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

from api.body import MAX_BODY, Text, WireModel, Word
from api.fields import Content, OrText
from api.openai.fields import Arguments
from api.openai.responses import wire
from api.openai.responses.wire import InputItem, item_id
from inference import Message, Role, ToolCall

MAX_ITEMS: Final = 10_000
_TYPES: Final = (
    "message",
    "reasoning",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "item_reference",
)


class MessageItem(WireModel):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content

    def written(self, response: str, place: str) -> InputItem:
        id = item_id("msg", response, place)
        if self.role == "assistant":
            return wire.OutputMessage(id, content=[wire.OutputText(self.content)])
        return wire.InputMessage(id, self.role, [wire.InputText(self.content)])


class ThoughtPart(WireModel):
    type: Literal["reasoning_text", "summary_text", "text"]
    text: Text


Parts = Annotated[list[ThoughtPart], Field(max_length=MAX_ITEMS)]


class ReasoningItem(WireModel):
    """Of what only its author can read nothing is known."""

    type: Literal["reasoning"]
    summary: Parts | None = None
    content: Parts | None = None

    @property
    def text(self) -> str:
        return "\n".join(part.text for part in self.content or self.summary or ())

    def written(self, response: str, place: str) -> InputItem:
        content = [wire.ReasoningText(part.text) for part in self.content or ()]
        summary = [wire.SummaryText(part.text) for part in self.summary or ()]
        id = item_id("rs", response, place)
        return wire.Reasoning(id, summary=summary, content=content)


class CallItem(WireModel):
    """The one argument of a custom tool is its `input`."""

    type: Literal["function_call", "custom_tool_call"]
    call_id: Word
    name: Word
    namespace: Word | None = None
    arguments: Arguments = "{}"

    def written(self, response: str, place: str) -> InputItem:
        id, namespace = item_id("fc", response, place), self.namespace or ""
        return wire.FunctionCall(
            id, self.call_id, self.name, self.arguments, "completed", namespace
        )


class ResultItem(WireModel):
    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: Word
    output: Content

    def written(self, response: str, place: str) -> InputItem:
        return wire.FunctionCallOutput(item_id("fco", response, place), self.call_id, self.output)


class Reference(WireModel):
    """Stands for an item of a response that is stored."""

    type: Literal["item_reference"]
    id: Word


Said = MessageItem | ReasoningItem | CallItem | ResultItem


def _typed(item: Any) -> Any:
    """An item with its type, which messages and references may leave out."""
    if not isinstance(item, dict):
        return item
    kind = item.get("type") or ("message" if "role" in item else "item_reference")
    if kind not in _TYPES:
        raise ValueError(f"Only items of the types {', '.join(_TYPES)} are supported")
    if kind == "custom_tool_call":
        return {**item, "arguments": {"input": item.get("input")}}
    return {**item, "type": kind}


Item = Annotated[Annotated[Said | Reference, Field(discriminator="type")], BeforeValidator(_typed)]


def _items(said: Any) -> Any:
    return [{"role": "user", "content": said}] if isinstance(said, str) else said


Input = Annotated[
    list[Item],
    Field(max_length=MAX_ITEMS),
    BeforeValidator(_items),
    OrText(),
]


class Items(WireModel):
    """Items as they were kept."""

    items: list[Annotated[Said, Field(discriminator="type")]] = Field(max_length=MAX_BODY)


def flat_name(namespace: str | None, name: str) -> str:
    """What the model calls a tool, which knows of no namespaces."""
    if not namespace:
        return name
    return namespace + ("" if namespace.endswith("__") else "__") + name


@dataclass(slots=True)
class _Turn:
    """What an assistant does at a time."""

    thoughts: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)

    def takes(self, item: ReasoningItem | MessageItem | CallItem) -> bool:
        """Whether an item belongs to it: thoughts come first, and text once or around calls."""
        match item:
            case ReasoningItem():
                return not (self.texts or self.calls)
            case MessageItem():
                return bool(self.calls) or not self.texts
        return True

    def add(self, item: ReasoningItem | MessageItem | CallItem) -> None:
        match item:
            case ReasoningItem() if item.text:
                self.thoughts.append(item.text)
            case MessageItem():
                self.texts.append(item.content)
            case CallItem():
                name = flat_name(item.namespace, item.name)
                self.calls.append(ToolCall(item.call_id, name, item.arguments))

    def messages(self) -> list[Message]:
        if not (self.thoughts or self.texts or self.calls):
            return []
        thoughts, texts = "\n".join(self.thoughts), "\n".join(self.texts)
        return [Message("assistant", texts, thoughts, tuple(self.calls))]


def messages_of(items: Iterable[Said]) -> list[Message]:
    """A conversation in the model's terms."""
    messages: list[Message] = []
    turn = _Turn()
    for item in items:
        if isinstance(item, ResultItem) or (
            isinstance(item, MessageItem) and item.role != "assistant"
        ):
            messages += turn.messages()
            turn = _Turn()
            messages.append(_other(item))
            continue
        if not turn.takes(item):
            messages += turn.messages()
            turn = _Turn()
        turn.add(item)
    return messages + turn.messages()


def _other(item: MessageItem | ResultItem) -> Message:
    """What is not an assistant's."""
    if isinstance(item, ResultItem):
        return Message("tool", item.output, answers=item.call_id)
    role: Role = "user" if item.role == "user" else "system"
    return Message(role, item.content)
