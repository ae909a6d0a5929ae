"""How large what a client wants an answer to be may be, before anything is compiled from it.

Measured bounds: within them llguidance 1.9.1 compiles in a tenth of a second or says why not. Knows
nothing of llguidance.
"""

import math
import re
from decimal import Decimal
from typing import Any

SCHEMA = 64 << 10  # characters
TOGETHER = 512 << 10  # characters of all schemas of tools
DEPTH = 32
ENUM = 1000
PROPERTIES = 400  # of one object; each that is optional takes four places of 2,000 in a row
PATTERN = 512  # characters
NESTING = 16  # of groups in a pattern
REPEATS = 1000
GRAMMAR = 32 << 10  # characters
LINES = 2000
GROUPS = 64
MULTIPLE = 10_000  # the least common one: the time to compile grows with its square

_REPEAT = re.compile(r"\{(\d*),?(\d*)\}")


def schema_problem(schema: dict[str, Any]) -> str | None:
    """What a JSON schema has too much of, if anything."""
    level: list[Any] = [schema]
    multiple = 1
    for _ in range(DEPTH):
        for node in level:
            if isinstance(node, dict):
                if problem := _node_problem(node):
                    return problem
                multiple = math.lcm(multiple, _coefficient(node.get("multipleOf", 1)))
        if multiple > MULTIPLE:
            return f"the least common multiple of all multipleOf may be {MULTIPLE:,} at most"
        level = [below for node in level for below in _below(node)]
        if not level:
            return None
    return f"it is nested deeper than {DEPTH} levels"


def pattern_problem(pattern: str) -> str | None:
    """What a regular expression has too much of, if anything."""
    if len(pattern) > PATTERN:
        return f"a pattern may have {PATTERN} characters at most"
    if _nesting(pattern) > NESTING:
        return f"a pattern may nest {NESTING} groups at most"
    repeats = [count for found in _REPEAT.findall(pattern) for count in found if count]
    if any(len(count) > 4 or int(count) > REPEATS for count in repeats):
        return f"a pattern may repeat {REPEATS:,} times at most"
    return None


def grammar_problem(grammar: str) -> str | None:
    """What a grammar as text has too much of, if anything."""
    if len(grammar) > GRAMMAR:
        return f"a grammar may have {GRAMMAR:,} characters at most"
    if grammar.count("\n") > LINES:
        return f"a grammar may have {LINES:,} lines at most"
    if _nesting(grammar) > GROUPS:
        return f"a grammar may nest {GROUPS} groups at most"
    if "%json" in grammar:
        return "%json is for who asks for a schema, of which bounds can be checked"
    return None


def _node_problem(node: dict[str, Any]) -> str | None:
    match node.get("$ref"):
        case str(reference) if not reference.startswith("#"):
            return "$ref: only references within the schema (#...) are followed"
    values, properties = node.get("enum"), node.get("properties")
    if isinstance(values, list) and len(values) > ENUM:
        return f"enum: {ENUM:,} values at most"
    if isinstance(properties, dict) and len(properties) > PROPERTIES:
        return f"properties: {PROPERTIES} of one object at most"
    patterns = [node["pattern"]] if isinstance(node.get("pattern"), str) else []
    if isinstance(node.get("patternProperties"), dict):
        patterns += node["patternProperties"]
    return next(filter(None, map(pattern_problem, patterns)), None)


def _below(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []


def _coefficient(value: Any) -> int:
    """A number without its decimal point: 0.25 is 25."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value:
        return 1
    if not math.isfinite(value):
        return MULTIPLE + 1
    _, digits, exponent = Decimal(str(value)).normalize().as_tuple()
    whole = int("".join(map(str, digits)))
    return whole if int(exponent) <= 0 else whole * int("1" + "0" * min(int(exponent), 20))


def _nesting(text: str) -> int:
    """How deep parentheses are nested; those that are quoted count as well."""
    depth = deepest = 0
    for char in text:
        depth += (char == "(") - (char == ")")
        deepest = max(deepest, depth)
    return deepest
