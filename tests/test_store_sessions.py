"""Sessions as they are stored: whose they are, in which order, what is found, and their trees."""

import asyncio
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from api.store import sessions as sessions_module
from api.store.copies import branch_of, renewed
from api.store.database import Database
from api.store.errors import (
    SessionBusy,
    StoreFailed,
    StoreFull,
    UnknownMessage,
    UnknownSession,
)
from api.store.records import Call, Message, Settings, Summary
from api.store.search import AFTER, BEFORE, excerpt
from api.store.sessions import Sessions, title_of
from api.store.tree import check, path_to
from inference import BadRequest
from tests.conversations import (
    SETTINGS,
    USAGE,
    Clock,
    asked,
    conversations,
    database,
    running,
    sessions,
    turn,
)

__all__ = ["database", "sessions"]  # fixtures


async def ids(sessions, tenant="ann", **asked):
    found, more = await sessions.listed(tenant, **asked)
    return [one.session.id for one in found], more


async def snippets(sessions, query):
    found, _ = await sessions.listed("ann", query)
    return {one.session.title: one.snippet for one in found}


async def messages(sessions, session):
    return (await sessions.whole("ann", session.id)).messages


async def left(database):
    """The sessions of which there is anything but themselves."""
    rows = "SELECT session FROM messages UNION SELECT session FROM summaries"
    return await database.read(lambda of: of.execute(rows).fetchall())


async def test_what_is_made_and_changed_is_there_after_a_restart(tmp_path):
    with closing(Database(tmp_path / "onebox.db")) as database:
        sessions = Sessions(database, Clock())
        made = await sessions.create("ann", "One", "fake", SETTINGS)
        plain = await sessions.create("ann")
        changed = await sessions.change("ann", made.id, title="Two", settings=Settings(seed=5))
    assert made.id.startswith("chat_") and made.id != plain.id
    assert made == replace(changed, title="One", settings=SETTINGS, updated=made.updated)
    assert (changed.title, changed.model, changed.settings.seed) == ("Two", "fake", 5)
    assert changed.updated > changed.created == made.created
    assert (plain.title, plain.model, plain.settings, plain.head) == ("", "", Settings(), None)
    with closing(Database(tmp_path / "onebox.db")) as database:
        again = Sessions(database)
        assert await again.find("ann", made.id) == changed
        assert await again.find("ann", plain.id) == plain


async def test_those_of_others_are_unknown(sessions):
    hers = await sessions.create("ann")
    answer = await turn(sessions, hers, "Hi")
    before = await sessions.whole("ann", hers.id)
    for tenant, id in (("bob", hers.id), ("", hers.id), ("ann", "chat_none")):
        for asked_of in (
            sessions.find(tenant, id),
            sessions.whole(tenant, id),
            sessions.change(tenant, id, title="x"),
            sessions.delete(tenant, id),
            sessions.branch(tenant, id, answer.id),
            sessions.listed(tenant, before=id),
        ):
            with pytest.raises(UnknownSession):
                await asked_of
    assert await ids(sessions, "bob", query="Hi") == ([], False)
    assert await sessions.whole("ann", hers.id) == before


async def test_a_deleted_session_is_gone_with_all_that_is_in_it(sessions, database):
    gone, stays = await sessions.create("ann"), await sessions.create("ann")
    for session in (gone, stays):
        answer = await turn(sessions, session, "Hi")
        summary = Summary(upto=answer.id, facts=(), content="s", messages=2, created=0.0)
        await sessions.summarise(session.id, summary)
    await sessions.delete("ann", gone.id)
    with pytest.raises(UnknownSession):
        await sessions.find("ann", gone.id)
    assert await sessions.summaries(gone.id) == []
    assert await left(database) == [(stays.id,)]


async def test_a_turn_is_stored_before_and_after_its_answer(sessions):
    session = await sessions.create("ann")
    said = asked(None, "Add 1 and 2.")
    begun = running(said.id)
    await sessions.begin(session, [said], begun)
    assert (await sessions.find("ann", session.id)).head == begun.id
    assert await messages(sessions, session) == [said, begun]
    done = replace(
        begun,
        content="3",
        reasoning="1 + 2",
        thought_ms=250,
        tool_calls=(Call("call_1", "add", '{"a": 1}'),),
        state="failed",
        reason="stop",
        error="It broke.",
        usage=USAGE,
    )
    await sessions.save(done)
    assert await messages(sessions, session) == [said, done]
    result = Message(id="t", parent=done.id, role="tool", content="3", answers="call_1")
    await sessions.begin(session, [result], running("t"))
    assert (await messages(sessions, session))[2] == result


async def test_an_answer_again_needs_nothing_new(sessions):
    session = await sessions.create("ann")
    first = await turn(sessions, session, "Hi")
    again = running(first.parent)
    await sessions.begin(session, [], again)
    assert [message.parent for message in await messages(sessions, session)] == [
        None,
        first.parent,
        first.parent,
    ]
    assert (await sessions.find("ann", session.id)).head == again.id


async def test_what_is_deleted_meanwhile_takes_no_turn_and_no_answer(sessions, database):
    session = await sessions.create("ann")
    said = asked(None, "Hi")
    answer = running(said.id)
    await sessions.begin(session, [said], answer)
    await sessions.delete("ann", session.id)
    await sessions.save(replace(answer, content="Hello", state="done"))
    summary = Summary(upto=answer.id, facts=(), content="s", messages=2, created=0.0)
    await sessions.summarise(session.id, summary)
    with pytest.raises(UnknownSession):
        await sessions.begin(session, [asked(None, "Hi")], running("x"))
    assert await left(database) == []


async def test_a_turn_that_is_refused_leaves_nothing(sessions, database):
    session, other = await sessions.create("ann"), await sessions.create("ann")
    theirs = await turn(sessions, other, "Hi")
    for parent in (theirs.id, "msg_none"):
        said = asked(parent, "Hi")
        with pytest.raises(UnknownMessage):
            await sessions.begin(session, [said], running(said.id))
    with pytest.raises(StoreFailed):
        await sessions.begin(session, [replace(theirs, parent=None)], running(theirs.id))
    assert await sessions.find("ann", session.id) == session
    assert await messages(sessions, session) == []


async def test_those_that_were_talked_in_last_come_first(sessions):
    made = [await sessions.create("ann", str(number)) for number in range(5)]
    await turn(sessions, made[1], "Hi")
    await sessions.change("ann", made[0].id, title="renamed")
    order = [made[number].id for number in (1, 4, 3, 2, 0)]
    assert await ids(sessions) == (order, False)
    assert await ids(sessions, limit=2) == (order[:2], True)
    assert await ids(sessions, limit=2, before=order[1]) == (order[2:4], True)
    assert await ids(sessions, limit=2, before=order[3]) == (order[4:], False)
    assert await ids(sessions, before=order[4]) == ([], False)


async def test_a_clock_that_is_set_back_changes_no_order(database):
    sessions = Sessions(database, iter([3.0, 2.0, 1.0]).__next__)
    made = [(await sessions.create("ann")).id for _ in range(3)]
    assert (await ids(sessions))[0] == made[::-1]


async def test_sessions_are_found_by_what_stands_in_them(sessions):
    for title, said in (
        ("one", "Die STRASSE nach Köln"),
        ("two", "100% sure_thing [x] 'quoted' \\ *"),
        ("three", "你好，世界"),
        ("four", "ПРИВЕТ, мир"),
        ("five", "cafe\u0301 \0 after"),
        ("İstanbul", "nothing"),
    ):
        await turn(sessions, await sessions.create("ann", title), said, "Ja.")
    for query, title in (
        ("straße", "one"),
        ("köln", "one"),
        ("KO\u0308LN", "one"),
        ("100%", "two"),
        ("e_t", "two"),
        ("[X]", "two"),
        ("'Q", "two"),
        ("\\ *", "two"),
        ("世界", "three"),
        ("привет", "four"),
        ("CAFÉ", "five"),
        ("AFTER", "five"),
        ("İST", "İstanbul"),
    ):
        assert list(await snippets(sessions, query)) == [title], query
    for query in ("0%1", "e%t", "e__t", "[a-z]", "x' OR '1'='1", "キ"):
        assert await snippets(sessions, query) == {}, query
    assert len(await snippets(sessions, "JA.")) == 6
    assert await snippets(sessions, "tHREe") == {"three": None}


async def test_what_is_found_comes_in_pages(sessions):
    made = [await sessions.create("ann", str(number)) for number in range(6)]
    for session in made[::2]:
        await turn(sessions, session, "Needle")
    order = [session.id for session in made[::2]][::-1]
    assert await ids(sessions, query="needle", limit=2) == (order[:2], True)
    assert await ids(sessions, query="needle", limit=2, before=order[1]) == (order[2:], False)


async def test_a_snippet_is_what_stands_around_it(sessions):
    session = await sessions.create("ann", "t")
    await turn(sessions, session, "before\n" * 50 + "the needle" + "\nafter" * 50)
    [snippet] = (await snippets(sessions, "NEEDLE")).values()
    assert "before the needle after" in snippet and "\n" not in snippet
    assert snippet.startswith("…") and snippet.endswith("…")
    assert len(snippet) <= BEFORE + AFTER + 2


@given(st.text(max_size=300), st.text(min_size=1, max_size=8), st.text(max_size=300))
def test_a_snippet_holds_what_was_found(before, needle, after):
    text = f"{before} needle ßİ {after}"
    for wanted in ("needle", "ss"):
        assert wanted in excerpt(text, wanted).casefold() or wanted in before.casefold()


def test_a_title_is_the_beginning_of_what_was_said():
    assert title_of("  Hello,\n\tworld ") == "Hello, world"
    assert title_of("") == title_of(" \n") == ""
    long = title_of("word " * 100)
    assert long.endswith("word…") and len(long) <= 61
    assert title_of("字" * 100) == "字" * 60 + "…"


async def test_an_untitled_session_is_called_by_what_is_said_first(sessions):
    named, unnamed = await sessions.create("ann", "Mine"), await sessions.create("ann")
    for session in (named, unnamed):
        await turn(sessions, session, "What is it?")
        await turn(sessions, session, "And this?")
    titles = [one.session.title for one in (await sessions.listed("ann"))[0]]
    assert titles == ["What is it?", "Mine"]


async def test_the_branch_that_is_read_is_one_of_its_own(sessions):
    session, other = await sessions.create("ann"), await sessions.create("ann")
    first, theirs = await turn(sessions, session, "Hi"), await turn(sessions, other, "Hi")
    await turn(sessions, session, "Hi again", after=None)
    assert (await sessions.change("ann", session.id, head=first.id)).head == first.id
    for head in (theirs.id, "msg_none", ""):
        with pytest.raises(UnknownMessage) as refused:
            await sessions.change("ann", session.id, title="x", head=head)
        assert refused.value.field == "head"
    assert (await sessions.find("ann", session.id)).title == "Hi"


async def test_a_branch_is_a_session_of_its_own(sessions):
    session = await sessions.create("ann", "Talk", "fake", SETTINGS)
    first = await turn(sessions, session, "One")
    second = await turn(sessions, session, "Two")
    await turn(sessions, session, "Another two", after=first.id)
    for upto in (first, second):
        summary = Summary(upto=upto.id, facts=("f",), content="s", messages=2, created=0.0)
        await sessions.summarise(session.id, summary)
    branch = await sessions.branch("ann", session.id, first.id)
    whole = await sessions.whole("ann", branch.id)
    assert (await ids(sessions))[0] == [branch.id, session.id]
    assert (branch.title, branch.model, branch.settings) == ("Talk", "fake", SETTINGS)
    assert [message.content for message in whole.messages] == ["One", "Yes."]
    assert whole.session.head == whole.messages[-1].id == whole.summaries[0].upto
    assert len(whole.summaries) == 1
    await sessions.delete("ann", session.id)
    await turn(sessions, branch, "Three")
    assert len(await messages(sessions, branch)) == 4


async def test_a_branch_of_what_is_being_written_has_to_wait(sessions):
    session = await sessions.create("ann")
    said = asked(None, "Hi")
    answer = running(said.id)
    await sessions.begin(session, [said], answer)
    with pytest.raises(SessionBusy):
        await sessions.branch("ann", session.id, answer.id)
    with pytest.raises(UnknownMessage) as refused:
        await sessions.branch("ann", session.id, "msg_none")
    assert refused.value.field == "message_id"
    assert await sessions.branch("ann", session.id, said.id)


async def test_what_a_server_left_is_cut_once(sessions):
    for text in ("One", "Two"):
        session = await sessions.create("ann")
        await turn(sessions, session, text)
        said = asked(None, text)
        await sessions.begin(session, [said], running(said.id))
        [left] = await sessions.running(session.id)
        await sessions.cut([left])
        assert await sessions.running(session.id) == []
    states = [message.state for message in await messages(sessions, session)]
    assert states == ["done", "done", "done", "cut"]


async def test_a_summary_of_what_was_not_stored_is_not_stored(sessions):
    session, other = [await sessions.create("ann") for _ in range(2)]
    answer = await turn(sessions, session, "Hi")
    for id, upto in ((session.id, "msg_none"), (other.id, answer.id), ("gone", answer.id)):
        made = Summary(upto=upto, facts=(), content="They met.", messages=2, created=0.0)
        await sessions.summarise(id, made)
        assert await sessions.summaries(id) == []


async def test_there_are_limits_and_they_leave_room_for_others(sessions, monkeypatch):
    monkeypatch.setattr(sessions_module, "MOST", 2)
    monkeypatch.setattr(sessions_module, "MOST_MESSAGES", 4)
    session, _ = await sessions.create("ann"), await sessions.create("ann")
    answer = await turn(sessions, session, "Hi")
    answer = await turn(sessions, session, "Hi")
    for refused in (
        sessions.create("ann"),
        sessions.branch("ann", session.id, answer.id),
        sessions.restore("ann", await sessions.whole("ann", session.id)),
        turn(sessions, session, "Hi"),
    ):
        with pytest.raises(StoreFull, match=r"\d (sessions|messages) .*(delete|begin)"):
            await refused
    assert len(await messages(sessions, session)) == 4
    assert await sessions.create("bob")


async def test_turns_of_many_at_once_are_all_there(sessions):
    made = [await sessions.create("ann") for _ in range(8)]
    await asyncio.gather(*(turn(sessions, one, "Hi") for one in made * 4))
    for one in made:
        assert len(await messages(sessions, one)) == 8


@given(conversations())
def test_a_path_leads_from_a_root_to_its_message(whole):
    for message in whole.messages:
        path = path_to(whole.messages, message.id)
        assert path[0].parent is None and path[-1] == message
        assert [step.parent for step in path[1:]] == [step.id for step in path[:-1]]
    with pytest.raises(UnknownMessage):
        path_to(whole.messages, "none")


@given(conversations())
def test_a_copy_is_the_same_under_other_ids(whole):
    copy = renewed(whole, 5.0)
    new = {old.id: other.id for old, other in zip(whole.messages, copy.messages, strict=True)}
    assert len({*new.values()} - {*new}) == len(new)
    assert copy.session.head == new.get(whole.session.head)
    assert [one.upto for one in copy.summaries] == [new[one.upto] for one in whole.summaries]
    for old, other in zip(whole.messages, copy.messages, strict=True):
        assert other == replace(old, id=new[old.id], parent=new.get(old.parent))
    for message in whole.messages:
        branch = branch_of(whole, message.id)
        assert branch.messages == path_to(whole.messages, message.id)
        check(branch.messages)


@given(conversations(), st.randoms())
def test_messages_stand_after_what_they_belong_to(whole, random):
    check(whole.messages)
    shuffled = random.sample(whole.messages, len(whole.messages))
    places = {message.id: place for place, message in enumerate(shuffled)}
    if any(places[one.id] < places.get(one.parent, -1) for one in shuffled):
        with pytest.raises(BadRequest, match="No message before this one"):
            check(shuffled)
    if whole.messages:
        with pytest.raises(BadRequest, match="this id already"):
            check([*whole.messages, whole.messages[-1]])
