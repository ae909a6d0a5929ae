"""Tables of words that several topics share, and made-up names in two scripts."""

from random import Random

from training.topics.phrases import pairs, phrases

SURNAMES = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗"
GIVEN = "伟芳娜敏静丽强磊军洋勇艳杰涛明超霞平刚桂英华玉兰红建国文辉力志永健世广海山仁波宁贵福生龙元"
COLOURS = pairs("colours")
NOUNS = pairs("nouns")
CITIES = pairs("cities")


def invented(rng: Random) -> str:
    """A pronounceable word that nobody wrote before, for copying rather than knowing."""
    syllables = [
        rng.choice(phrases("onsets")) + rng.choice(phrases("vowels"))
        for _ in range(rng.choice((1, 2, 2, 3)))
    ]
    return "".join(syllables) + rng.choice(phrases("endings"))


def person(rng: Random, zh: bool) -> str:
    if zh and rng.random() < 0.7:
        given = "".join(rng.sample(GIVEN, rng.choice((1, 2))))
        return (
            rng.choice(("", "小")) + given if rng.random() < 0.3 else rng.choice(SURNAMES) + given
        )
    return rng.choice(phrases("first names")) if rng.random() < 0.4 else invented(rng).capitalize()


def city(rng: Random, zh: bool) -> str:
    if rng.random() < 0.15:
        return invented(rng).capitalize()
    name = rng.choice(list(CITIES))
    return CITIES[name] if zh else name


def noun(rng: Random, zh: bool) -> str:
    name = rng.choice(list(NOUNS))
    return NOUNS[name] if zh else name
