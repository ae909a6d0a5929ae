"""The fields of a conversation as Anthropic's clients write them, and what they mean.

Text may be a string or blocks. What a block is to the model, its role in a `Message`, is said here
alone. Signatures and cache marks mean nothing to this server.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from api.body import INT32, MAX_BODY, Text, WireModel, Word, json_text
from api.fields import Content, OrText, ToolName, joined, text_of
from inference import Constraint, Message, Tool, ToolCall

# Claude Code puts one before everything else, with another value in each request.
_CHANGES_EVERY_TIME: Final = "x-anthropic-billing-header"
_UNDERSTOOD: Final = ("text", "thinking", "redacted_thinking", "tool_use", "tool_result")
_ROLES: Final = {"ctx": "user", "msg": "user"}


def _system(content: Any) -> Any:
    if isinstance(content, list):
        content = [b for b in content if not text_of(b).startswith(_CHANGES_EVERY_TIME)]
    return joined(content)


def _blocks(content: Any) -> Any:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    for block in content if isinstance(content, list) else ():
        if not isinstance(block, dict) or block.get("type") not in _UNDERSTOOD:
            raise ValueError(
                f"Only blocks of the types {', '.join(_UNDERSTOOD)} are supported, "
                "no images, documents or server tools"
            )
    return content


def _role(role: Any) -> Any:
    return _ROLES.get(role, role) if isinstance(role, str) else role


def _custom(kind: Any) -> Any:
    if kind != "custom":
        raise ValueError("Server tools are not supported, only those with an input_schema")
    return kind


class TextBlock(WireModel):
    type: Literal["text"]
    text: Text


class ThinkingBlock(WireModel):
    type: Literal["thinking"]
    thinking: Text


class RedactedBlock(WireModel):
    """Ignored: only its author can read it."""

    type: Literal["redacted_thinking"]


class ToolUseBlock(WireModel):
    type: Literal["tool_use"]
    id: Word
    name: Word
    input: dict[str, Any]


class ToolResultBlock(WireModel):
    type: Literal["tool_result"]
    tool_use_id: Word
    content: Content = ""
    is_error: bool | None = None


Block = Annotated[
    TextBlock | ThinkingBlock | RedactedBlock | ToolUseBlock | ToolResultBlock,
    Field(discriminator="type"),
]


class Turn(WireModel):
    """What one side said at a time."""

    role: Annotated[
        Literal["user", "assistant", "system"],
        BeforeValidator(_role),
        WithJsonSchema({"enum": ["user", "assistant", "system", *_ROLES]}),
    ]
    content: Annotated[list[Block], Field(max_length=MAX_BODY), BeforeValidator(_blocks), OrText()]


class ClientTool(WireModel):
    type: Annotated[Literal["custom"] | None, BeforeValidator(_custom)] = None
    name: ToolName
    description: Text | None = None
    input_schema: dict[str, Any]
    strict: bool = False


class ToolChoice(WireModel):
    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"type": {"const": "tool"}}, "required": ["type"]},
            "then": {"required": ["name"], "properties": {"name": {"type": "string"}}},
        }
    )
    type: Literal["auto", "none", "any", "tool"] = "auto"
    name: Word | None = None
    disable_parallel_tool_use: bool = False

    @model_validator(mode="after")
    def _names_one(self) -> "ToolChoice":
        if self.type == "tool" and not self.name:
            raise ValueError("name is missing")
        return self

    def constraint(self) -> Constraint | None:
        """What an answer has to be, if calls are forced."""
        if self.type not in ("any", "tool"):
            return None
        name = (self.type == "tool" and self.name) or ""
        return Constraint("calls", "tool_choice", name)


class Thinking(WireModel):
    type: Literal["enabled", "adaptive", "between_tools", "disabled"]
    budget_tokens: int | None = Field(None, ge=0, le=INT32)


System = Annotated[Content, BeforeValidator(_system)]


def messages_of(turn: Turn) -> list[Message]:
    """A turn in the model's terms, where every result of a tool is a message of its own."""
    messages: list[Message] = []
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []

    def flush() -> None:
        if texts or thoughts or calls:
            said = "\n".join(texts), "\n".join(thoughts), tuple(calls)
            messages.append(Message(turn.role, *said))
        for part in (texts, thoughts, calls):
            part.clear()

    for block in turn.content:
        match block:
            case TextBlock(text=text):
                texts.append(text)
            case ThinkingBlock(thinking=text):
                thoughts.append(text)
            case ToolUseBlock(id=id, name=name, input=arguments):
                calls.append(ToolCall(id, name, json_text(arguments)))
            case ToolResultBlock(tool_use_id=id, content=text, is_error=failed):
                flush()
                said = f"Error: {text}" if failed else text
                messages.append(Message("tool", said, answers=id))
    flush()
    return messages or [Message(turn.role, "")]


def tool_of(body: ClientTool) -> Tool:
    return Tool(body.name, body.description or "", body.input_schema, body.strict)
