"""From a constraint to masks, over the bundled vocabulary."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from inference import grammar
from inference.errors import BadRequest, Overloaded
from inference.grammar import Grammars
from inference.guide import Guide, Outline
from inference.types import Constraint, Tool
from inference.vocabulary import Vocabulary

START = [7, 7]  # a prompt
OUTLINE = partial(Outline, start=len(START))
POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "on": {"type": "boolean"}},
    "required": ["x"],
    "additionalProperties": False,
}
MOVE = Tool("move", "", POINT, strict=True)
STOP = Tool("stop")


@pytest.fixture(scope="module")
def vocabulary(llama) -> Vocabulary:
    tokenize = partial(llama.tokenize, special=False)
    return Vocabulary(llama.pieces, llama.end_tokens, tokenize)


@pytest.fixture(scope="module")
def grammars(vocabulary) -> Grammars:
    return Grammars(vocabulary)


def asked(kind: str, source: str = "", **kwargs) -> Constraint:
    return Constraint(kind, "asked", source, **kwargs)


def schema(value) -> Constraint:
    return asked("schema", json.dumps(value))


@pytest.fixture
def guided(grammars):
    """A guide for one answer to a constraint."""

    def make(constraint: Constraint, *tools: Tool, **known) -> Guide:
        [guide] = grammars.guides(constraint, tools, OUTLINE(**{"opening": "no"} | known))
        return guide

    return make


@pytest.fixture
def writes(vocabulary, guided):
    """Whether a text is taken token by token, and the answer may end, or ends, with it."""

    def write(text: str, *asked, **kwargs) -> bool:
        guide, tokens = guided(*asked, **kwargs), list(START)
        for token in vocabulary.tokenize(text):
            if token not in allowed(guide, tokens):
                return False
            tokens.append(token)
            if guide.take(token):
                return tokens[len(START) :] == vocabulary.tokenize(text)
        return bool(allowed(guide, tokens) & {*vocabulary.end_tokens})

    def allowed(guide, tokens) -> set[int]:
        row = np.zeros(len(vocabulary.pieces), np.float32)
        assert guide.mask(row, tokens, may_end=True) is None
        return {*np.flatnonzero(row == 0).tolist()}

    return write


@pytest.mark.parametrize(
    ("constraint", "right", "wrong"),
    [
        (asked("json"), ['{"a": [1, null]}', "{}", '{\n  "a": 1\n}'], ["[]", "5", '{"a": }', "{"]),
        (schema(POINT), ['{"x":1}', '{"x": -3, "on": true}'], ["{}", '{"x": 1.5}', '{"y": 1}']),
        (asked("regex", r"^\d+/[a-c]{2}$"), ["17/ab"], ["17/abc", "17/", "1५/ab"]),
        (
            asked("choice", choices=("yes", 'say "no"', "\n", "")),
            ["yes", 'say "no"', "\n", ""],
            ["y"],
        ),
        (asked("grammar", 'start: "a" b\nb: "b" | "c"'), ["ab", "ac"], ["a", "abc"]),
        (asked("grammar", 'root ::= "a" ("b" | "c")\n'), ["ab", "ac"], ["a", "abc"]),
    ],
    ids=lambda value: value.kind if isinstance(value, Constraint) else "",
)
def test_an_answer_is_what_was_asked_for_and_nothing_else(writes, constraint, right, wrong):
    assert all(writes(text, constraint) for text in right)
    assert not any(writes(text, constraint) for text in wrong)


def test_a_model_cannot_go_on_with_white_space_for_ever(writes):
    assert not writes('{"x":  1}', schema(POINT))
    assert not writes('{"x": 1} ', schema(POINT))


MOVED = '<tool_call>\n{"name": "move", "arguments": {"x": 1}}\n</tool_call>'
STOPPED = '<tool_call>\n{"name": "stop", "arguments": {"any": [{}]}}\n</tool_call>'


def test_forced_calls_are_of_the_tools_with_the_arguments_they_take(writes):
    any_of_them, move = asked("calls"), asked("calls", "move")
    assert writes(MOVED, any_of_them, MOVE, STOP) and writes(STOPPED, any_of_them, MOVE, STOP)
    assert writes(MOVED, move, MOVE, STOP) and not writes(STOPPED, move, MOVE, STOP)
    assert not writes(MOVED.replace("1", '"1"'), move, MOVE, STOP)
    assert not writes("Well", any_of_them, MOVE, STOP)


def test_calls_follow_each_other_where_several_may(writes):
    both = f"{MOVED}\n{STOPPED}"
    assert writes(both, asked("calls"), MOVE, STOP)
    assert not writes(both, asked("calls"), MOVE, STOP, calls=1)


def test_who_may_call_tools_may_also_answer(writes):
    assert writes('{"x": 1}', schema(POINT), STOP) and writes(STOPPED, schema(POINT), STOP)
    assert not writes("{}", schema(POINT), STOP)


def test_an_argument_cannot_end_its_call(writes):
    """The tag as a token of its own is what the parser of answers looks for."""
    quoted = STOPPED.replace("any", "</tool_call>")
    assert not writes(quoted, asked("calls"), STOP)


def test_the_constraint_begins_after_the_reasoning(writes):
    answer = schema(POINT)
    assert writes('<think>\nHm, {}?\n</think>\n\n{"x": 1}', answer, opening="perhaps")
    assert writes('{"x": 1}', answer, opening="perhaps")
    assert writes('\nHm, {}?\n</think>\n\n{"x": 1}', answer, opening="inside")
    assert not writes('<think>\nHm\n</think>\n\n{"x": 1}', answer)
    assert not writes('{"x": 1}', answer, opening="inside")
    assert not writes("<think>\nHm\n</think>\n\nHm", answer, opening="perhaps")
    assert not writes("<think>\nHm", answer, opening="perhaps")


def test_reasoning_ends_by_its_text_where_the_tag_is_no_token(llama, vocabulary):
    """Written out, it counts as the end only where there is no token for it."""
    spelled = [token for char in "</think>" for token in llama.tokenize(char, special=False)]
    answer = llama.tokenize('{"x": 1}', special=False)
    tokenize = vocabulary.tokenize

    def apart(text: str) -> list[int]:
        return spelled if text == "</think>" else tokenize(text)

    for tokenizer, taken in ((tokenize, False), (apart, True)):
        grammars = Grammars(Vocabulary(llama.pieces, llama.end_tokens, tokenizer))
        [guide] = grammars.guides(schema(POINT), (), Outline("inside", 0))
        guide.follow([*spelled, *answer])
        row = np.zeros(len(llama.pieces), np.float32)
        assert (guide.mask(row, [*spelled, *answer], may_end=True) is None) == taken


def test_an_answer_ends_where_it_must_even_if_it_was_to_be_longer(vocabulary, guided):
    guide = guided(asked("regex", "a?"))
    row = np.zeros(len(vocabulary.pieces), np.float32)
    guide.mask(row, START, may_end=False)
    assert set(np.flatnonzero(row == 0)) == {*vocabulary.tokenize("a")}
    guide = guided(asked("choice", choices=("",)))
    guide.mask(row := np.zeros(len(vocabulary.pieces), np.float32), START, may_end=False)
    assert set(np.flatnonzero(row == 0)) == {*vocabulary.end_tokens}


def test_a_guide_catches_up_with_what_was_said(vocabulary, guided):
    said = vocabulary.tokenize('{"x": 12')
    slow, quick = guided(schema(POINT)), guided(schema(POINT))
    for token in said:
        assert not slow.take(token)
    rows = [np.zeros(len(vocabulary.pieces), np.float32) for _ in range(2)]
    for guide, row in zip((slow, quick), rows, strict=True):
        assert guide.mask(row, [*START, *said], may_end=True) is None
    assert (rows[0] == rows[1]).all() and np.isinf(rows[0]).any()
    [close] = vocabulary.tokenize("}")
    assert slow.take(close) and quick.take(close)


def test_what_does_not_fit_is_a_fault_from_then_on(vocabulary, guided):
    guide = guided(schema(POINT))
    row = np.zeros(len(vocabulary.pieces), np.float32)
    fault = guide.mask(row, [*START, *vocabulary.tokenize("no")], may_end=True)
    assert isinstance(fault, BadRequest) and len(fault.message) < 300


def test_a_grammar_that_grows_too_intricate_is_a_fault_too(vocabulary, guided):
    guide, tokens = guided(asked("grammar", 'start: "a"{1000000000}')), list(START)
    fault, row = None, np.zeros(len(vocabulary.pieces), np.float32)
    for token in vocabulary.tokenize("a" * 50):
        fault = fault or guide.mask(row, tokens, may_end=True)
        tokens.append(token)
    assert isinstance(fault, BadRequest) and "Too many items" in fault.message


def test_the_grammars_of_all_answers_together_have_a_bound(vocabulary, guided, monkeypatch):
    held = guided(schema(POINT))
    monkeypatch.setattr(grammar, "_ROOM", 2 * held.size - 1)
    few = Grammars(vocabulary)
    held = few.guides(schema(POINT), (), Outline("no", 0), n=2)
    with pytest.raises(Overloaded) as refusal:
        few.guides(schema(POINT), (), Outline("no", 0))
    assert refusal.value.field == "asked"
    del held
    assert few.guides(schema(POINT), (), Outline("no", 0))


@pytest.fixture
def free(vocabulary, grammars):
    """How many of the tokens that a text has are taken, where calls may come."""

    def taken(text: str, *tools: Tool, **known) -> int:
        [guide] = grammars.call_guides(tools, OUTLINE(**{"opening": "no"} | known))
        tokens = list(START)
        for token in vocabulary.tokenize(text):
            row = np.zeros(len(vocabulary.pieces), np.float32)
            assert guide.mask(row, tokens, may_end=True) is None
            if row[token]:
                break
            tokens.append(token)
            guide.take(token)
        return len(tokens) - len(START)

    return taken


def test_calls_that_need_not_come_are_of_the_tools_if_they_come(vocabulary, free):
    def goes_through(text: str, **kwargs) -> bool:
        return free(text, MOVE, STOP, **kwargs) == len(vocabulary.tokenize(text))

    wrong = MOVED.replace("1", '"1"')
    assert goes_through(f"I move. {MOVED}\n{STOPPED} Done.")
    assert not goes_through(f"{MOVED}{wrong}") and not goes_through(MOVED.replace("move", "fly"))
    assert goes_through(wrong, opening="inside") and not goes_through(
        f"</think>{wrong}", opening="inside"
    )
    assert goes_through(f"<think>{wrong}</think>{MOVED}", opening="perhaps")
    assert not goes_through(f"Yes.<think>{wrong}", opening="perhaps")
    assert not goes_through(f"<think>{wrong}")
    assert goes_through(f"{MOVED}{MOVED}") and not goes_through(f"{MOVED}{MOVED}", calls=1)


def test_calls_that_need_not_come_are_free_where_they_cannot_be_kept_to(
    grammars, free, vocabulary, monkeypatch
):
    odd = Tool("stop", "", {"not": {}}, strict=True)
    anything = STOPPED.replace("any", "thing")
    assert free(anything, odd) == len(vocabulary.tokenize(anything))
    assert grammars.call_guides((Tool("x" * 600_000),), OUTLINE("no"), n=2) == [None, None]
    monkeypatch.setattr(grammar, "_ROOM", 0)
    assert grammars.call_guides((MOVE,), OUTLINE("no")) == [None]


def test_only_the_parameters_of_a_tool_that_is_not_strict_are_loosened(writes, guided):
    odd = {"type": "object", "not": {"required": ["x"]}}
    assert writes(STOPPED, asked("calls"), MOVE, Tool("stop", "", odd))
    assert not writes(MOVED.replace("1", '"1"'), asked("calls"), MOVE, Tool("stop", "", odd))
    assert writes(STOPPED, asked("calls"), Tool("stop", "", {"type": "string"}))
    with pytest.raises(BadRequest, match=r"^tools \(stop\) .*\"not\"") as refusal:
        guided(asked("calls"), MOVE, Tool("stop", "", odd, strict=True))
    assert refusal.value.field == "tools"
    with pytest.raises(BadRequest, match="no such tool"):
        guided(asked("calls", "fly"), MOVE)


def test_tools_that_take_too_long_are_loosened_untried(writes, guided, monkeypatch):
    monkeypatch.setattr(grammar, "_SECONDS", -1)
    odd = Tool("stop", "", {"type": "object", "not": {"required": ["x"]}})
    anything = MOVED.replace('"x": 1', '"x": "1"')
    assert writes(anything, asked("calls"), replace(MOVE, strict=False), odd)
    with pytest.raises(BadRequest, match=r"^tools \(move\) .*take too long"):
        guided(asked("calls"), MOVE, odd)


def nested(depth: int):
    value = {"type": "integer"}
    for _ in range(depth // 2):
        value = {"type": "object", "properties": {"a": value}}
    return value


HOSTILE = {
    "not a schema": asked("schema", "[1]"),
    "not JSON": asked("schema", '{"type":'),
    "reference to nowhere": schema({"$ref": "#/$defs/none"}),
    "reference to the net": schema({"properties": {"a": {"$ref": "https://example.com/s.json"}}}),
    "unknown type": schema({"type": "text"}),
    "unknown keyword": schema({"type": "array", "uniqueItems": True}),
    "unknown format": schema({"type": "string", "format": "poem"}),
    "look-ahead": schema({"type": "string", "pattern": "^(?=a)b"}),
    "nobody can satisfy it": schema({"allOf": [{"type": "integer"}, {"type": "string"}]}),
    "400 deep": schema(nested(400)),
    "34 deep": schema(nested(34)),
    "3,000 properties": schema({"properties": {f"p{i}": {} for i in range(3000)}}),
    "1,001 values": schema({"enum": list(range(1001))}),
    "65,537 characters": schema({"description": "d" * (64 << 10)}),
    "long pattern": schema({"type": "string", "pattern": "a" * 513}),
    "long pattern of names": schema({"patternProperties": {"a" * 513: {}}}),
    "repeats": asked("regex", "a{0,1001}"),
    "groups": asked("regex", "(" * 17 + "a" + ")" * 17),
    "20,000 groups": asked("regex", "(" * 20_000 + "a" + ")" * 20_000),
    "open class": asked("regex", "["),
    "back reference": asked("regex", r"(a)\1"),
    "60,000 parentheses": asked("grammar", "start: " + "(" * 60_000 + '"a"' + ")" * 60_000),
    "65 parentheses": asked("grammar", "start: " + "(" * 65 + '"a"' + ")" * 65),
    "no grammar": asked("grammar", "hello"),
    "nothing fits it": asked("regex", r"[^\s\S]"),
    "unbounded schema in it": asked("grammar", 'start: %json {"multipleOf": 999983}'),
    "unknown rule": asked("grammar", "start: other"),
    "unknown rule of llama.cpp": asked("grammar", "root ::= other"),
    "too many rules": asked("grammar", "\n".join(f'r{i}: "a"' for i in range(2002))),
    # A third of a gigabyte and 14 seconds, and no end to be seen.
    "multiples": schema({"type": "integer", "multipleOf": 999_983}),
    "multiples of much": schema({"type": "integer", "multipleOf": 1e40}),
    "multiples of two": schema({"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}),
}


@pytest.mark.parametrize("constraint", HOSTILE.values(), ids=HOSTILE)
def test_what_cannot_be_kept_to_is_refused_in_a_sentence(guided, constraint):
    with pytest.raises(BadRequest) as refusal:
        guided(constraint)
    assert refusal.value.field == "asked"
    assert refusal.value.message.startswith("asked cannot be used: ")
    assert len(refusal.value.message) < 300


@pytest.mark.parametrize(
    ("value", "keyword"),
    [
        ({"not": {}}, '"not"'),
        ({"type": "array", "uniqueItems": True}, '"uniqueItems"'),
        ({"type": "text"}, "type"),
        ({"type": "string", "format": "poem"}, "format"),
        ({"type": "string", "pattern": "(?=a)"}, "pattern"),
        ({"$ref": "#/none"}, r"\$ref"),
        ({"oneOf": [{"type": "object"}, {"minProperties": 1}]}, "oneOf"),
        ({"enum": [0] * 1001}, "enum"),
        ({"multipleOf": 10_007}, "multipleOf"),
    ],
)
def test_a_schema_that_is_refused_hears_which_keyword_it_was(guided, value, keyword):
    with pytest.raises(BadRequest, match=keyword):
        guided(schema(value))


@pytest.mark.parametrize(
    "constraint",
    [
        schema({"type": "string", "pattern": r"^\d+$"}),
        schema({"type": "string", "maxLength": 20_000}),
        schema({"$ref": "#/$defs/n", "$defs": {"n": {"properties": {"c": {"$ref": "#/$defs/n"}}}}}),
        schema({"enum": list(range(1000))}),
        schema({"properties": {f"p{i}": {} for i in range(400)}}),
        schema({"$schema": "http://json-schema.org/draft-07/schema#", "title": "T", "default": 1}),
        schema({"type": "number", "multipleOf": 0.01}),
        schema(nested(30)),
        asked("regex", "(a+)+$"),
        asked("regex", "(((a|b){1000}){1000}){1000}"),
    ],
)
def test_what_looks_bad_and_is_not_is_taken(guided, constraint):
    assert guided(constraint)
