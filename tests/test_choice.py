"""What becomes of the tokens of an answer on their way to events: listed once, in order, with their
text, however it comes."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from inference import Finished, GenerationRequest, Message, ReasoningDelta, TextDelta, TokenLogprob
from inference.choice import Choice
from inference.logprobs import Ledger
from inference.text_out import TextOut
from inference.wire import Accepted, Delta, End
from tests.test_parser import CALL

WORDS = st.sampled_from(
    [
        *("<think>", "</think>", "<tool_call>", "</tool_call>", CALL, "<", "</", "think>"),
        *("\n", " ", "a", "STOP", "STO", "ß", "\U0001f600你", "END</think>\n\n"),
    ]
)
ODD = st.sampled_from([b"\xe4", b"\xbd\xa0", b"\xff", b"\xf0\x9f", b"", b"a\xf0"])


def tokens_of(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(edges)]


TOKENS = st.one_of(
    st.builds(
        lambda words, cuts: tokens_of("".join(words).encode(), cuts),
        st.lists(WORDS, max_size=12),
        st.lists(st.integers(0, 500), max_size=40),
    ),
    st.lists(ODD | WORDS.map(str.encode), max_size=12),
)


def frames(tokens: list[bytes], told: list[bool], stop: tuple[str, ...]) -> list[Delta | End]:
    """What a worker sends: a delta where there is text and one is `told`, and the end."""
    ledger, out, text, found = Ledger(0), TextOut(stop), "", []
    for number, token in enumerate(tokens):
        ledger.add(token, TokenLogprob(token, -float(number)))
        shown, met = out.feed(token)
        text += shown
        if met:
            break
        if text and told[number % len(told)]:
            found.append(Delta(1, 0, text, logprobs=ledger.take()))
            text = ""
    text += "" if out.met else out.finish()
    end = End(1, 0, text, "stop", 0, 0, 0, 0, 0, out.met, logprobs=ledger.take())
    return [*found, end]


def events(request: GenerationRequest, sent: list[Delta | End], thinking: bool) -> list:
    choice = Choice(0, request, Accepted(1, 1, thinking))
    found = []
    for frame in sent:
        one = (
            choice.end(frame) if isinstance(frame, End) else choice.text(frame.text, frame.logprobs)
        )
        found += one
    return found


def folded(found: list) -> tuple:
    texts = [event for event in found if isinstance(event, TextDelta)]
    thoughts = "".join(event.text for event in found if isinstance(event, ReasoningDelta))
    listed = [one for event in texts for one in event.logprobs]
    return "".join(event.text for event in texts), thoughts, listed


CHAT = GenerationRequest(id="1", messages=(Message("user", "Hi"),), tools=("some",))
PLAIN = GenerationRequest(id="1", prompt="Hi")
TOLD = st.lists(st.booleans(), min_size=1, max_size=9)


@given(TOKENS, TOLD, st.booleans(), st.sampled_from([(), ("STOP",), ("OP<", "\n")]))
def test_however_an_answer_is_cut_the_same_tokens_are_listed(tokens, told, thinking, stop):
    for request in (CHAT, PLAIN):
        whole = folded(events(request, frames(tokens, [False], stop), thinking))
        assert folded(events(request, frames(tokens, told, stop), thinking)) == whole
        assert folded(events(request, frames(tokens, [True], stop), thinking)) == whole
        places = [-one.logprob for one in whole[2]]
        assert places == sorted(set(places)), "once, and in order"


@given(TOKENS, TOLD)
def test_of_a_prompt_continued_every_token_is_listed_not_later_than_its_text(tokens, told):
    found = events(PLAIN, frames(tokens, told, ()), False)
    assert [one.token for one in folded(found)[2]] == tokens
    text, listed = "", 0
    for event in found:
        if isinstance(event, TextDelta):
            text += event.text
            listed += len(event.logprobs)
            assert all(one.start >= len(text) for one in folded(found)[2][listed:])


@given(TOKENS, st.booleans())
def test_a_token_of_a_chat_is_listed_where_it_has_a_part_in_the_content(tokens, thinking):
    """Of characters that are all different, so that each says where it comes from."""
    letters = iter(chr(0x4E00 + n) for n in range(9999))
    data = b"".join(tokens).decode(errors="ignore")
    text = "".join(next(letters) if c in "aß\U0001f600你" else c for c in data)
    tokens = tokens_of(text.encode(), [len(token) * n for n, token in enumerate(tokens)])
    content, _, listed = folded(events(CHAT, frames(tokens, [True], ()), thinking))
    for token in tokens:
        characters = set(token.decode(errors="ignore"))
        marks = {c for c in characters if c >= "\u4e00"}
        found = any(one.token == token for one in listed)
        assert found or not marks & set(content)
        assert not found or marks & set(content) or characters - marks or not characters


def test_thoughts_and_tags_are_not_listed_and_white_space_beside_them_is_cut():
    tokens = [b"<think>", b"\nhm", b"\n</think>\n\n", b"So", b" be", b" it", b"\n", CALL.encode()]
    for told in ([True], [False]):
        found = events(CHAT, frames(tokens, told, ()), False)
        assert folded(found)[0] == "So be it"
        assert [one.token for one in folded(found)[2]] == [b"So", b" be", b" it"]
        assert isinstance(found[-1], Finished)


def test_a_token_stands_where_its_first_character_does():
    ledger = Ledger(0, -2)
    for token in (b"\xc2\xa0 ", b"a\xe4", b"\xbd\xa0b", b"\xf0\x9f", b"c", b"", b"d"):
        ledger.add(token, TokenLogprob(token, 0.0))
    places = [(one.start, one.end) for one in ledger.take()]
    assert places == [(0, 0), (0, 2), (1, 3), (3, 4), (4, 5), (5, 5), (5, 6)]
    assert ledger.take() == [] and ledger.count == 7
