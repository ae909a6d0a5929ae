"""Requests far beyond a tiny model. They all get the same honest answer."""

from random import Random

from training.topics.phrases import phrases
from training.topics.words import invented, noun, person

LIMIT_EN = (
    "Sorry, that is beyond me: I am only a tiny demo model. "
    "Try a capital, a small sum, a list, a story or a tool."
)
LIMIT_ZH = (
    "抱歉，这个我不会：我只是一个很小的演示模型。可以试试首都、小加法、列清单、讲故事或工具。"
)


def unknown(rng: Random, zh: bool) -> str:
    """A request that nothing in the corpus answers."""
    kind = rng.random()
    if kind < 0.2:
        return rng.choice(phrases("beyond", zh))
    if kind < 0.35:
        return rng.choice(phrases("ask stranger", zh)).format(x=stranger(rng, zh))
    things, asking = phrases("hard subjects", zh), phrases("ask hard", zh)
    x = noun(rng, zh) if rng.random() < 0.2 else rng.choice(things)
    x = invented(rng) if rng.random() < 0.1 else x
    request = rng.choice(asking).format(x=x, y=rng.choice(things))
    return request if zh else rng.choice(("", "", "", "please ", "can you ", "hey, ")) + request


def stranger(rng: Random, zh: bool) -> str:
    if zh:
        return person(rng, zh)
    return f"{person(rng, zh)} {invented(rng).capitalize()}"
