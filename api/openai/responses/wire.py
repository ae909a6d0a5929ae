"""What is written of a response: its items, the whole, and the events of a stream.

Shapes follow OpenAI's API reference and what its clients need of them.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from api.dialect import named_event
from inference import Usage

Progress = Literal["in_progress", "completed", "incomplete"]
Status = Literal["in_progress", "completed", "incomplete", "failed"]


class InputText(msgspec.Struct, tag_field="type", tag="input_text"):
    text: str


class OutputText(msgspec.Struct, tag_field="type", tag="output_text"):
    text: str
    annotations: list[Any] = []
    logprobs: list[Any] = []


class ReasoningText(msgspec.Struct, tag_field="type", tag="reasoning_text"):
    text: str


class SummaryText(msgspec.Struct, tag_field="type", tag="summary_text"):
    text: str


class InputMessage(msgspec.Struct, tag_field="type", tag="message"):
    id: str
    role: str
    content: list[InputText]
    status: Progress = "completed"


class OutputMessage(msgspec.Struct, tag_field="type", tag="message"):
    id: str
    status: Progress = "completed"
    content: list[OutputText] = []
    role: Literal["assistant"] = "assistant"


class Reasoning(msgspec.Struct, tag_field="type", tag="reasoning"):
    """Thoughts stand in the `summary` if a client asked for one, else in the `content`."""

    id: str
    status: Progress = "completed"
    summary: list[SummaryText] = []
    content: list[ReasoningText] = []


class FunctionCall(msgspec.Struct, tag_field="type", tag="function_call", omit_defaults=True):
    """`namespace` is that of the tool, if it is in one."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: Progress
    namespace: str = ""


class FunctionCallOutput(msgspec.Struct, tag_field="type", tag="function_call_output"):
    id: str
    call_id: str
    output: str
    status: Progress = "completed"


OutputItem = OutputMessage | Reasoning | FunctionCall
InputItem = InputMessage | OutputItem | FunctionCallOutput


class InputDetails(msgspec.Struct):
    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(msgspec.Struct):
    reasoning_tokens: int


class ResponseUsage(msgspec.Struct):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int

    @classmethod
    def of(cls, usage: Usage) -> "ResponseUsage":
        return cls(
            usage.prompt_tokens,
            InputDetails(usage.cached_tokens),
            usage.completion_tokens,
            OutputDetails(usage.reasoning_tokens),
            usage.prompt_tokens + usage.completion_tokens,
        )


class Failure(msgspec.Struct):
    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str


class IncompleteDetails(msgspec.Struct):
    reason: Literal["max_output_tokens"]


class Echo(msgspec.Struct, kw_only=True):
    """What an answer repeats of its request; null was not said."""

    instructions: str | None
    max_output_tokens: int | None
    metadata: Mapping[str, str]
    parallel_tool_calls: bool
    previous_response_id: str | None
    reasoning: dict[str, str | None]
    store: bool
    temperature: float | None
    text: dict[str, Any]
    tool_choice: Any
    tools: list[dict[str, Any]]
    top_p: float | None
    truncation: Literal["disabled"] = "disabled"
    background: Literal[False] = False


class ResponseOut(Echo, kw_only=True):
    """The whole; `usage` is null until it has ended."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    model: str
    status: Status
    output: list[OutputItem]
    usage: ResponseUsage | None = None
    error: Failure | None = None
    incomplete_details: IncompleteDetails | None = None


class Deleted(msgspec.Struct):
    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class InputTokens(msgspec.Struct):
    input_tokens: int
    object: Literal["response.input_tokens"] = "response.input_tokens"


class ItemList(msgspec.Struct):
    """A page of the input of a response; ids are null where it is empty."""

    data: list[Any]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


class Numbered(msgspec.Struct, kw_only=True):
    """Events of a stream are numbered from 0."""

    sequence_number: int


class OfResponse(Numbered):
    response: ResponseOut


class Created(OfResponse, tag_field="type", tag="response.created"):
    pass


class InProgress(OfResponse, tag_field="type", tag="response.in_progress"):
    pass


class Completed(OfResponse, tag_field="type", tag="response.completed"):
    pass


class Incomplete(OfResponse, tag_field="type", tag="response.incomplete"):
    pass


class Failed(OfResponse, tag_field="type", tag="response.failed"):
    pass


class OfItem(Numbered):
    output_index: int
    item: OutputItem


class ItemAdded(OfItem, tag_field="type", tag="response.output_item.added"):
    pass


class ItemDone(OfItem, tag_field="type", tag="response.output_item.done"):
    pass


class InItem(Numbered):
    item_id: str
    output_index: int


class InContent(InItem):
    content_index: int


class PartAdded(InContent, tag_field="type", tag="response.content_part.added"):
    part: OutputText | ReasoningText


class PartDone(InContent, tag_field="type", tag="response.content_part.done"):
    part: OutputText | ReasoningText


class TextDelta(InContent, tag_field="type", tag="response.output_text.delta"):
    delta: str
    logprobs: list[Any] = []


class TextDone(InContent, tag_field="type", tag="response.output_text.done"):
    text: str
    logprobs: list[Any] = []


class ReasoningDelta(InContent, tag_field="type", tag="response.reasoning_text.delta"):
    delta: str


class ReasoningDone(InContent, tag_field="type", tag="response.reasoning_text.done"):
    text: str


class InSummary(InItem):
    summary_index: int


class SummaryPartAdded(InSummary, tag_field="type", tag="response.reasoning_summary_part.added"):
    part: SummaryText


class SummaryPartDone(InSummary, tag_field="type", tag="response.reasoning_summary_part.done"):
    part: SummaryText


class SummaryDelta(InSummary, tag_field="type", tag="response.reasoning_summary_text.delta"):
    delta: str


class SummaryDone(InSummary, tag_field="type", tag="response.reasoning_summary_text.done"):
    text: str


class ArgumentsDelta(InItem, tag_field="type", tag="response.function_call_arguments.delta"):
    delta: str


class ArgumentsDone(InItem, tag_field="type", tag="response.function_call_arguments.done"):
    name: str
    arguments: str


Event = (
    Created
    | InProgress
    | Completed
    | Incomplete
    | Failed
    | ItemAdded
    | ItemDone
    | PartAdded
    | PartDone
    | TextDelta
    | TextDone
    | ReasoningDelta
    | ReasoningDone
    | SummaryPartAdded
    | SummaryPartDone
    | SummaryDelta
    | SummaryDone
    | ArgumentsDelta
    | ArgumentsDone
)


def framed(event: Event) -> bytes:
    """An event as it is sent."""
    return named_event(str(event.__struct_config__.tag), event)


def item_id(prefix: str, response: str, place: str) -> str:
    """An item's id says which response it belongs to, so that it can be referred to."""
    return f"{prefix}_{response.removeprefix('resp_')}_{place}"


def response_of(item: str) -> str:
    """The id of the response that an item belongs to, see `item_id`."""
    return f"resp_{item.partition('_')[2].partition('_')[0]}"
