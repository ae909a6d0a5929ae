"""Mixes the topics into dialogues, and keeps aside what the scores will ask.

An exchange whose key hashes into the held-out share appears in no training dialogue, neither as the
question nor as part of the history. The corpus is a pure function of its seed.
"""

from collections.abc import Callable, Iterator
from random import Random

from training.dialogue import Dialogue, Exchange, Message, Scene
from training.topics import arithmetic, knowledge, lines, memory, stories, structured, talk, tools
from training.topics.phrases import phrases

Topic = Callable[[Random, bool], Exchange]

WEIGHTS: dict[Topic, float] = {
    talk.small_talk: 11,
    talk.persona: 3,
    talk.refusal: 9,
    arithmetic.small_sum: 8,
    arithmetic.small_difference: 6,
    arithmetic.product: 4,
    arithmetic.large_sum: 6,
    arithmetic.large_difference: 4,
    knowledge.capital: 6,
    knowledge.opposite: 2,
    knowledge.fact: 2,
    knowledge.translation: 5,
    memory.never_told: 1.5,
    tools.weather: 8,
    tools.two_cities: 4,
    tools.calculation: 6,
    tools.clock: 3,
    structured.extraction: 7,
    structured.known_json: 4,
    lines.counting: 4,
    lines.echo: 7,
    lines.listing: 5,
    lines.one_word: 0.5,
    stories.story: 3,
    stories.poem: 1.5,
}
SHORT_TOPICS = [
    talk.small_talk, talk.refusal, arithmetic.small_sum, arithmetic.small_difference,
    arithmetic.large_sum, knowledge.capital, knowledge.opposite, knowledge.fact,
    knowledge.translation, lines.counting, lines.echo, lines.listing, structured.known_json,
    stories.poem,
]  # fmt: skip
NO_TOOL_TOPICS = [
    talk.small_talk, knowledge.capital, knowledge.opposite, knowledge.fact, knowledge.translation,
    lines.counting, lines.echo, lines.listing, stories.story, memory.never_told,
]  # fmt: skip


def filler(rng: Random, zh: bool, topics: list[Topic]) -> Exchange:
    return rng.choice(topics)(rng, zh != (rng.random() < 0.1))


def scene(rng: Random, zh: bool) -> Scene:
    """One exchange with or without others before it, or a memory with others in between."""
    kind = rng.random()
    if kind < 0.22:
        return remembered(rng, zh)
    topic = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    last = topic(rng, zh)
    if kind < 0.62:
        return (last,)
    if last.tools and rng.random() < 0.4:
        return (last, filler(rng, zh, NO_TOOL_TOPICS))
    topics = NO_TOOL_TOPICS if last.tools else SHORT_TOPICS
    before = [filler(rng, zh, topics) for _ in range(rng.choice((1, 1, 2, 3)))]
    return (*before, last)


def remembered(rng: Random, zh: bool) -> Scene:
    first = memory.two_facts(rng, zh) if rng.random() < 0.3 else memory.told(rng, zh)
    between = [filler(rng, zh, SHORT_TOPICS) for _ in range(rng.choice((0, 0, 1, 1, 2, 3)))]
    return (*first[:-1], *between, first[-1])


def long_scene(rng: Random, zh: bool) -> Scene:
    """A conversation near the size of the context, with a memory across all of it."""
    told, asked = memory.told(rng, zh)
    topics: list[Topic] = [*SHORT_TOPICS, stories.story]
    return (told, *(filler(rng, zh, topics) for _ in range(rng.randint(8, 45))), asked)


def history(exchange: Exchange, thinking: bool) -> list[Message]:
    """An exchange that lies behind: its thoughts are gone."""
    steps = [{k: v for k, v in step.items() if k != "reasoning_content"} for step in exchange.steps]
    return [
        {"role": "user", "content": exchange.user},
        *steps,
        {"role": "assistant", "content": exchange.reply(thinking)},
    ]


def ending(rng: Random, exchange: Exchange, thinking: bool) -> tuple[str, list[Message]]:
    """The messages of the exchange that is asked now, up to a tool call or to the answer."""
    ability, steps = exchange.ability, [dict(step) for step in exchange.steps]
    answer: Message = {"role": "assistant", "content": exchange.reply(thinking)}
    answer["reasoning_content"] = exchange.thought
    messages = [{"role": "user", "content": exchange.user}, *steps, answer]
    if steps and rng.random() < 0.6:
        messages, ability = messages[:2], ability + ": call"
    elif steps:
        ability += ": answer"
    if not thinking:
        for message in messages:
            message.pop("reasoning_content", None)
    return ability, messages


def dialogue(rng: Random, exchanges: Scene) -> Dialogue:
    thinking = rng.random() < 0.5
    last = exchanges[-1]
    system = last.system
    if not system and rng.random() < 0.35:
        system = rng.choice(phrases("systems"))
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    for exchange in exchanges[:-1]:
        messages += history(exchange, thinking)
    ability, asked = ending(rng, last, thinking)
    offered = next((e.tools for e in exchanges if e.tools), ())
    if not offered and rng.random() < 0.06 and last.ability in ("greeting", "capital", "echo"):
        offered = (tools.weather_tool(rng),)
    return Dialogue(ability, (*messages, *asked), thinking, offered)


def consistent(exchanges: Scene) -> bool:
    """No model says its own name first and that of a persona afterwards."""
    named = any(e.ability in ("identity", "greeting") for e in exchanges)
    return not (exchanges[-1].system and named)


def stream(seed: int, long_share: float = 0.012) -> Iterator[tuple[bool, Dialogue]]:
    """Endless dialogues; the flag says whether one is held out. Mixed ones are dropped."""
    rng = Random(seed)
    while True:
        zh = rng.random() < 0.42
        make = long_scene if rng.random() < long_share else scene
        exchanges = make(rng, zh)
        made = dialogue(rng, exchanges)
        if not consistent(exchanges):
            continue
        if exchanges[-1].held_out:
            yield True, made
        elif not any(e.held_out for e in exchanges):
            yield False, made


def training_set(seed: int, count: int) -> list[Dialogue]:
    found: list[Dialogue] = []
    for held_out, made in stream(seed):
        if not held_out:
            found.append(made)
            if len(found) == count:
                break
    return found


def held_out_set(seed: int, per_ability: int, tries: int = 400_000) -> dict[str, list[Dialogue]]:
    """Up to so many dialogues per ability whose last question was never trained."""
    found: dict[str, list[Dialogue]] = {}
    seen: set[str] = set()
    for _, (held_out, made) in zip(range(tries), stream(seed, long_share=0.0), strict=False):
        group = found.setdefault(made.ability, []) if held_out else []
        if held_out and len(group) < per_ability and made.prompt not in seen:
            seen.add(made.prompt)
            group.append(made)
    return dict(sorted(found.items()))
