"""Keeps an answer to a constraint: what is asked for becomes a grammar, and that rules out tokens.

llguidance does the work. A `Guide` follows the tokens of one answer, as far as they go: after a
preemption, a wrong guess or a worker's death it just catches up. What cannot be compiled is
refused; no answer is left without its constraint. What a compiled grammar has read it remembers
without end, so each request compiles its own, which takes a millisecond, and nothing is kept; all
of them together have a bound. Knows no requests and no llama.cpp.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from time import monotonic
from typing import Any, Final, Literal
from weakref import WeakSet

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, regex_to_lark
from llguidance.gbnf_to_lark import gbnf_to_lark

from inference.gguf_format import printable
from inference.schema_bounds import (
    SCHEMA,
    TOGETHER,
    grammar_problem,
    pattern_problem,
    schema_problem,
)
from inference.types import BadRequest, Constraint, InferenceError, Overloaded, Tool

# Whether an answer begins inside a think block, may open one, or does neither.
Opening = Literal["inside", "perhaps", "no"]
Grammar = dict[str, Any]

MOST_CALLS: Final = 32  # of one answer
_ROOM: Final = 256 << 20  # bytes for the grammars of all requests, waiting or running
_BYTES: Final = 140  # that a character becomes when it is compiled; many take less

# Up to one space, or a line break and its indentation: models loop on white space without end.
_SPACING: Final = {"whitespace_pattern": r"(\n[ \t]{0,32}|[ ])"}
_OBJECT: Final = {"type": "object"}
_OPEN_THINK, _END_THINK, _OPEN_CALL, _END_CALL = _TAGS = (
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
)
_NO_ROOM: Final = "The grammars of other requests take all the room; please try again later."
_SECONDS: Final = 2.0  # for the tools of one request, where not all of them compile
_LIMITS: Final = LLParserLimits(
    initial_lexer_fuel=200_000,
    step_lexer_fuel=100_000,  # 7 ms
    max_lexer_states=25_000,  # of 6 KB; a string with a maxLength of thousands takes several a byte
    max_grammar_size=200_000,
    verbose_errors=False,
)


@dataclass(frozen=True)
class Vocabulary:
    """What is needed of a model: the bytes of each token, which ones end a text, a tokeniser."""

    pieces: Sequence[bytes]
    end_tokens: Sequence[int]
    tokenize: Callable[[str], list[int]]

    @cached_property
    def tags(self) -> dict[str, int]:
        """Tags that are tokens of their own. Such a token never counts as the text of a tag, or an
        argument might end its call."""
        found = {tag: self.tokenize(tag) for tag in _TAGS}
        return {tag: ids[0] for tag, ids in found.items() if len(ids) == 1}

    @cached_property
    def tokenizer(self) -> LLTokenizer:
        """Takes 0.4 seconds where there are 151,936 tokens; only who needs it waits for it."""
        return LLTokenizer(_Tokens(self), len(self.pieces), list(self.end_tokens))  # type: ignore[arg-type]


class _Tokens:
    """A vocabulary as llguidance reads it."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokens = [*vocabulary.pieces]
        for token in vocabulary.end_tokens:
            self.tokens[token] = b""  # it ends a text, whatever it looks like
        self.eos_token_id = vocabulary.end_tokens[0]
        self.special_token_ids = [*vocabulary.tags.values()]
        self._tokenize = vocabulary.tokenize

    def __call__(self, text: str) -> list[int]:
        return self._tokenize(text)


class Guide:
    """Follows one answer, which begins after `start` tokens; takes about `size` bytes."""

    def __init__(
        self,
        matcher: LLMatcher,
        size: int,
        vocabulary: Vocabulary,
        constraint: Constraint,
        start: int,
    ) -> None:
        self.size = size
        self._matcher = matcher
        self._end_tokens = list(vocabulary.end_tokens)
        self._field = constraint.field
        self._seen = start
        self._bits = np.empty((len(vocabulary.pieces) + 31) // 32, np.int32)

    def follow(self, tokens: list[int]) -> None:
        """Catch up with `tokens`, prompt and answer."""
        if new := tokens[self._seen :]:
            self._seen = len(tokens)
            self._matcher.consume_tokens(new)

    def mask(
        self, row: npt.NDArray[np.float32], tokens: list[int], may_end: bool
    ) -> InferenceError | None:
        """Make impossible, in a row of logits, what may not follow `tokens`; or why there is
        nothing that may. Who must not end yet does so where nothing else is left."""
        self.follow(tokens)
        if problem := self.problem():
            return problem
        allowed = np.unpackbits(self._bits.view(np.uint8), count=len(row), bitorder="little")
        if not may_end:
            ends, allowed[self._end_tokens] = allowed[self._end_tokens], 0
            if not allowed.any():
                allowed[self._end_tokens] = ends
        np.putmask(row, allowed == 0, -np.inf)
        return None

    def problem(self) -> BadRequest | None:
        """Find out what may come next; why nothing may, if so."""
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        if self._matcher.is_error():
            return _refusal(self._field, _reason(self._matcher.get_error()))
        return None

    def take(self, token: int) -> bool:
        """Go on with `token`; whether the answer is whole with it."""
        self._seen += 1
        return self._matcher.consume_token(token) and self._matcher.is_stopped()


class Grammars:
    """Compiles constraints for the answers of one model."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._guides: WeakSet[Guide] = WeakSet()

    def guides(
        self,
        constraint: Constraint,
        tools: tuple[Tool, ...],
        opening: Opening,
        start: int,
        n: int = 1,
    ) -> list[Guide]:
        """A guide for each of `n` answers. `tools` are those that may be called, or must be.

        Raises BadRequest, and Overloaded where those of others leave no room. Where only the
        parameters of a tool are at fault, and it is not strict, any arguments will do.
        """
        if constraint.kind == "calls" and constraint.source:
            tools = tuple(tool for tool in tools if tool.name == constraint.source)
        _check(constraint.kind == "calls" and not tools and "no such tool", constraint.field)
        patience = monotonic() + _SECONDS
        try:
            matcher, size = self._matcher(constraint, tools, opening)
        except BadRequest:
            loosened = tuple(self._loosened(tool, patience) for tool in tools)
            if loosened == tools:
                raise
            matcher, size = self._matcher(constraint, loosened, opening)
        if sum(guide.size for guide in self._guides) + size > _ROOM:
            raise Overloaded(_NO_ROOM, constraint.field)
        guides = [
            Guide(matcher.deep_copy(), size // n, self._vocabulary, constraint, start)
            for _ in range(n)
        ]
        if problem := guides[0].problem():
            raise problem
        self._guides.update(guides)
        return guides

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

    def _matcher(
        self, constraint: Constraint, tools: tuple[Tool, ...], opening: Opening
    ) -> tuple[LLMatcher, int]:
        parts = [{"lark_grammar": self._frame(constraint, tools, opening)}]
        if constraint.kind != "calls":
            parts.append(_answer(constraint))
        for place, tool in enumerate(tools):
            parts.append(_arguments(f"arguments{place}", tool, "tools"))
        return self._compiled(parts, constraint.field)

    def _compiled(self, parts: list[Grammar], field: str) -> tuple[LLMatcher, int]:
        """A matcher, and about how many bytes it takes."""
        text = json.dumps({"grammars": parts})
        _check(len(text) > TOGETHER and f"{TOGETHER:,} characters at most, all in all", field)
        matcher = LLMatcher(self._vocabulary.tokenizer, text, log_level=0, limits=_LIMITS)
        if matcher.is_error():
            raise _refusal(field, _reason(matcher.get_error()))
        return matcher, _BYTES * len(text)

    def _frame(self, constraint: Constraint, tools: tuple[Tool, ...], opening: Opening) -> str:
        """What is around the parts: reasoning before them, a call's tags and name."""
        bodies = [] if constraint.kind == "calls" else ["@answer"]
        rules = [] if opening == "no" else self._thought()
        if tools:
            more = f' ("\\n" call){{0,{MOST_CALLS - 1}}}' if constraint.several else ""
            bodies.append("call" + more)
            functions = " | ".join(map(_call, range(len(tools)), tools))
            rules.append(
                f'call: {self._tag(_OPEN_CALL)} "\\n" ({functions}) "\\n" {self._tag(_END_CALL)}'
            )
        perhaps = f"({self._tag(_OPEN_THINK)} thought)?"
        first = {"no": "", "perhaps": perhaps, "inside": "thought"}[opening]
        return "\n".join([f"start: {first} body", f"body: {' | '.join(bodies)}", *rules])

    def _thought(self) -> list[str]:
        """Anything up to the tag that ends it, and some white space."""
        if _END_THINK not in self._vocabulary.tags:
            return ["thought: ended /[ \\n]{0,8}/", r"ended[lazy]: /(?s:.*)<\/think>/"]
        thought = r"THOUGHT: /(?s:.*)/ & ~/(?s:.*)<\/think>(?s:.*)/"
        return [f"thought: THOUGHT {self._tag(_END_THINK)} /[ \\n]{{0,8}}/", thought]

    def _tag(self, tag: str) -> str:
        token = self._vocabulary.tags.get(tag)
        return json.dumps(tag) if token is None else f"<[{token}]>"


def _call(place: int, tool: Tool) -> str:
    begin = json.dumps(f'{{"name": {json.dumps(tool.name)}, "arguments": ')
    return f'{begin} @arguments{place} "}}"'


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
        raise _refusal(field, "a schema is a JSON object")
    return schema


def _lark(source: str, field: str) -> str:
    """A grammar in Lark, or one as llama.cpp writes it, in Lark. Raises BadRequest."""
    if "::=" not in source:
        return source
    try:
        return gbnf_to_lark(source)
    except Exception as error:  # it raises nothing more exact where a rule is missing
        raise _refusal(field, _reason(str(error))) from None


def _check(problem: str | bool | None, field: str) -> None:
    if problem:
        raise _refusal(field, str(problem))


def _refusal(field: str, reason: str) -> BadRequest:
    return BadRequest(f"{field} cannot be used: {reason.rstrip('.')}.", field)


def _reason(error: str) -> str:
    """The sentence in an error of llguidance, which goes on with the whole of its input."""
    lines = error.split("\n")
    if "NoExtensionBias" in error:
        return "nothing fits it"
    said = next((line[7:] for line in lines if line.startswith("error: ")), lines[0])
    if "regex parse error" in error:
        said = f"pattern: {said}"
    elif said.startswith("Pointer"):
        said = f"$ref: {said}"
    return printable(said, most=200)
