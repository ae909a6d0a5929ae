"""Long conversations: what the model is shown of them, and when they are summed up."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.gateway import compaction
from api.gateway.events import Compacted, Compacting
from api.gateway.prompt import Prompt, latest, shown
from api.store.records import Call, Message, Settings, Summary
from inference import ContextTooLong, GenerationRequest, Models, WorkerLost
from tests.scripted_pool import ScriptedPool, tokens

REQUEST = GenerationRequest(id="1", max_tokens=100)


def conversation(*texts: str) -> tuple[Message, ...]:
    """Turns of a user and an answer, of which the last one is not there yet."""
    path: list[Message] = []
    for number, text in enumerate(texts):
        role = "assistant" if number % 2 else "user"
        parent = path[-1].id if path else None
        path.append(Message(id=f"m{number}", parent=parent, role=role, content=text))
    return tuple(path)


def summary(upto: str, *facts: str, content: str = "They talked.", messages: int = 1) -> Summary:
    return Summary(upto=upto, facts=facts, content=content, messages=messages, created=0.0)


class Heard:
    def __init__(self) -> None:
        self.told: list[object] = []
        self.kept: list[Summary] = []

    async def tell(self, event: object) -> None:
        self.told.append(event)

    async def keep(self, made: Summary) -> None:
        self.kept.append(made)


async def fit(pool: ScriptedPool, prompt: Prompt) -> tuple[Prompt, Heard]:
    heard = Heard()
    return await compaction.fitted(Models(pool), prompt, heard.tell, heard.keep), heard


async def test_what_fits_is_left_alone_and_short_conversations_are_not_even_counted():
    pool = ScriptedPool()
    prompt = Prompt(REQUEST, conversation("Hello", "Hi", "How are you?"))
    pool.count = None  # would fail
    fitting, heard = await fit(pool, prompt)
    assert fitting is prompt
    assert not (heard.told or heard.kept or pool.requests)


async def test_old_turns_become_facts_and_recent_ones_stay_word_for_word():
    pool = ScriptedPool(1024)
    told = [f"Please note that the w{n} word is x{n}. {'Filler. ' * 20}" for n in range(20)]
    texts = [text for one in told for text in (one, "Noted.")]
    prompt = Prompt(REQUEST, conversation(*texts, "What is the w1 word?"))
    fitting, heard = await fit(pool, prompt)
    made = heard.kept[-1]
    assert heard.told == [Compacting(), Compacted(made.messages, shown(made))]
    assert "The w1 word is x1." in made.facts
    system, *said = fitting.asked().messages
    assert system.role == "system"
    assert "The w1 word is x1." in system.content
    assert [one.content for one in said] == [one.content for one in prompt.path[made.messages :]]
    assert said[0].role == "user"
    assert tokens(fitting.asked()) + 100 <= 1024


async def test_facts_outlive_any_number_of_summaries():
    pool = ScriptedPool(1024)
    path = conversation("Mind that the first word is apple. " * 2, "Noted.")
    made = None
    for turn in range(40):
        question = Message(id=f"q{turn}", parent=path[-1].id, role="user", content="Filler. " * 40)
        prompt = Prompt(REQUEST, (*path, question), made)
        fitting, _ = await fit(pool, prompt)
        made = fitting.summary
        answer = Message(id=f"a{turn}", parent=question.id, role="assistant", content="Yes. " * 20)
        path = (*path, question, answer)
        shown_first = fitting.asked().messages[0].content
        assert "the first word is apple." in shown_first.lower()
        assert tokens(fitting.asked()) + 100 <= 1024
    assert made
    assert made.messages > 60


async def test_a_last_message_that_is_too_long_is_not_summed_up():
    pool = ScriptedPool(256)
    prompt = Prompt(REQUEST, conversation("word " * 2000))
    fitting, heard = await fit(pool, prompt)
    assert fitting is prompt
    assert not heard.told


async def test_before_a_last_message_that_is_too_long_all_is_summed_up_once():
    pool = ScriptedPool(256)
    prompt = Prompt(REQUEST, conversation("Hello", "Hi", "word " * 2000))
    fitting, heard = await fit(pool, prompt)
    [made] = heard.kept
    assert made.messages == 2
    assert [one.content for one in fitting.recent] == ["word " * 2000]


async def test_a_model_that_writes_nonsense_forgets_but_does_not_fail(monkeypatch):
    pool = ScriptedPool(512)
    monkeypatch.setattr("tests.scripted_pool._summary", lambda _: '{"facts": [3, "the s')
    before = summary("m0", "A fact.")
    path = conversation(*["Filler. " * 60] * 9)
    fitting, heard = await fit(pool, Prompt(REQUEST, path, before))
    assert heard.kept[-1].facts == ("A fact.", "the s")
    assert heard.kept[-1].content == "They talked."
    assert tokens(fitting.asked()) < 512


@pytest.mark.parametrize("answer", ["", "{", "[]", "nothing", '{"facts": "x", "summary": 3}'])
async def test_no_answer_to_be_read_is_no_summary_but_old_messages_go(answer, monkeypatch):
    monkeypatch.setattr("tests.scripted_pool._summary", lambda _: answer)
    path = conversation(*["Filler. " * 60] * 9)
    _, heard = await fit(ScriptedPool(512), Prompt(REQUEST, path))
    assert (heard.kept[-1].facts, heard.kept[-1].content) == ((), "")
    assert "summed up" in shown(heard.kept[-1])


async def test_the_summary_is_asked_for_in_the_same_name():
    pool = ScriptedPool(512)
    request = replace(REQUEST, tenant="anna:1", salt="anna:1\0")
    await fit(pool, Prompt(request, conversation(*["Filler. " * 60] * 9)))
    asked = pool.requests[0]
    assert (asked.tenant, asked.salt) == ("anna:1", "anna:1\0")
    assert asked.thinking is False
    assert asked.constraints[0].kind == "schema"


@given(st.lists(st.text("ab c", max_size=900), min_size=1, max_size=9), st.integers(100, 600))
def test_pieces_are_no_longer_than_asked_and_leave_no_message_out(texts, size):
    path, begun, told = conversation(*texts), 0, ""
    while begun < len(path):
        piece, begun = compaction._piece(path, begun, len(path), size)
        assert piece and len(piece) <= size
        told += piece
    assert told.count("user: ") == (len(texts) + 1) // 2


async def test_long_calls_of_tools_are_counted():
    pool = ScriptedPool(1024)
    call = Call("c", "f", "x" * 40_000)
    path = conversation("Hello", "Hi", "And?")
    path = (path[0], msgspec.structs.replace(path[1], tool_calls=(call,)), path[2])
    _, heard = await fit(pool, Prompt(REQUEST, path))
    assert heard.kept[-1].messages == 2


async def test_facts_survive_a_long_system_prompt():
    pool = ScriptedPool(1024)
    facts = tuple(f"Fact number {number} of them all." for number in range(10))
    path = conversation(*["short"] * 9)

    long = Settings(system_prompt="s" * 3300)
    fitting, _ = await fit(pool, Prompt(REQUEST, path, summary("m0", *facts), long))
    assert fitting.summary.facts == facts


async def test_a_piece_that_is_too_dense_is_halved():
    pool, sizes = ScriptedPool(1024), []
    generate = pool.generate

    async def picky(request):
        sizes.append(len(request.messages[-1].content))
        if sizes[-1] > 1200:
            raise ContextTooLong("too long")
        async for event in generate(request):
            yield event

    pool.generate = picky
    path = conversation(*["Filler. " * 30] * 41)
    _, heard = await fit(pool, Prompt(REQUEST, path))
    assert max(sizes) > 1200
    assert [one.messages for one in heard.kept] == sorted({one.messages for one in heard.kept})


async def test_who_is_interrupted_goes_on_where_it_was():
    pool, heard = ScriptedPool(1024), Heard()
    path = conversation(*["Filler. " * 60] * 41)
    broken = Heard()

    async def keep(made):
        if broken.kept:
            raise WorkerLost("it died")
        await Heard.keep(broken, made)

    with pytest.raises(WorkerLost):
        await compaction.fitted(Models(pool), Prompt(REQUEST, path), heard.tell, keep)
    [kept] = broken.kept
    assert 0 < kept.messages < 30


async def test_a_very_long_conversation_is_measured_in_no_time():
    path = conversation(*["So."] * 40_001)
    place = compaction._beginning(Prompt(REQUEST, path), compaction._Scale(2048, 200, 0.25))
    assert 39_000 < place < 40_001


def test_facts_in_the_middle_go_first():
    scale = compaction._Scale(context=600, answer=100, per_character=0.25)
    facts = tuple(f"fact number {number}" for number in range(40))
    kept = compaction._bounded((*facts, facts[0]), scale)
    assert kept[0] == facts[0]
    assert kept[-1] == facts[-1]
    assert 5 < len(kept) < 20


def test_the_summary_of_another_branch_is_not_shown():
    path = conversation("Hello", "Hi", "Again")
    of_another, early, late = summary("x7"), summary("m0"), summary("m1")
    assert latest([late, early, of_another], path) is late
    assert latest([of_another], path) is None


def test_what_is_to_be_answered_is_never_a_part_of_a_summary():
    path = conversation("Hello", "Hi", "Again")
    early, of_all = summary("m0"), summary("m2")
    assert latest([early, of_all], path) is early


def test_answers_that_failed_before_a_word_are_not_shown():
    path = conversation("Hello", "", "Again")
    said = Prompt(REQUEST, path).asked().messages
    assert [one.content for one in said] == ["Hello", "Again"]
