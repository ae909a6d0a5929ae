"""The thoughts of an answer and the rest of it are the same, however the text is cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.preamble import Preamble
from inference.text_out import TextOut

THOUGHTS = "\n<think>\nhm\n</think>\n\n"
SAMPLES = [
    ("Yes.", "", "Yes."),
    (" \nYes. <think>", "", " \nYes. <think>"),
    ("\n<thin", "", "\n<thin"),
    (f"{THOUGHTS}Yes.\n", THOUGHTS, "Yes.\n"),
    ("<think></think> a </think> b", "<think></think> ", "a </think> b"),
    ("<think>never </thin", "<think>never </thin", ""),
    (THOUGHTS, THOUGHTS, ""),
    ("", "", ""),
]


def parts(pieces: list[str], inside: bool = False) -> tuple[str, str]:
    preamble = Preamble(inside=inside)
    fed = [preamble.feed(piece) for piece in pieces] + [preamble.feed("", last=True)]
    for (_, rest), (later, _) in pairwise(fed):
        assert not (rest and later)
    return "".join(thoughts for thoughts, _ in fed), "".join(rest for _, rest in fed)


@pytest.mark.parametrize(("text", "thoughts", "rest"), SAMPLES)
def test_thoughts_come_before_anything_else(text, thoughts, rest):
    for first in range(len(text) + 1):
        for second in range(first, len(text) + 1):
            assert parts([text[:first], text[first:second], text[second:]]) == (thoughts, rest)
    assert parts(["hm</think>\n", text], inside=True)[0].startswith("hm</think>\n")


@given(st.text("<think>/ a\n", max_size=40), st.booleans())
def test_nothing_is_lost(text, inside):
    assert "".join(parts(list(text), inside)) == text
    assert parts(list(text), inside) == parts([text], inside)


@pytest.mark.parametrize("stop", ["hm", "\n", "think", "<", "Yes", "s, h"])
def test_a_stop_string_is_met_in_the_answer_only(stop):
    out = TextOut((stop,), Preamble(inside=False))
    shown = [out.feed(piece.encode()) for piece in f"{THOUGHTS}Yes, hm, think <\n\n"]
    first = next(place for place, (_, met) in enumerate(shown) if met)
    text = "".join(text for text, _ in shown[: first + 1])
    assert text.startswith(THOUGHTS) and stop not in text.removeprefix(THOUGHTS)
