"""How answers are made, as a client says it of a session or of an agent."""

from typing import Annotated, Final

from pydantic import Field

from api.fields import BasicSampling, Penalty, Repetition
from api.openai.common import Limit
from api.openai.constraints import MAX_TOOLS
from api.openai.functions import ToolBody
from api.store.records import Settings

MAX_SYSTEM_PROMPT: Final = 64 << 10  # characters


class SettingsBody(BasicSampling):
    """The fields of `Settings`, tools in OpenAI's shape; `None` means "not said"."""

    system_prompt: Annotated[str, Field(max_length=MAX_SYSTEM_PROMPT)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Repetition | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    max_tokens: Limit | None = None
    thinking: bool | None = None
    compaction: bool | None = None
    tools: Annotated[list[ToolBody], Field(max_length=MAX_TOOLS)] | None = None

    def settings(self) -> Settings:
        """Tools keep what is written of their functions: prompts show it in that order."""
        said = {name: getattr(self, name) for name in Settings.__struct_fields__ if name != "tools"}
        offered = [tool.function.tool() for tool in self.tools or ()]
        tools = [{"type": "function", "function": tool.written} for tool in offered]
        return Settings(**said, tools=None if self.tools is None else tools)
