"""Greetings, identity, personas, limits: what a first visitor types."""

from random import Random

from training.dialogue import Exchange
from training.topics.limits import LIMIT_EN, LIMIT_ZH, unknown
from training.topics.phrases import phrases
from training.topics.words import person

INTENTS = [
    "greeting",
    "how are you",
    "identity",
    "maker",
    "abilities",
    "thanks",
    "bye",
    "limits",
    "languages",
    "joke",
    "weather without tool",
    "time",
]


def vary(rng: Random, text: str, zh: bool) -> str:
    """How people really type: capitals, a missing or an extra mark, politeness."""
    if zh:
        return text + rng.choice(("", "", "", "！", "。")) if text[-1] not in "？！" else text
    text = text[0].upper() + text[1:] if rng.random() < 0.6 else text
    if text[-1].isalpha() and rng.random() < 0.4:
        text += rng.choice((".", "!", "!", " :)", "..", "?"))
    return text


def small_talk(rng: Random, zh: bool) -> Exchange:
    intent = rng.choice(INTENTS)
    asked = vary(rng, rng.choice(phrases(intent, zh)), zh)
    answer = rng.choice(phrases(f"{intent}: answer", zh))
    return Exchange(intent, asked, answer, phrases(f"{intent}: thought", zh)[0], closed=True)


def persona(rng: Random, zh: bool) -> Exchange:
    """The system prompt gives a name, and the answer uses it."""
    name = person(rng, zh)
    system = rng.choice(phrases("naming", zh)).format(name=name)
    answer = f"我是{name}，很高兴为你服务。" if zh else f"I am {name}. Nice to meet you!"
    if not zh and rng.random() < 0.4:
        role = rng.choice(phrases("roles"))
        system, answer = f"You are {name}, {role}.", f"I am {name}, {role}. Nice to meet you!"
    thought = f"系统说我叫{name}。" if zh else f"The system prompt says that I am {name}."
    question = vary(rng, rng.choice(phrases("identity", zh)), zh)
    return Exchange("persona", question, answer, thought, key=system, system=system)


def refusal(rng: Random, zh: bool) -> Exchange:
    answer = LIMIT_ZH if zh else LIMIT_EN
    thought = "这个我不会，诚实地说明。" if zh else "I cannot do this. I say so honestly."
    return Exchange("unknown", vary(rng, unknown(rng, zh), zh), answer, thought)
