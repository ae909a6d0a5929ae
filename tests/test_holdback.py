"""Laws of holding text back."""

import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from inference.holdback import Holdback

alphabet = st.text("ab<>", max_size=30)
markers = st.lists(st.text("ab<>", min_size=1, max_size=4), min_size=1, max_size=3)


def pieces(text: str, cuts: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(c % (len(text) + 1) for c in cuts)})
    return [text[a:b] for a, b in itertools.pairwise(edges)]


def release(markers: tuple[str, ...], parts: list[str]) -> tuple[str, str | None]:
    holdback, released = Holdback(markers), ""
    for part in parts:
        text, marker = holdback.feed(part)
        released += text
        if marker:
            return released, marker
    return released + holdback.flush(), None


@given(alphabet, markers, st.lists(st.integers(0, 100)))
@example("ab<>", ["ab<>"], [3])
@example("ab<>", ["ab<>", "b<"], [3])
def test_what_is_released_does_not_depend_on_how_the_text_is_cut(text, markers, cuts):
    ends = [(text.find(m) + len(m), text.find(m), m) for m in markers if m in text]
    _, start, first = min(ends, default=(0, len(text), None))
    assert release(tuple(markers), pieces(text, cuts)) == (text[:start], first)


def test_nothing_that_cannot_become_a_marker_is_held():
    assert Holdback(("</s>",)).feed("plain <b") == ("plain <b", None)


def test_a_possible_marker_is_held_until_it_is_decided():
    holdback = Holdback(("STOP",))
    assert holdback.feed("go ST") == ("go ", None)
    assert holdback.feed("ILL") == ("STILL", None)
    assert holdback.feed(" STOP now") == (" ", "STOP")
    assert holdback.flush() == " now"
