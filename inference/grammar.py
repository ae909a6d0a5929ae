"""Keeps an answer to a constraint: what is asked for becomes a grammar, and that rules out tokens.

llguidance does the work. What cannot be compiled is refused; no answer is left without its
constraint. Calls that come without being forced are kept to what the tools take, where that can be.
What a compiled grammar has read it remembers without end, so each request compiles its own, which
takes a millisecond, and nothing is kept; all of them together have a bound. Knows no requests and
no llama.cpp.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from time import monotonic
from typing import Any, Final
from weakref import WeakSet

from llguidance import LLMatcher, LLParserLimits, regex_to_lark
from llguidance.gbnf_to_lark import gbnf_to_lark

from inference.errors import BadRequest, Overloaded
from inference.guide import CallGuide, Guide, Outline, reason_of, refusal
from inference.schema_bounds import (
    SCHEMA,
    TOGETHER,
    grammar_problem,
    pattern_problem,
    schema_problem,
)
from inference.types import Constraint, Tool
from inference.vocabulary import END_CALL, END_THINK, OPEN_CALL, OPEN_THINK, TAGS, Vocabulary

Grammar = dict[str, Any]
Matcher = tuple[LLMatcher, int]  # and about how many bytes it takes

_ROOM: Final = 256 << 20  # bytes for the grammars of all requests, waiting or running
_BYTES: Final = 140  # that a character becomes when it is compiled; many take less

# Up to one space, or a line break and its indentation: models loop on white space without end.
_SPACING: Final = {"whitespace_pattern": r"(\n[ \t]{0,32}|[ ])"}
_OBJECT: Final = {"type": "object"}
_NO_ROOM: Final = "The grammars of other requests take all the room; please try again later."
_SECONDS: Final = 2.0  # for the tools of one request, where not all of them compile
_LIMITS: Final = LLParserLimits(
    initial_lexer_fuel=200_000,
    step_lexer_fuel=100_000,  # 7 ms
    max_lexer_states=25_000,  # of 6 KB; a string with a maxLength of thousands takes several a byte
    max_grammar_size=200_000,
    verbose_errors=False,
)


class Grammars:
    """Compiles constraints for the answers of one model."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._guides: WeakSet[Guide | CallGuide] = WeakSet()

    def guides(
        self, constraint: Constraint, tools: tuple[Tool, ...], outline: Outline, n: int = 1
    ) -> list[Guide]:
        """A guide for each of `n` answers. `tools` are those that may be called, or must be.

        Raises BadRequest, and Overloaded where those of others leave no room. Where only the
        parameters of a tool are at fault, and it is not strict, any arguments will do.
        """
        if constraint.kind == "calls" and constraint.source:
            tools = tuple(tool for tool in tools if tool.name == constraint.source)
        _check(constraint.kind == "calls" and not tools and "no such tool", constraint.field)

        def compiled(tools: tuple[Tool, ...]) -> Matcher:
            answer = [] if constraint.kind == "calls" else [_answer(constraint)]
            frame = self._frame(constraint, tools, outline)
            return self._compiled([frame, *answer, *_all_arguments(tools)], constraint.field)

        matcher, size = self._loosely(tools, compiled)
        if self._used + size > _ROOM:
            raise Overloaded(_NO_ROOM, constraint.field)
        words, field = self._vocabulary, constraint.field
        start = outline.start
        guides = [Guide(matcher.deep_copy(), size // n, words, field, start) for _ in range(n)]
        if problem := guides[0].problem():
            raise problem
        self._guides.update(guides)
        return guides

    def call_guides(
        self, tools: tuple[Tool, ...], outline: Outline, n: int = 1
    ) -> list[CallGuide] | list[None]:
        """A guide for the calls that each of `n` answers may make of these tools; none where calls
        cannot be kept to them, or where others, who have to be kept to something, need the room."""

        def compiled(tools: tuple[Tool, ...]) -> Matcher:
            frame = {"lark_grammar": f"start: {self._rest_of_call(tools)}"}
            return self._compiled([frame, *_all_arguments(tools)], "tools")

        if self._vocabulary.tags.keys() != {*TAGS}:
            return [None] * n
        try:
            free = tuple(replace(tool, strict=False) for tool in tools)
            matcher, size = self._loosely(free, compiled)
        except BadRequest:
            return [None] * n
        if self._used + size > _ROOM // 2:
            return [None] * n
        guides = [CallGuide(matcher, size // n, self._vocabulary, outline) for _ in range(n)]
        self._guides.update(guides)
        return guides

    @property
    def _used(self) -> int:
        """About how many bytes the grammars of all requests take."""
        return sum(guide.size for guide in self._guides)

    def _loosely(
        self, tools: tuple[Tool, ...], compiled: Callable[[tuple[Tool, ...]], Matcher]
    ) -> Matcher:
        """What is `compiled` of the tools, or of what is left of them. Raises BadRequest."""
        patience = monotonic() + _SECONDS
        try:
            return compiled(tools)
        except BadRequest:
            loosened = tuple(self._loosened(tool, patience) for tool in tools)
            if loosened == tools:
                raise
            return compiled(loosened)

    def _loosened(self, tool: Tool, patience: float) -> Tool:
        """`tool`, without parameters where answers cannot be kept to them, or where trying that
        would take too long: who else asks for something waits meanwhile."""
        try:
            name = f"tools ({tool.name})"
            _check(monotonic() > patience and "all of them together take too long", name)
            self._compiled([_arguments("", tool, name)], name)
        except BadRequest as error:
            if tool.strict:
                raise BadRequest(error.message, "tools") from None
            return replace(tool, parameters={})
        return tool

    def _compiled(self, parts: list[Grammar], field: str) -> Matcher:
        text = json.dumps({"grammars": parts})
        _check(len(text) > TOGETHER and f"{TOGETHER:,} characters at most, all in all", field)
        matcher = LLMatcher(self._vocabulary.tokenizer, text, log_level=0, limits=_LIMITS)
        if matcher.is_error():
            raise refusal(field, reason_of(matcher.get_error()))
        return matcher, _BYTES * len(text)

    def _frame(self, constraint: Constraint, tools: tuple[Tool, ...], outline: Outline) -> Grammar:
        """What is around the parts: reasoning before them, a call's tags and name."""
        bodies = [] if constraint.kind == "calls" else ["@answer"]
        rules = [] if outline.opening == "no" else self._thought()
        if tools:
            more = outline.calls - 1
            bodies.append(f'call ("\\n" call){{0,{more}}}' if more else "call")
            rules.append(f"call: {self._tag(OPEN_CALL)} {self._rest_of_call(tools)}")
        perhaps = f"({self._tag(OPEN_THINK)} thought)?"
        first = {"no": "", "perhaps": perhaps, "inside": "thought"}[outline.opening]
        lines = [f"start: {first} body", f"body: {' | '.join(bodies)}", *rules]
        return {"lark_grammar": "\n".join(lines)}

    def _rest_of_call(self, tools: tuple[Tool, ...]) -> str:
        """What follows the tag that opens a call."""
        functions = " | ".join(map(_call, range(len(tools)), tools))
        return f'"\\n" ({functions}) "\\n" {self._tag(END_CALL)}'

    def _thought(self) -> list[str]:
        """Anything up to the tag that ends it, and some white space."""
        if END_THINK not in self._vocabulary.tags:
            return ["thought: ended /[ \\n]{0,8}/", r"ended[lazy]: /(?s:.*)<\/think>/"]
        thought = r"THOUGHT: /(?s:.*)/ & ~/(?s:.*)<\/think>(?s:.*)/"
        return [f"thought: THOUGHT {self._tag(END_THINK)} /[ \\n]{{0,8}}/", thought]

    def _tag(self, tag: str) -> str:
        token = self._vocabulary.tags.get(tag)
        return json.dumps(tag) if token is None else f"<[{token}]>"


def _call(place: int, tool: Tool) -> str:
    begin = json.dumps(f'{{"name": {json.dumps(tool.name)}, "arguments": ')
    return f'{begin} @arguments{place} "}}"'


def _all_arguments(tools: tuple[Tool, ...]) -> Iterator[Grammar]:
    for place, tool in enumerate(tools):
        yield _arguments(f"arguments{place}", tool, "tools")


def _arguments(name: str, tool: Tool, field: str) -> Grammar:
    """The part of the grammar for a tool's arguments, which are an object in any case."""
    _check(tool.parameters.get("type", "object") != "object" and "type: not an object", field)
    return _schema(name, _OBJECT | tool.parameters, field)


def _answer(constraint: Constraint) -> Grammar:
    """The part of the grammar that is asked for. Raises BadRequest."""
    source, field = constraint.source, constraint.field
    match constraint.kind:
        case "schema":
            return _schema("answer", _read(source, field), field)
        case "regex":
            _check(pattern_problem(source), field)
            lark = f"start: /{regex_to_lark(source, use_ascii='d')}/"
        case "choice":
            lark = "start: " + " | ".join(json.dumps(choice) for choice in constraint.choices)
        case "grammar":
            _check(grammar_problem(source), field)
            lark = _lark(source, field)
        case _:
            return _schema("answer", _OBJECT, field)
    return {"name": "answer", "lark_grammar": lark}


def _schema(name: str, schema: dict[str, Any], field: str) -> Grammar:
    _check(len(json.dumps(schema)) > SCHEMA and f"{SCHEMA:,} characters at most", field)
    _check(schema_problem(schema), field)
    return {"name": name, "json_schema": schema | {"x-guidance": _SPACING}}


def _read(source: str, field: str) -> dict[str, Any]:
    try:
        schema = json.loads(source)
    except (ValueError, RecursionError):
        schema = None
    if not isinstance(schema, dict):
        raise refusal(field, "a schema is a JSON object")
    return schema


def _lark(source: str, field: str) -> str:
    """A grammar in Lark, or one as llama.cpp writes it, in Lark. Raises BadRequest."""
    if "::=" not in source:
        return source
    try:
        return gbnf_to_lark(source)
    except Exception as error:  # it raises nothing more exact where a rule is missing
        raise refusal(field, reason_of(str(error))) from None


def _check(problem: str | bool | None, field: str) -> None:
    if problem:
        raise refusal(field, str(problem))
