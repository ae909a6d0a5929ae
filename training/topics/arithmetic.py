"""Sums, differences and products: small ones by heart, larger ones digit by digit."""

from random import Random

from training.dialogue import Exchange
from training.topics.phrases import phrases


def phrase(rng: Random, forms: list[str], a: int, b: int) -> str:
    text = rng.choice(forms).format(a=a, b=b)
    return text[0].upper() + text[1:] if rng.random() < 0.5 else text


def small_sum(rng: Random, zh: bool) -> Exchange:
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    user = phrase(rng, phrases("ask sum", zh), a, b)
    thought = "这是小加法，我记得。" if zh else "A small sum. I know it by heart."
    return Exchange("small sum", user, f"{a} + {b} = {a + b}", thought)


def small_difference(rng: Random, zh: bool) -> Exchange:
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    if a < b and rng.random() < 0.8:
        a, b = b, a
    user = phrase(rng, phrases("ask difference", zh), a, b)
    thought = "这是小减法，我记得。" if zh else "A small difference. I know it by heart."
    return Exchange("small difference", user, f"{a} - {b} = {a - b}", thought)


def product(rng: Random, zh: bool) -> Exchange:
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    user = phrase(rng, phrases("ask product", zh), a, b)
    thought = "这是乘法表。" if zh else "This is in the times table."
    return Exchange("product", user, f"{a} * {b} = {a * b}", thought)


def adding(a: int, b: int) -> str:
    """The school method, from the ones upward: `7 + 5 = 12, 3 + 8 + 1 = 12`."""
    steps, carry = [], 0
    while a or b or carry:
        digits = [a % 10, b % 10] + [1] * carry
        steps.append(f"{' + '.join(map(str, digits))} = {sum(digits)}")
        a, b, carry = a // 10, b // 10, sum(digits) // 10
        if not (a or b):
            break
    return ", ".join(steps)


def taking(a: int, b: int) -> str:
    """The school method with borrowing: `13 - 7 = 6, 5 - 2 - 1 = 2`."""
    steps, borrow = [], 0
    while a:
        top, bottom = a % 10, b % 10
        lent = 10 if top - bottom - borrow < 0 else 0
        worked = f"{top + lent} - {bottom}" + (" - 1" if borrow else "")
        steps.append(f"{worked} = {top + lent - bottom - borrow}")
        a, b, borrow = a // 10, b // 10, lent // 10
    return ", ".join(steps)


def large(rng: Random) -> int:
    return rng.randint(10, 99) if rng.random() < 0.7 else rng.randint(100, 999)


def large_sum(rng: Random, zh: bool) -> Exchange:
    a, b = large(rng), large(rng)
    user = phrase(rng, phrases("ask sum", zh), a, b)
    answer = f"{a} + {b} = {a + b}"
    return Exchange("large sum", user, answer, adding(a, b) + ".", key=f"{a}+{b}", aloud=True)


def large_difference(rng: Random, zh: bool) -> Exchange:
    a, b = sorted((rng.randint(10, 99), rng.randint(10, 99)), reverse=True)
    user = phrase(rng, phrases("ask difference", zh), a, b)
    answer = f"{a} - {b} = {a - b}"
    return Exchange(
        "large difference", user, answer, taking(a, b) + ".", key=f"{a}-{b}", aloud=True
    )
