"""Bodies that are almost right: valid ones with a few changes, and those bent as text.

Driven by a seed alone; what the fields are and where their bounds lie, the server's own document
says. A body stays small work: what asks for many tokens is rare.
"""

import json
import random
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any, Final

from benchmarks.contract import Contract, Schema
from benchmarks.exchange import Shot, post

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
RESPONSES: Final = "/v1/responses"
_MESSAGE: Final = {"role": "user", "content": "Hello!"}
_CALL: Final = {"id": "c", "function": {"name": "add", "arguments": '{"a": 1}'}}
_TOOL: Final = {
    "type": "function",
    "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}},
}
_FEW: Final = {"max_tokens": 2}
_SCHEMA: Final = {
    "type": "object",
    "properties": {"a": {"type": "string", "pattern": "^[a-z]{1,3}$"}, "b": {"enum": [1, "x"]}},
    "required": ["a"],
}
_FORM: Final = {"type": "json_schema", "json_schema": {"name": "x", "schema": _SCHEMA}}
_ITEMS: Final = (
    {"role": "user", "content": [{"type": "input_text", "text": "Hello!"}]},
    {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
    {"type": "function_call", "call_id": "c", "name": "add", "arguments": '{"a": 1}'},
    {"type": "function_call_output", "call_id": "c", "output": "2"},
)
_FLAT: Final = {"type": "function", "name": "add", "parameters": {"type": "object"}}
_FREE: Final = 0.1  # of the bodies that lose their limit really do
BODIES: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    (CHAT, {"messages": [_MESSAGE], **_FEW}),
    (CHAT, {"messages": [{"role": "developer", "content": "x"}, _MESSAGE], "stop": ["a"], **_FEW}),
    (CHAT, {"messages": [_MESSAGE], "tools": [_TOOL], "tool_choice": "auto", **_FEW}),
    (CHAT, {"messages": [_MESSAGE], "tools": [_TOOL], "tool_choice": "required", **_FEW}),
    (CHAT, {"messages": [_MESSAGE], "response_format": _FORM, "n": 2, **_FEW}),
    (
        CHAT,
        {
            "messages": [
                _MESSAGE,
                {"role": "assistant", "reasoning": "hm", "tool_calls": [_CALL]},
                {"role": "tool", "content": [{"type": "text", "text": "2"}, "3"]},
            ],
            "chat_template_kwargs": {"enable_thinking": True},
            **_FEW,
        },
    ),
    (
        CHAT,
        {"messages": [_MESSAGE], "stream": True, "stream_options": {"include_usage": True}, **_FEW},
    ),
    (CHAT, {"messages": [_MESSAGE], "seed": 1, "temperature": 1, "top_p": 0.5, "top_k": 5, **_FEW}),
    (COMPLETIONS, {"prompt": "Hello!", "n": 2, **_FEW}),
    (COMPLETIONS, {"prompt": [1, 2, 3], "logit_bias": {"5": -100}, **_FEW}),
    (COMPLETIONS, {"prompt": ["a", [7, 8]], "min_tokens": 1, "ignore_eos": True, **_FEW}),
    (COMPLETIONS, {"prompt": "Hello!", "guided_json": _SCHEMA, "temperature": 1, **_FEW}),
    (COMPLETIONS, {"prompt": "Hello!", "structured_outputs": {"regex": "(a|b){2,5}"}, **_FEW}),
    (COMPLETIONS, {"prompt": "Hello!", "guided_grammar": 'start: "a" | "b"', **_FEW}),
    (COMPLETIONS, {"prompt": "Hello!", "stream": True, "timeout": 60, "min_p": 0.1, **_FEW}),
    (RESPONSES, {"input": "Hello!", "metadata": {"a": "b"}, "stream": True, **_FEW}),
    (RESPONSES, {"input": [*_ITEMS], "tools": [_FLAT], "tool_choice": "required", **_FEW}),
    (RESPONSES, {"input": "Hello!", "text": {"format": {"type": "json_object"}}, **_FEW}),
)

# JSON texts, and texts that are none, in the place of any value.
_DEEP: Final = tuple("[" * depth + "]" * depth for depth in (61, 62, 63, 64, 65, 5000, 100_000))
HOSTILE: Final = (
    *("null", "true", "false", "0", "-0", "-1", "1", "0.5", '""', "[]", "{}", "[[]]", "[null]"),
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "5e-324", "1e-7", "1.0"),
    *("0x10", "01", "+1", "tru", "", "'x'", '{"a": }', "[1,]", "{,}", "9" * 400, "9" * 5000),
    *(str(base + step) for base in (2**31, 2**32, 2**53, 2**63, 2**64, 2**70) for step in (-1, 0)),
    *(str(-base - step) for base in (2**31, 2**63) for step in (0, 1)),
    *(r'"\ud800"', r'"\udfff\ud800"', r'"\ud83d\ude00"', r'"\u0000"', '"\x00"', r'"\x41"', '"\n"'),
    *('"1"', '"NaN"', '"true"', '"<|im_end|>"', '"<think>"', '"\ufdd0"', '"\ufeff"', '"\u202e"'),
    *('"{{ 7 * 7 }}"', '"../../etc/passwd"', '"file:///etc/passwd"', r'"\r\n\r\nGET / HTTP/1.1"'),
    *('"' + "x" * size + '"' for size in (255, 256, 257, 70_000)),
    *("[" + "0," * 400 + "0]", '["a","b"]', '{"__proto__": 1}', '{"": ""}', *_DEEP),
)
_LIMITS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_HUGE: Final = 1 << 16  # what has a bound above it is as large as a body may be
_MARK: Final = re.compile(r'"\\ue000(\d+)"')


class Mutants:
    """An endless source of bodies, the same for the same `seed`."""

    def __init__(self, contract: Contract, host: str, seed: int) -> None:
        self._random = random.Random(seed)
        self._host = host
        self._texts: list[str] = []  # that stand where a body has a mark
        components = contract.document["components"]["schemas"]
        self._fields = {
            path: edges(contract.body(path), components) for path in (CHAT, COMPLETIONS, RESPONSES)
        }

    def __iter__(self) -> Iterator[Shot]:
        ways = (self._replaced, self._removed, self._added, self._at_an_edge, self._at_an_edge)
        while True:
            path, body = deepcopy(self._random.choice(BODIES))
            changes = self._random.choices(ways, k=self._random.choice((0, 1, 1, 1, 2, 3)))
            names = [change(path, body) for change in changes if body]
            yield self._shot(path, body, names)

    def _shot(self, path: str, body: dict[str, Any], names: list[str]) -> Shot:
        text = _MARK.sub(lambda mark: self._texts[int(mark[1])], json.dumps(body))
        self._texts.clear()
        if self._random.random() < 0.1:
            bend = self._random.choice(_BENT)
            names.append(bend.__name__.strip("_"))
            content = bend(self._random, text)
        else:
            content = _utf8(text)
        request = post(path, self._host, content)
        return Shot("json", ", ".join(names) or "valid", (request,), path, whole=True)

    def _mark(self, text: str) -> str:
        self._texts.append(text)
        return f"\ue000{len(self._texts) - 1}"

    def _replaced(self, _: str, body: dict[str, Any]) -> str:
        place, key = self._random.choice(list(places(body)))
        text = self._random.choice(HOSTILE)
        place[key] = self._mark(text)
        return f"{key} = {text[:20]}"

    def _removed(self, _: str, body: dict[str, Any]) -> str:
        place, key = self._random.choice(list(places(body)))
        if key != "max_tokens" or self._random.random() < _FREE:
            del place[key]
        return f"without {key}"

    def _added(self, _: str, body: dict[str, Any]) -> str:
        """A field that is there twice, or unknown, or of another kind of place."""
        objects = [place for place, _ in places(body) if isinstance(place, dict)]
        place = self._random.choice([body, *objects])
        key = self._random.choice(("x", "", "role", "n", "messages", "self", "\udfff", "y" * 5000))
        place[key] = self._mark(self._random.choice(HOSTILE))
        return f"with {key[:9]!r}"

    def _at_an_edge(self, path: str, body: dict[str, Any]) -> str:
        field, text = self._random.choice(self._fields[path])
        body[field] = self._mark(text)
        return f"{field} = {text[:20]}"


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON value with each of its keys."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


def edges(schema: Schema, components: Schema) -> list[tuple[str, str]]:
    """Fields with JSON texts at their bounds and just outside, and null."""
    found = []
    for field, about in schema["properties"].items():
        texts = [text for kind in _kinds(about, components) for text in _edges(kind)]
        found += [(field, text) for text in ("null", *texts) if not _dear(field, text)]
    return found


def _kinds(schema: Schema, components: Schema) -> Iterator[Schema]:
    if reference := schema.get("$ref"):
        schema = components[reference.rpartition("/")[2]]
    for inner in schema.get("anyOf", ()):
        yield from _kinds(inner, components)
    yield schema


def _edges(schema: Schema) -> Iterator[str]:
    for value in schema.get("enum", ()):
        yield json.dumps(value)
    for bound in ("minimum", "maximum", "exclusiveMinimum"):
        if bound in schema:
            yield from (json.dumps(schema[bound] + step) for step in (-1, -1e-9, 0, 1e-9, 1))
    for bound in ("maxLength", "minLength"):
        if schema.get(bound, _HUGE) < _HUGE:
            yield from (json.dumps("é" * (schema[bound] + step)) for step in (0, 1))
    for bound in ("maxItems", "minItems"):
        if schema.get(bound, _HUGE) < _HUGE:
            yield from (json.dumps(["a"] * (schema[bound] + step)) for step in (0, 1))


def _dear(field: str, text: str) -> bool:
    """Whether it would keep the model busy for long: a thousand times as many would cost hours."""
    return field in _LIMITS and text not in ("0", "-2", "1")


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _damaged(rng: random.Random, text: str) -> bytes:
    content = bytearray(_utf8(text))
    for _ in range(rng.randint(1, 4)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content)


def _cut(rng: random.Random, text: str) -> bytes:
    return _utf8(text)[: rng.randrange(len(text))]


def _in_another_code(rng: random.Random, text: str) -> bytes:
    return text.encode(rng.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7")), "replace")


def _followed(rng: random.Random, text: str) -> bytes:
    return _utf8(text) + rng.choice((b"\x00", b"}", b"{}", b"//", b"\xff"))


def _doubled(_: random.Random, text: str) -> bytes:
    """Every field of the body is there twice."""
    return _utf8(f"{text[:-1]},{text[1:]}")


def _too_large(_: random.Random, text: str) -> bytes:
    return _utf8(text) + b" " * (4 << 20)


_BENT: Final[tuple[Callable[[random.Random, str], bytes], ...]] = (
    *(_damaged, _cut, _in_another_code, _followed, _doubled) * 8,
    _too_large,
)
