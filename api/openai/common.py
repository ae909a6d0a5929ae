"""What the bodies of OpenAI's two generation endpoints share: fields and refusals.

A body is read in listed steps: nulls are dropped, spelled-out booleans become booleans, fields
that ask for something this server would silently not do are refused by name, and the rest meets
a strict model. Knows no route and does no I/O.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from api import body
from api.body import INT32, WireModel, Word
from api.dialect import EVENTS
from api.document import JSON, Operation, Schema, Takes, body_schema
from api.fields import FullSampling, Repetition, Stops
from api.keep_alive import KeepAlive
from api.openai.constraints import Constraints
from inference import Sampling

MAX_BIASES: Final = 300

# Fields we know and do not do, with the values that ask for nothing.
REFUSED: Final[Mapping[str, tuple[Any, ...]]] = {
    "prompt_logprobs": (),
    "best_of": (1,),
    "include_stop_str_in_output": (False,),
    "grammar": ("",),
    "json_schema": ({},),
}
_PRIORITY: Final[Mapping[str, int]] = {"priority": 1, "flex": -1}  # of OpenAI's service tiers


def _not_zero(limit: int) -> int:
    if limit == 0:
        raise ValueError("Input should be at least 1, or -1 for no limit")
    return limit


def _biases(biases: Any) -> tuple[tuple[int, float], ...]:
    if not isinstance(biases, dict) or len(biases) > MAX_BIASES:
        raise ValueError(f"Input should be an object of at most {MAX_BIASES} token ids")
    for token, bias in biases.items():
        if not (token.isascii() and token.isdecimal() and len(token) < 10):
            raise ValueError("Every key should be a token id")
        if type(bias) not in (int, float) or not -100 <= bias <= 100:
            raise ValueError("Every bias should be a number from -100 to 100")
    return tuple((int(token), float(bias)) for token, bias in biases.items())


TokenId = Annotated[int, Field(ge=0, le=INT32)]
Bias = Annotated[float, Field(ge=-100, le=100)]
Limit = Annotated[
    int, Field(ge=-1, le=INT32, json_schema_extra={"not": {"const": 0}}), AfterValidator(_not_zero)
]
Biases = Annotated[
    tuple[tuple[int, float], ...],
    BeforeValidator(_biases),
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"pattern": "^[0-9]{1,9}$"},
            "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
            "maxProperties": MAX_BIASES,
        }
    ),
]


class StreamOptions(WireModel):
    include_usage: bool | None = None


class GenerationBody(Constraints, FullSampling):
    """The fields of both endpoints; `None` means "not said"."""

    model: Word | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    n: int = Field(1, ge=1, le=8)
    max_tokens: Limit | None = None
    min_tokens: int = Field(0, ge=0, le=INT32)
    ignore_eos: bool = False
    stop: Stops = ()
    stop_token_ids: list[TokenId] = Field([], max_length=16)
    repetition_penalty: Repetition | None = None
    logit_bias: Biases | None = None
    service_tier: Word | None = None
    timeout: float | None = Field(None, gt=0, le=86_400)
    cache_salt: Word = ""
    speculation: bool = True
    resumable: bool = False
    keep_alive: KeepAlive | None = None

    def served(self) -> str | None:
        """The model asked for; `None` is the one that is served."""
        return None if self.model in ("", "default") else self.model

    def shared(self) -> dict[str, Any]:
        """The fields of a `GenerationRequest` that both endpoints say alike."""
        return {
            "model": self.served(),
            "sampling": self.sampling(),
            "constraints": self.constraints(),
            "min_tokens": self.min_tokens,
            "ignore_eos": self.ignore_eos,
            "stop": self.stop,
            "stop_tokens": tuple(self.stop_token_ids),
            "n": self.n,
            "priority": _PRIORITY.get(self.service_tier or "", 0),
            "deadline": self.timeout,
            "salt": self.cache_salt,
            "speculate": self.speculation,
            "keep_alive": self.keep_alive,
        }

    def sampling(self) -> Sampling:
        """Of both names for the penalty of repetitions, vLLM's comes first."""
        said = super().sampling()
        repeat = self.repetition_penalty
        repeat = said.repeat_penalty if repeat is None else repeat
        return replace(said, repeat_penalty=repeat, logit_bias=self.logit_bias)


Body = TypeVar("Body", bound=GenerationBody)


def read(model: type[Body], raw: Mapping[str, Any], refused: Mapping[str, tuple[Any, ...]]) -> Body:
    """A body as a `model`; raises `BadRequest` naming the field that is wrong or `refused`."""
    return body.read(model, raw, {**REFUSED, **refused})


def generation(
    path: str, summary: str, takes: Takes, whole: Any, chunk: Any, refuses: tuple[int, ...] = ()
) -> Operation:
    """A generation endpoint: `whole` is its answer, `chunk` an event of its stream."""
    return Operation(
        path,
        summary,
        {200: {JSON: whole, EVENTS: chunk}},
        (400, 404, 408, *refuses, 410, 413, 429, 500, 503),
        takes,
        methods=("post",),
        headers=("X-Resumable", "Last-Event-ID"),
    )


def schema(model: type[GenerationBody], refused: Mapping[str, tuple[Any, ...]]) -> Schema:
    """The JSON schema of what `read` takes."""
    return body_schema(model, {**REFUSED, **refused})


def unlimited(limit: int | None) -> int | None:
    """-1, as some clients spell "no limit", as `None`."""
    return None if limit == -1 else limit
