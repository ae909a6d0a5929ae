"""The stream parser: channels do not depend on how the text was cut."""

from itertools import accumulate, cycle, pairwise, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.parser import Arguments, Call, Piece, Reasoning, StreamParser, Text

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
ODD = '{"city": "a \\" </tool_call> b"}'
WEATHER = Call("weather", '{"city": "Oslo"}')

SAMPLES: list[tuple[str, list[Piece]]] = [
    ("Hello there.", [Text("Hello there.")]),
    ("  kept\n", [Text("  kept\n")]),
    ("<think>\nhm\n\nwell\n</think>\n\nYes.", [Reasoning("hm\n\nwell"), Text("Yes.")]),
    ("<think>\n\n</think>\n\nYes.", [Text("Yes.")]),
    ("\n<think>cut off", [Reasoning("cut off")]),
    ("The <think> tag", [Text("The <think> tag")]),
    ("<think>a</think>b <think> c", [Reasoning("a"), Text("b <think> c")]),
    (CALL, [WEATHER]),
    (CALL.replace("Oslo", 'a \\" </tool_call> b'), [Call("weather", ODD)]),
    (f"Let me see.\n{CALL}\n{CALL}", [Text("Let me see."), WEATHER, WEATHER]),
    (f"<think>\nlook\n</think>\n\n{CALL}", [Reasoning("look"), WEATHER]),
    ("<tool_call>\nnot json\n</tool_call>", [Text("<tool_call>\nnot json\n</tool_call>")]),
    ('<tool_call>{"name": 3}</tool_call>', [Text('<tool_call>{"name": 3}</tool_call>')]),
    ("<tool_call>{never closed", [Text("<tool_call>{never closed")]),
    ("Hi\n<tool_call>{</tool_call>\nBye", [Text("Hi\n<tool_call>{</tool_call>\nBye")]),
    ("Hi\n<tool_call>{never", [Text("Hi\n<tool_call>{never")]),
    ("a < b </think c", [Text("a < b </think c")]),
    ("It ends in <tool_cal", [Text("It ends in <tool_cal")]),
    ("<think>hm</thin", [Reasoning("hm</thin")]),
]


def parse(parts: list[str], **said: bool) -> list[Piece]:
    parser = StreamParser(**{"thinking": False, "tools": True} | said)
    pieces = [piece for part in parts for piece in parser.feed(part)]
    return joined(pieces + parser.finish())


def joined(pieces: list[Piece]) -> list[Piece]:
    """Neighbours of one channel as one piece."""
    result: list[Piece] = []
    for piece in pieces:
        match result[-1:], piece:
            case [[Text(before)], Text(text)]:
                result[-1] = Text(before + text)
            case [[Reasoning(before)], Reasoning(text)]:
                result[-1] = Reasoning(before + text)
            case [[Call(name, before)], Arguments(text)]:
                result[-1] = Call(name, before + text)
            case _:
                result.append(piece)
    return result


@pytest.mark.parametrize(("text", "expected"), SAMPLES)
def test_every_way_to_cut_a_text_in_three_gives_the_same_channels(text, expected):
    for first in range(len(text) + 1):
        for second in range(first, len(text) + 1):
            assert parse([text[:first], text[first:second], text[second:]]) == expected


@pytest.mark.parametrize(("text", "expected"), SAMPLES)
def test_one_character_at_a_time_gives_the_same_channels(text, expected):
    assert parse(list(text)) == expected


FRAGMENTS = st.sampled_from(
    [
        *(
            "<think>",
            "</think>",
            "<tool_call>",
            "</tool_call>",
            CALL,
            "<",
            "</t",
            "think>",
            "\n",
            " ",
        ),
        *("a", "ß\U0001f600", '{"name": "f", "arguments": {}}', '{"name"', "null", "[" * 9, "\0"),
    ]
)


LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@given(st.lists(FRAGMENTS, max_size=12), LENGTHS, st.booleans(), st.booleans(), st.booleans())
def test_any_way_to_cut_any_text_gives_the_same_channels(
    fragments, lengths, thinking, tools, guided
):
    text = "".join(fragments)
    edges = accumulate(cycle(lengths), initial=0)
    parts = [text[a:b] for a, b in takewhile(lambda edge: edge[0] < len(text), pairwise(edges))]
    known = {"thinking": thinking, "tools": tools, "guided": guided}
    whole = parse([text], **known)
    assert parse(parts, **known) == whole
    assert tools or not any(isinstance(piece, Call) for piece in whole)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CALL, [WEATHER]),
        (CALL.replace("Oslo", 'a \\" </tool_call> b'), [Call("weather", ODD)]),
        (f"Let me see.\n{CALL}\n{CALL}", [Text("Let me see."), WEATHER, WEATHER]),
        (CALL[:50], [Call("weather", '{"cit')]),
        (CALL[: CALL.index("{", 20)], [Text(CALL[: CALL.index("{", 20)])]),
        (CALL.replace('"Oslo"', "1e999"), [Call("weather", '{"city": 1e999}')]),
        (
            '<tool_call>\n{"name": 3, "arguments": {}}',
            [Text('<tool_call>\n{"name": 3, "arguments": {}}')],
        ),
    ],
)
def test_a_guided_call_is_what_was_written_however_it_is_cut(text, expected):
    for size in range(1, len(text) + 1):
        parts = [text[at : at + size] for at in range(0, len(text), size)]
        assert parse(parts, guided=True) == expected


def test_arguments_of_a_guided_call_flow_before_it_is_complete():
    parser = StreamParser(thinking=False, tools=True, guided=True)
    assert parser.feed(CALL[:50]) == [Call("weather", '{"cit')]
    assert parser.feed('y": "O') == [Arguments('y": "O')]


def test_a_prompt_that_opened_the_think_block_starts_in_reasoning():
    assert parse(["hm</think>\nYes"], thinking=True) == [Reasoning("hm"), Text("Yes")]


def test_without_tools_a_tool_call_is_text():
    assert parse([CALL], tools=False) == [Text(CALL)]


def test_text_flows_before_the_answer_is_complete():
    parser = StreamParser(thinking=False, tools=True)
    assert parser.feed("Hello") == [Text("Hello")]
    assert parser.feed(" <to") == []
    assert parser.feed("wer>") == [Text(" <tower>")]


@pytest.mark.parametrize(
    ("begun", "rest", "expected"),
    [
        ("", "Yes", [Text("Yes")]),
        ("", "<think>hm</think>Yes", [Reasoning("hm"), Text("Yes")]),
        ("1, 2,", " 3", [Text(" 3")]),
        ("1, 2, ", "3", [Text("3")]),
        ("a <", " b", [Text(" b")]),
        ("a", " <think> b", [Text(" <think>"), Text(" b")]),
        ("<think>\nhm", " so\n</think>\n\nYes", [Reasoning(" so"), Text("Yes")]),
        ("<think>\nhm\n</think>\n\n", "Yes", [Text("Yes")]),
        ("<think>\nhm\n</think>\n\nY", "es ", [Text("es"), Text(" ")]),
        (CALL[:20], CALL[20:], [WEATHER]),
        (f"I look.\n{CALL[:-3]}", f"{CALL[-3:]}\n{CALL}", [WEATHER, WEATHER]),
        ("I look. <tool_call>[", "]</tool_call> no", [Text("]</tool_call>"), Text(" no")]),
        ("<tool_call>[</tool_", "!", [Text("!")]),
        ("<think>", "\nhm", [Reasoning("hm")]),
        ("<think>\n<tool_call>", "hm", [Reasoning("hm")]),
        ("<think></think>a </tool_call> <think>", "b", [Text("b")]),
        (f"{CALL}\n", f"\n{CALL}\nb", [WEATHER, Text("b")]),
        ("a\n", "\n<think>", [Text("\n<think>")]),
    ],
)
def test_an_answer_goes_on_from_where_it_was_begun(begun, rest, expected):
    thinking = begun.startswith("<think>") and "</think>" not in begun
    parser = StreamParser(thinking=thinking, tools=True, begun=begun)
    assert parser.feed(rest) + parser.finish() == expected


def test_thoughts_that_were_begun_and_closed_for_want_of_a_budget_are_over():
    parser = StreamParser(thinking=False, tools=True, begun="<think>\nhm")
    assert parser.feed("Yes") + parser.finish() == [Text("Yes")]


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", "1e999", '"\\ud800"', "[" * 9999]
)
def test_a_call_of_what_json_cannot_say_stays_text(value):
    text = f'<tool_call>{{"name": "f", "arguments": {{"x": {value}}}}}</tool_call>'
    assert parse([text]) == [Text(text)]


def test_half_a_surrogate_pair_is_no_name():
    text = '<tool_call>{"name": "\\ud800", "arguments": {}}</tool_call>'
    assert parse([text]) == [Text(text)]


def test_an_answer_that_is_kept_to_something_is_calls_or_has_none():
    answer = f'{{"tags": "<think>"}}{CALL}'
    for text, expected in (
        (answer, [Text(answer)]),
        (f"<think>\nhm\n</think>\n\n{answer}", [Reasoning("hm"), Text(answer)]),
        (f"<think>\nhm\n</think>\n\n{CALL}\n{CALL}", [Reasoning("hm"), WEATHER, WEATHER]),
    ):
        for parts in ([text], list(text)):
            assert parse(parts, either=True) == expected
    parser = StreamParser(thinking=False, tools=True, either=True)
    assert parser.feed('{"tag": "<tool_call>') == [Text('{"tag": "'), Text("<tool_call>")]


def test_without_tools_a_call_that_was_begun_is_text():
    parser = StreamParser(thinking=False, tools=False, begun="<tool_call>")
    assert parser.feed("{}</tool_call>") == [Text("{}</tool_call>")]
