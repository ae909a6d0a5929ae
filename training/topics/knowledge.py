"""What the model knows by heart: capitals, words in two languages, opposites, a few facts."""

from random import Random

from training.dialogue import Exchange
from training.topics.phrases import phrases, table
from training.topics.words import COLOURS, NOUNS

COUNTRIES = table("capitals")
OPPOSITES = table("opposites")
FACTS = table("facts")


def capital(rng: Random, zh: bool) -> Exchange:
    country, town, country_zh, town_zh = rng.choice(COUNTRIES)
    if rng.random() < 0.15:
        return country_of(rng, zh)
    if zh:
        user = rng.choice(phrases("ask capital", True)).format(x=country_zh)
        return Exchange(
            "capital", user, f"{country_zh}的首都是{town_zh}。", f"用户问{country_zh}的首都。"
        )
    user = rng.choice(phrases("ask capital")).format(x=country)
    user = user.lower() if rng.random() < 0.1 else user
    return Exchange(
        "capital", user, f"The capital of {country} is {town}.", f"I know the capital of {country}."
    )


def country_of(rng: Random, zh: bool) -> Exchange:
    country, town, country_zh, town_zh = rng.choice(COUNTRIES)
    if zh:
        user = rng.choice(phrases("ask country", True)).format(x=town_zh)
        return Exchange(
            "capital", user, f"{town_zh}是{country_zh}的首都。", f"{town_zh}是一个首都。"
        )
    user = rng.choice(phrases("ask country")).format(x=town)
    return Exchange(
        "capital", user, f"{town} is the capital of {country}.", f"{town} is a capital I know."
    )


def opposite(rng: Random, zh: bool) -> Exchange:
    row = list(rng.choice(OPPOSITES))
    pair = row[2:] if zh else row[:2]
    rng.shuffle(pair)
    if zh:
        answer, thought = f"{pair[0]}的反义词是{pair[1]}。", "用户要反义词。"
    else:
        answer, thought = f"The opposite of {pair[0]} is {pair[1]}.", "The user wants an opposite."
    asked = rng.choice(phrases("ask opposite", zh)).format(x=pair[0])
    return Exchange("opposite", asked, answer, thought)


def fact(rng: Random, zh: bool) -> Exchange:
    question, answer, question_zh, answer_zh = rng.choice(FACTS)
    if zh:
        ask = (
            rng.choice(("", "请问", "你知道", "告诉我"))
            + question_zh
            + rng.choice(("？", "？", ""))
        )
        return Exchange("fact", ask, answer_zh, "这个我知道。")
    ask = rng.choice(("", "", "please tell me, ", "hey, ", "do you know: ", "quick question: "))
    ask += question + rng.choice(("?", "?", ""))
    ask = ask[0].upper() + ask[1:] if rng.random() < 0.6 else ask
    return Exchange("fact", ask, answer, "This is a fact that I know.")


def translation(rng: Random, zh: bool) -> Exchange:
    words = {**NOUNS, **COLOURS}
    english = rng.choice(list(words))
    if zh:
        user = rng.choice(phrases("ask english")).format(x=words[english])
        return Exchange("translation", user, english, f"{words[english]}是 {english}。")
    user = rng.choice(phrases("ask chinese")).format(x=english)
    return Exchange("translation", user, words[english], f"The word is {words[english]}.")
