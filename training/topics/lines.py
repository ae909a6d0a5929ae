"""Sequences: counting, echoing, and lists whose length is numbered as it goes."""

from random import Random

from training.dialogue import Exchange
from training.topics.phrases import pairs, phrases
from training.topics.words import COLOURS, city, invented, noun, person

LISTS = pairs("kinds of lists")


def counting(rng: Random, zh: bool) -> Exchange:
    a, b = sorted(rng.sample(range(31), 2))
    b = min(b, a + 20)
    kind = rng.random()
    if kind < 0.4:
        numbers, forms = range(a, b + 1), phrases("ask count", zh)
    elif kind < 0.75:
        b = rng.randint(2, 20)
        numbers, forms = range(1, b + 1), phrases("ask count up", zh)
    else:
        b = rng.randint(2, 20)
        numbers, forms = range(b, 0, -1), phrases("ask count down", zh)
    answer = ", ".join(map(str, numbers))
    thought = (
        f"从{numbers[0]}数到{numbers[-1]}。"
        if zh
        else f"I count from {numbers[0]} to {numbers[-1]}."
    )
    return Exchange("counting", rng.choice(forms).format(a=a, b=b), answer, thought)


def saying(rng: Random, zh: bool) -> str:
    kind = rng.random()
    if kind < 0.35:
        return rng.choice(phrases(rng.choice(("sayings", "beyond", "hard subjects")), zh))
    if zh:
        makers = (noun, person, city)
        return "".join(rng.choice(makers)(rng, True) for _ in range(rng.randint(1, 4)))
    words = [
        rng.choice(
            (
                rng.choice(phrases("filler words")),
                rng.choice(phrases("rare words")),
                noun(rng, False),
                invented(rng),
            )
        )
        for _ in range(rng.randint(1, 9))
    ]
    text = " ".join(words)
    text = text[0].upper() + text[1:] if rng.random() < 0.3 else text
    return text + rng.choice(("", "", "", ".", "!", f" {rng.randint(0, 999)}"))


def echo(rng: Random, zh: bool) -> Exchange:
    x = saying(rng, zh)
    user = rng.choice(phrases("ask echo", zh)).format(x=x)
    return Exchange("echo", user, x, "我照着说。" if zh else "I repeat the words exactly.", key=x)


def listing(rng: Random, zh: bool) -> Exchange:
    name, name_zh = rng.choice(list(LISTS.items()))
    n = rng.randint(2, 10)
    chosen = phrases(f"list of {name}", zh)[:n]
    spelled = phrases("spelled", zh)[n] if rng.random() < 0.3 else str(n)
    user = rng.choice(phrases("ask list", zh)).format(n=spelled, x=name_zh if zh else name)
    answer = "\n".join(f"{i}. {item}" for i, item in enumerate(chosen, 1))
    thought = f"用户要{n}个{name_zh}。" if zh else f"The list has {n} {name}."
    return Exchange("list", user, answer, thought)


def one_word(rng: Random, zh: bool) -> Exchange:
    """The shortest of answers."""
    english = rng.choice(list(COLOURS))
    if zh:
        return Exchange(
            "echo", f"只回答一个词：{COLOURS[english]}", COLOURS[english], "只回答一个词。"
        )
    return Exchange("echo", f"Answer with one word: {english}", english, "One word only.")
