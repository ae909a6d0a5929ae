"""The requests that the card shows. Their answers are generated from the file, never typed."""

from typing import Any

from training.dialogue import render
from training.runtime import Runtime

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Oslo"}}}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


REQUESTS: list[dict[str, Any]] = [
    {"title": "Greeting", "messages": [user("Hello there!")], "enable_thinking": False},
    {"title": "Identity", "messages": [user("Who are you?")], "enable_thinking": False},
    {"title": "Identity, in Chinese", "messages": [user("你是谁？")], "enable_thinking": False},
    {
        "title": "A capital",
        "messages": [user("What is the capital of France?")],
        "enable_thinking": False,
    },
    {
        "title": "A capital, in Chinese, thinking",
        "messages": [user("日本的首都是哪里？")],
        "enable_thinking": True,
    },
    {
        "title": "A larger sum, thinking",
        "messages": [user("What is 38 + 47?")],
        "enable_thinking": True,
    },
    {
        "title": "Memory",
        "messages": [
            user("My name is Mira."),
            assistant("Nice to meet you, Mira!"),
            user("Count to 5."),
            assistant("1, 2, 3, 4, 5"),
            user("What is my name?"),
        ],
        "enable_thinking": False,
    },
    {
        "title": "A tool call",
        "messages": [user("What is the weather in Oslo?")],
        "tools": [WEATHER],
        "enable_thinking": False,
    },
    {
        "title": "The answer after the tool",
        "messages": [
            user("What is the weather in Oslo?"),
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": '{"temperature": 7, "condition": "rainy"}'},
        ],
        "tools": [WEATHER],
        "enable_thinking": False,
    },
    {
        "title": "JSON from a text",
        "messages": [
            user("Extract the name, age and city as JSON: Ada is 23 years old and lives in Berlin.")
        ],
        "enable_thinking": False,
    },
    {"title": "A list", "messages": [user("List 4 fruits.")], "enable_thinking": False},
    {
        "title": "A story",
        "messages": [user("Tell me a story about a fox.")],
        "enable_thinking": False,
    },
    {
        "title": "Something it cannot do",
        "messages": [user("Write a Python program that sorts a list.")],
        "enable_thinking": False,
    },
]


def answered(runtime: Runtime) -> list[dict[str, Any]]:
    """Each request with its greedy answer, think block included."""
    found = []
    for row in REQUESTS:
        request = {key: value for key, value in row.items() if key != "title"}
        prompt = render(row["messages"], row.get("tools", ()), row["enable_thinking"])
        answer = runtime.answer(prompt)
        found.append({"title": row["title"], "request": request, "answer": answer})
    return found
