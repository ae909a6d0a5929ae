"""How long a model stays in memory after a request, in all the ways that clients say it."""

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, WithJsonSchema

from api.body import INT32

_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER: Final = r"[0-9]{1,9}(\.[0-9]{0,9})?"
_SHAPE: Final = rf"[-+]?({_NUMBER}|({_NUMBER}(ns|us|µs|ms|s|m|h)){{1,7}})"
_PART: Final = re.compile(r"([0-9.]+)([a-zµ]*)")


def _seconds(said: Any) -> Any:
    """Seconds, of which negative ones are for ever: a number, or a duration as Go writes it."""
    if isinstance(said, str) and re.fullmatch(_SHAPE, said):
        parts = _PART.findall(said)
        seconds = sum(float(number) * _UNITS[unit or "s"] for number, unit in parts)
        return max(-1.0, -seconds) if said.startswith("-") else min(seconds, float(INT32))
    if type(said) in (int, float) and -INT32 <= said <= INT32:
        return float(max(said, -1))
    raise ValueError('Input should be seconds, or a duration such as "5m" or "1h30m"')


KeepAlive = Annotated[
    float,
    BeforeValidator(_seconds),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": -INT32, "maximum": INT32},
                {"type": "string", "pattern": f"^{_SHAPE}$"},
            ]
        }
    ),
]
