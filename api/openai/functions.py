"""The functions that a client offers, as OpenAI's endpoints for conversations read them."""

from typing import Any, Literal, Self

from pydantic import ModelWrapValidatorHandler, PrivateAttr, model_validator

from api.body import Text, WireModel
from api.fields import ToolName
from inference import Tool


class FunctionBody(WireModel):
    """`_written` is the object that it was read from: prompts show it in its own order."""

    _written: dict[str, Any] = PrivateAttr(default_factory=dict)
    name: ToolName
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @model_validator(mode="wrap")
    @classmethod
    def _keep(cls, written: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        body = read(written)
        body._written = written
        return body

    def tool(self) -> Tool:
        return Tool(
            self.name,
            self.description or "",
            self.parameters or {},
            strict=bool(self.strict),
            written=self._written,
        )


class ToolBody(WireModel):
    type: Literal["function"] = "function"
    function: FunctionBody
