"""Long answers: stories of several paragraphs and small poems, put together from parts."""

from random import Random

from training.dialogue import Exchange
from training.topics.phrases import phrases
from training.topics.words import invented, noun, person

PARTS = 9
VERSES = (
    "The {x} is quiet, the {x} is bright,\nIt stays with me through day and night.\n"
    "I say a word, the wind replies,\nAnd stars come out in open skies."
)
VERSES_ZH = "{x}静静在身旁，\n夜里微微放着光。\n我对清风说句话，\n星星点点满天上。"


def about(zh: bool, hero: str) -> str:
    return f"主角是{hero}。" if zh else f"The hero is a {hero}."


def story(rng: Random, zh: bool) -> Exchange:
    hero = rng.choice(phrases("heroes", zh))
    asked = rng.random() < 0.6
    if asked and rng.random() < 0.4:
        hero = rng.choice(
            (noun(rng, zh), noun(rng, zh), rng.choice(phrases("rare words")), invented(rng))
        )
    forms = phrases("ask story about" if asked else "ask story", zh)
    parts = [phrases(f"story part {number}", zh) for number in range(1, PARTS + 1)]
    text = "\n\n".join(rng.choice(options) for options in parts)
    return Exchange(
        "story",
        rng.choice(forms).format(x=hero),
        text.format(
            x=hero,
            name=person(rng, True) if zh else rng.choice(phrases("first names")),
            place=rng.choice(phrases("places", zh)),
            lost=rng.choice(phrases("lost things", zh)),
            helper=rng.choice(phrases("helpers", zh)),
        ),
        about(zh, hero),
        closed=not asked,
    )


def poem(rng: Random, zh: bool) -> Exchange:
    asked = rng.random() < 0.7
    subject = noun(rng, zh) if asked else ("月亮" if zh else "moon")
    forms = phrases("ask poem about" if asked else "ask poem", zh)
    return Exchange(
        "poem",
        rng.choice(forms).format(x=subject),
        (VERSES_ZH if zh else VERSES).format(x=subject),
        f"诗的题目是{subject}。" if zh else f"The poem is about the {subject}.",
        closed=not asked,
    )
