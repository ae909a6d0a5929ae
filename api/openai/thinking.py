"""The many ways in which a client says whether, and how long, the model shall think.

Each is one vendor's or one server's; of several the first in a fixed order counts. What an answer
does in the end is decided where the model is known, in `inference/thoughts.py`.
"""

import json
from collections.abc import Iterable
from typing import Annotated, Any, Final, TypeVar

from pydantic import BeforeValidator, Field, WithJsonSchema

from api.body import INT32, SPELLED, WireModel, Word, flag
from api.fields import EFFORTS
from api.openai.fields import TemplateKwargs

_OFF: Final = ("none", "minimal")  # efforts that are none


def _among(values: list[Any]) -> BeforeValidator:
    """Just these values: pydantic's `Literal` takes 1.0 for `True`."""

    def check(said: Any) -> Any:
        said = flag(said)
        if not any(type(said) is type(value) and said == value for value in values):
            raise ValueError(f"Input should be one of {', '.join(map(json.dumps, values))}")
        return said

    return BeforeValidator(check)


_LEVELS: Final = [True, False, "none", "low", "medium", "high"]
Level = Annotated[Any, _among(_LEVELS), WithJsonSchema({"enum": _LEVELS + SPELLED["enum"]})]
Never = Annotated[Any, _among([False]), WithJsonSchema({"enum": [False, "false", 0]})]
Budget = Annotated[int, Field(ge=-1, le=INT32)]
Said = TypeVar("Said")


class ReasoningBody(WireModel):
    """As OpenRouter and OpenAI's Responses have it."""

    enabled: bool | None = None
    effort: Word | None = None
    max_tokens: Budget | None = None
    exclude: Never | None = None


class ThinkingBody(WireModel):
    """`None` means "not said"."""

    enable_thinking: bool | None = None
    think: Level | None = None
    reasoning: ReasoningBody = ReasoningBody()
    reasoning_effort: Word | None = None
    thinking_budget: Budget | None = None
    thinking_token_budget: Budget | None = None
    thinking_budget_tokens: Budget | None = None
    reasoning_budget: Budget | None = None
    chat_template_kwargs: TemplateKwargs = Field(default_factory=dict)

    def wants_thoughts(self) -> bool | None:
        on = self.chat_template_kwargs.get("enable_thinking")
        think = self.think if isinstance(self.think, bool) else None
        said = _first((on, self.enable_thinking, think, self.reasoning.enabled))
        if said is not None:
            return bool(flag(said))
        effort = self._effort()
        return None if effort is None else effort not in _OFF

    def most_thoughts(self) -> int | None:
        """Tokens; `None` is without a bound."""
        budget = _first(
            (
                self.thinking_budget,
                self.thinking_token_budget,
                self.thinking_budget_tokens,
                self.reasoning_budget,
                self.chat_template_kwargs.get("thinking_budget"),
                self.reasoning.max_tokens,
                EFFORTS.get(self._effort() or ""),
            )
        )
        return None if budget == -1 else budget

    def _effort(self) -> str | None:
        think = self.think if isinstance(self.think, str) else None
        said = _first((think, self.reasoning.effort, self.reasoning_effort))
        return said if said in _OFF or said in EFFORTS else None


def _first(said: Iterable[Said | None]) -> Said | None:
    return next((value for value in said if value is not None), None)
