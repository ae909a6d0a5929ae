"""Questions that a function answers: the call, the result, and the sentence made of it."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

from training.dialogue import Exchange, Message
from training.topics.phrases import pairs, phrases
from training.topics.words import city, invented

Fields = dict[str, Any]
Maker = Callable[[Random], Message]

SKIES = pairs("skies")


def function(rng: Random, name: str, note: str, parameters: Fields, required: list[str]) -> Message:
    """One signature; clients differ in the optional parts."""
    body: Fields = {"name": name, "description": note}
    if rng.random() < 0.15:
        body.pop("description")
    body["parameters"] = {"type": "object", "properties": parameters}
    if rng.random() < 0.8:
        body["parameters"]["required"] = required
    if rng.random() < 0.1:
        body["parameters"]["additionalProperties"] = False
    return {"type": "function", "function": body}


def named(rng: Random, kind: str) -> str:
    """A usual name, or one with a made-up part, which can only be copied from the signature."""
    name = rng.choice(phrases(f"{kind} names"))
    made_up = rng.choice((invented(rng), rng.choice(phrases("rare words"))))
    return rng.choice((name, name, f"{name}_{made_up}", f"{made_up}_{name}"))


def weather_tool(rng: Random) -> Message:
    place = rng.choice(phrases("place parameters"))
    parameters: Fields = {place: {"type": "string"}}
    if rng.random() < 0.4:
        parameters[place]["description"] = rng.choice(phrases("place notes"))
    if rng.random() < 0.25:
        parameters["unit"] = {"type": "string", "enum": ["celsius", "fahrenheit"]}
    return function(
        rng,
        named(rng, "weather"),
        rng.choice(phrases("weather notes")),
        parameters,
        [place],
    )


def calculator_tool(rng: Random) -> Message:
    formula = rng.choice(phrases("formula parameters"))
    return function(
        rng,
        named(rng, "calculator"),
        rng.choice(phrases("calculator notes")),
        {formula: {"type": "string"}},
        [formula],
    )


def time_tool(rng: Random) -> Message:
    place = rng.choice(phrases("place parameters"))
    return function(
        rng,
        named(rng, "time"),
        "Get the time in a city",
        {place: {"type": "string"}},
        [place],
    )


def calls(tool: Message, values: list[str], thought: str) -> Message:
    """The assistant message that calls one tool once per value."""
    signature = tool["function"]
    parameter = next(iter(signature["parameters"]["properties"]))
    made = [{"name": signature["name"], "arguments": {parameter: value}} for value in values]
    return {
        "role": "assistant",
        "content": "",
        "reasoning_content": thought,
        "tool_calls": [{"type": "function", "function": call} for call in made],
    }


def result(content: object) -> Message:
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return {"role": "tool", "content": text}


MAKERS = (weather_tool, calculator_tool, time_tool)


def toolbox(rng: Random, maker: Maker, tool: Message) -> tuple[Message, ...]:
    """The tool that is needed, at times among others, in any order."""
    makers = [make for make in MAKERS if make is not maker]
    tools = [tool, *(make(rng) for make in makers if rng.random() < 0.35)]
    rng.shuffle(tools)
    return tuple(tools)


def observe(rng: Random, place: str, zh: bool) -> tuple[Message, str]:
    """A made-up observation in one of several shapes, and the sentence about it."""
    degrees, sky = rng.randint(-15, 40), rng.choice(list(SKIES))
    shown = SKIES[sky] if zh and rng.random() < 0.5 else sky
    shapes: list[object] = [
        {"temperature": degrees, "condition": shown},
        {"temperature": degrees, "condition": shown, "city": place},
        {"city": place, "temperature": degrees, "unit": "celsius", "condition": shown},
        {"temp": degrees, "sky": shown},
        {"temperature_c": degrees, "conditions": shown},
        f"{degrees} degrees, {shown}",
        f"{shown}, {degrees}°C",
        f"{shown}, {degrees} C",
    ]
    sentence = (
        f"{place}现在{degrees}度，{SKIES[sky]}。"
        if zh
        else f"It is {degrees} degrees and {sky} in {place}."
    )
    return result(rng.choice(shapes)), sentence


def weather(rng: Random, zh: bool) -> Exchange:
    tool, place = weather_tool(rng), city(rng, zh)
    seen, answer = observe(rng, place, zh)
    user = rng.choice(phrases("ask weather", zh)).format(x=place)
    plan = f"我需要{place}的天气。" if zh else f"I need the weather in {place}."
    return Exchange(
        "weather tool",
        user,
        answer,
        "工具给了结果，我来回答。" if zh else "The tool answered. I report it.",
        key=user + seen["content"],
        tools=toolbox(rng, weather_tool, tool),
        steps=(calls(tool, [place], plan), seen),
    )


def two_cities(rng: Random, zh: bool) -> Exchange:
    tool, one = weather_tool(rng), city(rng, zh)
    two = next(place for place in iter(lambda: city(rng, zh), "") if place != one)
    first, sentence_one = observe(rng, one, zh)
    second, sentence_two = observe(rng, two, zh)
    plan = f"我需要{one}和{two}的天气。" if zh else f"I need the weather in {one} and {two}."
    return Exchange(
        "two weather calls",
        rng.choice(phrases("ask two cities", zh)).format(x=one, y=two),
        sentence_one + ("" if zh else " ") + sentence_two,
        "工具给了结果，我来回答。" if zh else "The tool answered. I report it.",
        tools=toolbox(rng, weather_tool, tool),
        steps=(calls(tool, [one, two], plan), first, second),
    )


def calculation(rng: Random, zh: bool) -> Exchange:
    tool, sign = calculator_tool(rng), rng.choice("+-*/")
    a, b = rng.randint(2, 10 ** rng.choice((1, 2, 3))), rng.randint(2, 10 ** rng.choice((1, 2, 3)))
    gap = rng.choice((" ", " ", ""))
    formula = f"{a}{gap}{sign}{gap}{b}"
    value = {"+": a + b, "-": a - b, "*": a * b, "/": round(a / b, 2)}[sign]
    seen: object = rng.choice((str(value), str(value), {"result": value}, {"value": value}))
    return Exchange(
        "calculator tool",
        rng.choice(phrases("ask calculation", zh)).format(x=formula),
        f"{formula} = {value}",
        "工具给了结果，我来回答。" if zh else "The tool answered. I report it.",
        tools=toolbox(rng, calculator_tool, tool),
        steps=(
            calls(tool, [formula], "用计算器。" if zh else "I use the calculator."),
            result(seen),
        ),
    )


def clock(rng: Random, zh: bool) -> Exchange:
    tool, place = time_tool(rng), city(rng, zh)
    now = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
    return Exchange(
        "time tool",
        rng.choice(phrases("ask time", zh)).format(x=place),
        f"{place}现在是{now}。" if zh else f"It is {now} in {place}.",
        "工具给了结果，我来回答。" if zh else "The tool answered. I report it.",
        tools=toolbox(rng, time_tool, tool),
        steps=(
            calls(
                tool, [place], f"我需要{place}的时间。" if zh else f"I need the time in {place}."
            ),
            result(rng.choice((now, {"time": now}, {"city": place, "time": now}))),
        ),
    )
