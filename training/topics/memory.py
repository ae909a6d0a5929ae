"""Things told in one turn and asked for in a later one, and the honest answer when never told."""

from random import Random

from training.dialogue import Exchange, Scene
from training.topics.phrases import phrases
from training.topics.words import COLOURS, city, invented, noun, person

KINDS = ("name", "number", "word", "colour", "city", "pet")


def value(rng: Random, what: str, zh: bool) -> str:
    match what:
        case "name":
            return person(rng, zh)
        case "number":
            return str(rng.randint(0, 10 ** rng.choice((1, 2, 3, 4)) - 1))
        case "word":
            return rng.choice(
                (noun(rng, zh), noun(rng, zh), rng.choice(phrases("rare words")), invented(rng))
            )
        case "colour":
            return rng.choice(list(COLOURS.values() if zh else COLOURS))
        case "city":
            return city(rng, zh)
        case _:
            return rng.choice(phrases("animals", zh))


def wording(rng: Random, name: str, zh: bool, x: str = "") -> str:
    text = rng.choice(phrases(name, zh)).format(x=x)
    return text[0].upper() + text[1:] if rng.random() < 0.3 else text


def told(rng: Random, zh: bool, what: str = "") -> Scene:
    """Two exchanges: the telling and the asking. Others may come between."""
    what = what or rng.choice(KINDS)
    noted, answer = phrases(f"noted {what}", zh)[0], phrases(f"answer {what}", zh)[0]
    x = value(rng, what, zh)
    ability, key = f"memory: {what}", f"{what} {x}"
    small = what in ("colour", "pet")
    first = "我要记住。" if zh else "I should remember this."
    later = f"用户说过：{x}。" if zh else f"The user told me: {x}."
    said = wording(rng, f"tell {what}", zh, x)
    asked = wording(rng, f"ask {what}", zh)
    return (
        Exchange("told", said, noted.format(x=x), first, key=said if small else key),
        Exchange(ability, asked, answer.format(x=x), later, key=said + asked if small else key),
    )


def never_told(rng: Random, zh: bool) -> Exchange:
    what = rng.choice(KINDS)
    asked, answer = wording(rng, f"ask {what}", zh), phrases(f"never told {what}", zh)[0]
    thought = "用户没有告诉我。" if zh else "The user did not tell me this."
    return Exchange("never told", asked, answer, thought, closed=True)


def two_facts(rng: Random, zh: bool) -> Scene:
    """Two tellings, then a question about one of them."""
    one, two = rng.sample(KINDS, 2)
    first, second = told(rng, zh, one), told(rng, zh, two)
    return first[0], second[0], rng.choice((first[1], second[1]))
