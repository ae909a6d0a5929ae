"""JSON schemas of many kinds, each with answers of bounded length only, drawn by a seed."""

import random
from collections.abc import Callable, Iterator
from typing import Any, Final

Schema = dict[str, Any]

_WORDS: Final = ("name", "size", "when", "tags", "unit", "from", "état", "a b", 'say "so"', "数")
_PATTERNS: Final = (r"^\d{3}-\d{4}$", "^[A-F0-9]{8}$", "^(yes|no|maybe)$", r"^[a-zà-ÿ]{1,12}$")
_FORMATS: Final = ("date", "uuid", "ipv4")
_NESTING: Final = 3


def schemas(count: int, seed: int = 0) -> Iterator[Schema]:
    """So many objects; every third speaks of parts that others of it share."""
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        schema = _object(rng, _NESTING)
        if number % 3 == 0:
            schema["$defs"] = {"part": _object(rng, 1), "tag": _text(rng)}
            schema["properties"]["parts"] = _array_of({"$ref": "#/$defs/part"}, rng)
            schema["properties"]["tag"] = {"$ref": "#/$defs/tag"}
            schema["required"].append("parts")
        yield schema


def _object(rng: random.Random, depth: int) -> Schema:
    names = rng.sample(_WORDS, rng.randint(1, 4))
    return {
        "type": "object",
        "properties": {name: _any(rng, depth - 1) for name in names},
        "required": rng.sample(names, rng.randint(1, len(names))),
        "additionalProperties": False,
    }


def _any(rng: random.Random, depth: int) -> Schema:
    flat = (_text, _text, _number, _few)
    return rng.choice(flat if depth <= 0 else (*flat, *_deep(depth)))(rng)


def _deep(depth: int) -> tuple[Callable[[random.Random], Schema], ...]:
    return (
        lambda rng: _object(rng, depth),
        lambda rng: _array_of(_any(rng, depth - 1), rng),
        lambda rng: {"anyOf": [_any(rng, depth - 1), {"type": "null"}]},
        lambda rng: {"oneOf": [_text(rng), _number(rng), _array_of(_text(rng), rng)]},
        lambda rng: {
            "type": "array",
            "prefixItems": [_any(rng, depth - 1), _number(rng)],
            "items": False,
            "minItems": 2,
        },
    )


def _array_of(items: Schema, rng: random.Random) -> Schema:
    least = rng.randint(0, 2)
    return {"type": "array", "items": items, "minItems": least, "maxItems": least + 2}


def _text(rng: random.Random) -> Schema:
    return {"type": "string"} | rng.choice(
        (
            {"minLength": rng.randint(0, 3), "maxLength": rng.randint(3, 30)},
            {"pattern": rng.choice(_PATTERNS)},
            {"format": rng.choice(_FORMATS)},
            {"enum": rng.sample(_WORDS, rng.randint(1, 5))},
        )
    )


def _number(rng: random.Random) -> Schema:
    low = rng.randint(-1000, 1000)
    bounds = {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 5000)}
    return rng.choice((bounds, {**bounds, "multipleOf": 7, "maximum": low + 100}))


def _few(rng: random.Random) -> Schema:
    return rng.choice(
        (
            {"type": "boolean"},
            {"const": rng.choice((1, "one", None, True))},
            {"enum": [1, "two", None, False, [3], {"four": 4}]},
        )
    )
