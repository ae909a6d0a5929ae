"""Answers in JSON: taken out of a sentence, or filled from what the model knows."""

import json
from random import Random

from training.dialogue import Exchange
from training.topics.knowledge import COUNTRIES
from training.topics.phrases import pairs, phrases
from training.topics.words import COLOURS, NOUNS, city, person

JOBS = pairs("jobs")


def listed(keys: list[str], zh: bool) -> str:
    if zh:
        return "、".join(keys)
    return keys[0] if len(keys) == 1 else ", ".join(keys[:-1]) + " and " + keys[-1]


def dumped(ability: str, user: str, value: object, zh: bool) -> Exchange:
    thought = "我用 JSON 回答。" if zh else "I answer with one JSON object."
    return Exchange(ability, user, json.dumps(value, ensure_ascii=False), thought)


def extraction(rng: Random, zh: bool) -> Exchange:
    name, age, town = person(rng, zh), rng.randint(1, 99), city(rng, zh)
    if rng.random() < 0.25:
        english = rng.choice(list(JOBS))
        job = JOBS[english] if zh else english
        facts: dict[str, object] = {"name": name, "job": job}
        text = rng.choice(phrases("job sentences", zh)).format(name=name, job=job)
    else:
        facts = {"name": name, "age": age, "city": town}
        forms = phrases("person sentences", zh)
        text = rng.choice(forms).format(name=name, age=age, city=town)
    keys = rng.sample(list(facts), rng.randint(1, len(facts)))
    article = "" if zh else rng.choice(("", "the "))
    user = rng.choice(phrases("ask extraction", zh)).format(
        keys=article + listed(keys, zh), text=text
    )
    return dumped("json from text", user, {key: facts[key] for key in keys}, zh)


def known_json(rng: Random, zh: bool) -> Exchange:
    kind = rng.random()
    if kind < 0.45:
        country, town, country_zh, town_zh = rng.choice(COUNTRIES)
        x, value = (country_zh, town_zh) if zh else (country, town)
        user = rng.choice(phrases("ask capital as json", zh)).format(x=x)
        return dumped("json from memory", user, {"country": x, "capital": value}, zh)
    if kind < 0.75:
        a, b = rng.randint(0, 20), rng.randint(0, 20)
        user = rng.choice(phrases("ask sum as json", zh)).format(a=a, b=b)
        return dumped("json from memory", user, {"a": a, "b": b, "sum": a + b}, zh)
    words = {**NOUNS, **COLOURS}
    english = rng.choice(list(words))
    user = rng.choice(phrases("ask word as json")).format(x=english)
    pair = {"english": english, "chinese": words[english]}
    return dumped("json from memory", user, pair, zh=False)
