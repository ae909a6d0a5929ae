"""Agents: what is stored, seen and named, and how they lie under what a client asks."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import msgspec
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from api.gateway.settings import SettingsBody
from api.store import agents as agents_module
from api.store.agents import Agents
from api.store.database import Database
from api.store.errors import NameTaken, StoreFailed, StoreFull, UnknownAgent
from api.store.records import About, Settings
from api.underlay import laid_under, of_agent
from inference import GenerationRequest, Message, Sampling, Tool
from tests.bodies import CHAT, COMPLETIONS, HI, MESSAGES, OLLAMA_CHAT, OLLAMA_GENERATE, RESPONSES
from tests.understanding import requests

USER = Message("user", "Hi")
WEATHER = {"name": "weather", "parameters": {"type": "object"}, "strict": True}
CLOCK = {"name": "clock"}
TOOLS = [{"type": "function", "function": one} for one in (WEATHER, CLOCK)]
PIRATE = About(name="Pirate", settings=Settings(system_prompt="Arr.", temperature=0.5))


@pytest.fixture
def database(tmp_path) -> Iterator[Database]:
    with closing(Database(tmp_path / "onebox.db")) as database:
        yield database


@pytest_asyncio.fixture
async def agents(database) -> Agents:
    agents = Agents(database)
    await agents.open()
    return agents


def names(agents, tenant):
    return [agent.name for agent in agents.listed(tenant)]


def called(name, **about):
    return About(name=name, **about)


async def test_what_is_made_and_changed_is_there_after_a_restart(agents, database):
    told = Settings(system_prompt="Be brief.", seed=3, tools=TOOLS, compaction=False)
    made = await agents.create("ann", called("One", description="d", model="m", settings=told))
    await agents.create("bob", called("Two", shared=True))
    gone = await agents.create("ann", called("Three"))
    changed = await agents.change(made, lambda before: msgspec.structs.replace(before, name="I"))
    await agents.delete(gone)
    again = Agents(database)
    await again.open()
    for tenant in ("ann", "bob", "carl"):
        assert again.listed(tenant) == agents.listed(tenant)
    assert names(again, "ann") == ["I", "Two"]
    assert again.find("ann", "i") == changed
    assert (changed.id, changed.created, changed.settings) == (made.id, made.created, told)


async def test_upper_and_lower_case_are_one_and_latest_adds_nothing(agents):
    made = await agents.create("", PIRATE)
    for name in ("Pirate", "pirate", "PIRATE:latest", "pirate:LATEST"):
        assert agents.named(name, "") == made
    for name in ("pirat", "pirate:8b", "", None, 5, ["pirate"], made.id):
        assert agents.named(name, "") is None


async def test_a_tenant_sees_its_own_and_those_that_are_shared(agents):
    mine = await agents.create("ann", called("x"))
    hers = await agents.create("bob", called("y"))
    all_of_us = await agents.create("bob", called("z", shared=True))
    assert names(agents, "ann") == ["x", "z"] and names(agents, "bob") == ["y", "z"]
    assert names(agents, "carl") == ["z"]
    for which in (mine.id, "X"):
        assert agents.find("ann", which) == mine
        with pytest.raises(UnknownAgent):
            agents.find("bob", which)
    with pytest.raises(UnknownAgent):
        agents.find("ann", hers.id)
    assert agents.find("carl", all_of_us.id) == agents.find("carl", "Z") == all_of_us


async def test_ones_own_agent_comes_before_a_shared_one_of_its_name(agents):
    shared = await agents.create("bob", called("x", shared=True))
    own = await agents.create("ann", called("X"))
    assert agents.named("x", "ann") == own and agents.named("x", "carl") == shared
    assert names(agents, "ann") == ["X"] and agents.find("ann", shared.id) == shared
    await agents.delete(own)
    assert agents.named("x", "ann") == shared


async def test_a_name_is_there_once_for_a_tenant_and_once_for_all(agents):
    first = await agents.create("ann", called("x", shared=True))
    second = await agents.create("ann", called("y"))
    other = await agents.create("bob", called("x"))
    with pytest.raises(NameTaken, match="called X already") as refusal:
        await agents.create("ann", called("X"))
    assert refusal.value.field == "name"
    with pytest.raises(NameTaken):
        await agents.change(second, lambda before: msgspec.structs.replace(before, name="X"))
    with pytest.raises(NameTaken):
        await agents.change(other, lambda before: msgspec.structs.replace(before, shared=True))
    assert await agents.change(first, lambda before: before)
    assert agents.named("y", "ann") == second and agents.named("x", "carl").tenant == "ann"


async def test_of_many_who_want_a_name_at_once_one_has_it(agents):
    made = await asyncio.gather(
        *(agents.create("ann", called("x")) for _ in range(8)), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in made) == ["Agent"] + ["NameTaken"] * 7


async def test_an_agent_that_is_renamed_or_no_longer_shared_is_not_found_as_before(agents):
    made = await agents.create("ann", called("x", shared=True))
    await agents.change(made, lambda _: called("y"))
    assert names(agents, "ann") == ["y"] and names(agents, "bob") == []
    assert agents.named("x", "ann") is None
    assert await agents.create("bob", called("x", shared=True))


async def test_changes_at_the_same_time_are_made_one_after_the_other(agents):
    made = await agents.create("", called("x"))

    def longer(before):
        return msgspec.structs.replace(before, description=before.description + "a")

    await asyncio.gather(*(agents.change(made, longer) for _ in range(8)))
    assert agents.find("", "x").description == "a" * 8


async def test_what_is_gone_is_neither_changed_nor_deleted_again(agents):
    made = await agents.create("ann", called("x"))
    await agents.delete(made)
    for work in (agents.delete(made), agents.change(made, lambda before: before)):
        with pytest.raises(UnknownAgent):
            await work


async def test_there_are_so_many_agents_of_a_tenant_and_so_large(agents, monkeypatch):
    monkeypatch.setattr(agents_module, "MOST", 2)
    first = await agents.create("ann", called("a"))
    await agents.create("ann", called("b"))
    with pytest.raises(StoreFull, match="2 agents"):
        await agents.create("ann", called("c"))
    assert await agents.create("bob", called("c"))
    assert await agents.change(first, lambda _: called("d"))  # which makes it none more
    monkeypatch.setattr(agents_module, "MOST_BYTES", 1 << 20)
    long = Settings(system_prompt="é" * (1 << 18))
    assert await agents.change(first, lambda _: called("a", settings=long))
    second = agents.find("ann", "b")
    with pytest.raises(StoreFull, match="1 MiB"):
        await agents.change(second, lambda _: called("b", settings=long))
    assert agents.find("ann", "b") == second


async def test_what_the_disk_does_not_take_is_not_in_memory(agents, monkeypatch):
    made = await agents.create("", called("x"))

    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(agents_module, "_put", full)
    monkeypatch.setattr(agents_module, "_delete", full)
    for work in (
        agents.create("", called("y")),
        agents.change(made, lambda _: called("y")),
        agents.delete(made),
    ):
        with pytest.raises(StoreFailed):
            await work
    assert agents.listed("") == [made]


async def test_what_nobody_waits_for_any_more_is_in_memory_if_it_is_on_the_disk(
    agents, database, monkeypatch
):
    begun, held, put = threading.Event(), threading.Event(), agents_module._put

    def slow(*about):
        begun.set()
        assert held.wait(10)
        put(*about)

    monkeypatch.setattr(agents_module, "_put", slow)
    making = asyncio.create_task(agents.create("", called("x")))
    assert await asyncio.to_thread(begun.wait, 10)
    making.cancel()
    await asyncio.wait({making})
    held.set()
    await agents.create("", called("y"))
    again = Agents(database)
    await again.open()
    assert making.cancelled() and names(again, "") == names(agents, "") == ["x", "y"]


async def test_only_a_request_that_names_an_agent_is_another_one(agents):
    await agents.create("ann", msgspec.structs.replace(PIRATE, model="base"))
    for model, tenant in (("pirate", "bob"), ("fake", "ann"), (None, "ann")):
        request = GenerationRequest(id="r", model=model, messages=(USER,), tenant=tenant)
        assert of_agent(request, agents.named(model, tenant)) is request
    asked = GenerationRequest(id="r", model="pirate:latest", messages=(USER,), tenant="ann")
    applied = of_agent(asked, agents.named(asked.model, "ann"))
    assert applied.model == "base" and applied.messages[0] == Message("system", "Arr.")
    assert of_agent(applied, agents.named(applied.model, "ann")) is applied


NUMBERS = {
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0.01, 1),
    "top_k": st.integers(0, 100),
    "min_p": st.floats(0, 1),
    "presence_penalty": st.floats(-2, 2),
    "frequency_penalty": st.floats(-2, 2),
    "seed": st.integers(0, 2**63 - 1),
}
PENALTY, LIMIT, FLAG = st.floats(0.01, 10), st.integers(1, 2**31 - 1), st.booleans()
TEXT = st.text(max_size=8)


def maybe(strategies):
    return {name: st.none() | strategy for name, strategy in strategies.items()}


SAID = st.builds(
    GenerationRequest,
    id=st.just("r"),
    messages=st.lists(
        st.builds(Message, st.sampled_from(["system", "user"]), TEXT), min_size=1
    ).map(tuple),
    tools=st.sampled_from([(), (Tool("mine"),)]),
    thinking=st.none() | FLAG,
    sampling=st.builds(Sampling, **maybe(NUMBERS | {"repeat_penalty": PENALTY})),
    max_tokens=st.none() | LIMIT,
)
MEANT = {"repetition_penalty": PENALTY, "max_tokens": LIMIT, "thinking": FLAG}
LAID = st.builds(
    Settings,
    **maybe(NUMBERS | MEANT | {"system_prompt": TEXT, "tools": st.just(TOOLS)}),
)


@given(SAID, LAID)
def test_what_a_client_says_wins_and_what_it_leaves_unsaid_is_the_agents(said, laid):
    asked = laid_under(said, laid)
    names = {name: name for name in NUMBERS} | {"repeat_penalty": "repetition_penalty"}
    for ours, theirs in names.items():
        own = getattr(said.sampling, ours)
        wanted = getattr(laid, theirs) if own is None else own
        assert getattr(asked.sampling, ours) == wanted
    assert asked.max_tokens == (laid.max_tokens if said.max_tokens is None else said.max_tokens)
    assert asked.thinking == (laid.thinking if said.thinking is None else said.thinking)
    offered = tuple(one.name for one in asked.tools)
    assert offered == (("mine",) if said.tools else ("weather", "clock") if laid.tools else ())
    others = {"messages", "tools", "sampling", "max_tokens", "thinking"}
    unchanged = {name: getattr(said, name) for name in said.__slots__ if name not in others}
    assert unchanged == {name: getattr(asked, name) for name in unchanged}


@given(SAID, LAID)
def test_the_agents_system_prompt_stands_first_in_one_message_with_the_clients(said, laid):
    first, *rest = laid_under(said, laid).messages
    system, own = laid.system_prompt, said.messages[0]
    if not system:
        assert (first, *rest) == said.messages
    elif own.role == "system":
        both = f"{system}\n\n{own.content}" if own.content else system
        assert first == replace(own, content=both) and tuple(rest) == said.messages[1:]
    else:
        assert first == Message("system", system) and tuple(rest) == said.messages


@pytest.mark.parametrize("prompt", ["Once", (1, 2)])
def test_a_prompt_as_it_is_gets_settings_and_nothing_else(prompt):
    laid = Settings(system_prompt="Arr.", tools=TOOLS, temperature=0.5, max_tokens=9)
    asked = laid_under(GenerationRequest(id="r", prompt=prompt), laid)
    assert (asked.prompt, asked.messages, asked.tools) == (prompt, (), ())
    assert (asked.sampling.temperature, asked.max_tokens) == (0.5, 9)


def test_numbers_that_mean_none_mean_none():
    said = Settings(seed=-1, top_k=-1, max_tokens=-1)
    asked = laid_under(GenerationRequest(id="r", messages=(USER,)), said)
    assert (asked.sampling.seed, asked.sampling.top_k, asked.max_tokens) == (None, 0, None)


def test_tools_are_shown_as_they_were_written():
    weather, clock = laid_under(
        GenerationRequest(id="r", messages=(USER,)), Settings(tools=TOOLS)
    ).tools
    assert weather == Tool("weather", "", {"type": "object"}, strict=True, written=WEATHER)
    assert clock == Tool("clock", written=CLOCK)


def asked_of(path, body, laid):
    [request] = requests(path, body)
    return laid_under(request, laid)


MINE = {"type": "function", "function": {"name": "mine"}}


def test_what_is_spelled_out_of_a_tool_means_the_same_as_in_a_request():
    for said, strict in (("false", False), ("true", True), (0, False), (None, False)):
        function = {"name": "f", "strict": said}
        tools = [{"type": "function", "function": function}]
        [asked] = requests(CHAT, {"messages": HI, "tools": tools})
        stored = SettingsBody.model_validate({"tools": tools}).settings()
        laid = laid_under(GenerationRequest(id="r", messages=(USER,)), stored)
        assert laid.tools == asked.tools == (Tool("f", strict=strict, written=function),)


SOME = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "clock"}]}
OFFERS = [
    (CHAT, {"messages": HI}, ["weather", "clock"]),
    (CHAT, {"messages": HI, "tools": [MINE]}, ["mine"]),
    (CHAT, {"messages": HI, "functions": [{"name": "mine"}]}, ["mine"]),
    (CHAT, {"messages": HI, "tool_choice": "none"}, []),
    (CHAT, {"messages": HI, "tool_choice": "none", "tools": [MINE]}, []),
    (CHAT, {"messages": HI, "function_call": "none"}, []),
    (CHAT, {"messages": HI, "tool_choice": "required"}, ["weather", "clock"]),
    (CHAT, {"messages": HI, "tool_choice": SOME}, ["clock"]),
    (RESPONSES, {"input": "Hi"}, ["weather", "clock"]),
    (RESPONSES, {"input": "Hi", "tool_choice": "none"}, []),
    (RESPONSES, {"input": "Hi", "tool_choice": SOME}, ["clock"]),
    (MESSAGES, {"messages": HI}, ["weather", "clock"]),
    (MESSAGES, {"messages": HI, "tool_choice": {"type": "none"}}, []),
    (MESSAGES, {"messages": HI, "tool_choice": {"type": "any"}}, ["weather", "clock"]),
    (OLLAMA_CHAT, {"messages": HI}, ["weather", "clock"]),
    (OLLAMA_CHAT, {"messages": HI, "tools": [MINE]}, ["mine"]),
    (OLLAMA_GENERATE, {"prompt": "Hi", "raw": True}, []),
    (COMPLETIONS, {"prompt": "Hi"}, []),
]


@pytest.mark.parametrize(("path", "body", "offered"), OFFERS)
def test_an_agents_tools_are_offered_unless_the_client_has_its_own_or_wants_none(
    path, body, offered
):
    assert [tool.name for tool in asked_of(path, body, Settings(tools=TOOLS)).tools] == offered


NO_THINK = [{"role": "user", "content": "Hi /no_think"}]
THOUGHTS = [
    (CHAT, {"messages": HI}, True),
    (CHAT, {"messages": HI, "think": False}, False),
    (CHAT, {"messages": HI, "reasoning_effort": "none"}, False),
    (CHAT, {"messages": HI, "thinking_budget": 0}, False),
    (CHAT, {"messages": NO_THINK}, False),
    (OLLAMA_CHAT, {"messages": HI, "think": False}, False),
    (OLLAMA_CHAT, {"messages": HI}, True),
    (MESSAGES, {"messages": HI}, False),  # as everywhere there: who does not ask gets none
    (RESPONSES, {"input": "Hi"}, True),
    (RESPONSES, {"input": "Hi", "reasoning": {"effort": "minimal"}}, False),
]


@pytest.mark.parametrize(("path", "body", "thinks"), THOUGHTS)
def test_an_agent_thinks_unless_the_client_says_otherwise_in_whatever_way(path, body, thinks):
    assert asked_of(path, body, Settings(thinking=True)).thinking is thinks


LIMITED = [
    (CHAT, {"messages": HI, "max_completion_tokens": 5}, 5),
    (CHAT, {"messages": HI, "max_tokens": -1}, 9),  # nothing is said
    (COMPLETIONS, {"prompt": "Hi", "max_tokens": 5}, 5),
    (COMPLETIONS, {"prompt": "Hi", "max_tokens": 0, "echo": True}, 0),
    (RESPONSES, {"input": "Hi", "max_output_tokens": 5}, 5),
    (MESSAGES, {"messages": HI, "max_tokens": 5}, 5),
    (OLLAMA_CHAT, {"messages": HI, "options": {"num_predict": 5}}, 5),
    (OLLAMA_GENERATE, {"prompt": "Hi"}, 9),
]


@pytest.mark.parametrize(("path", "body", "limit"), LIMITED)
def test_an_agents_limit_is_that_of_who_says_none(path, body, limit):
    assert asked_of(path, body, Settings(max_tokens=9)).max_tokens == limit


def test_instructions_of_a_response_stand_after_the_agents():
    body = {"input": "Hi", "instructions": "Be brief."}
    asked = asked_of(RESPONSES, body, Settings(system_prompt="Arr."))
    assert asked.messages == (Message("system", "Arr.\n\nBe brief."), USER)
