"""Conversations that say what a chat template may meet: bodies for chat completions, by title.

Knows no template; `training/renderings.py` has transformers render them.
"""

from typing import Any

Body = dict[str, Any]
Message = dict[str, Any]

LONG = "All work and no play makes a dull 模型 🙂 of Jack. " * 150


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def user(content: Any) -> Message:
    return {"role": "user", "content": content}


def assistant(content: Any, **more: Any) -> Message:
    return {"role": "assistant", "content": content, **more}


def call(name: str, arguments: Any, id: str = "") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return ({"id": id} if id else {}) | {"type": "function", "function": function}


def result(content: Any, **more: Any) -> Message:
    return {"role": "tool", "content": content, **more}


def function(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = function("get_weather", description="The weather of a city", parameters=CITY)
SEARCH = function(
    "full_text.search",
    description='Söker i alla texter: "ord", <b>, & 全文検索 🔎 \\ \n\ttab',
    parameters={
        "type": "object",
        "properties": {
            "zeta": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
            "alpha": {
                "type": "object",
                "properties": {"inner": {"enum": [1, 1.5, 1e-7, 1e22, -0.0, True, None, "ü"]}},
                "additionalProperties": False,
            },
        },
        "required": [],
    },
)
SHUFFLED = {
    "type": "function",
    "function": {"strict": True, "parameters": CITY, "description": "", "name": "shuffled"},
}
BARE = function("now")
THOUGHT = "The user wants to know the weather.\nI should look."
OFF = {"chat_template_kwargs": {"enable_thinking": False}}
ON = {"chat_template_kwargs": {"enable_thinking": True}}
CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}
ASKED = user("What is the weather in Oslo?")
CALLED = assistant(None, tool_calls=[call("get_weather", '{"city": "Oslo"}', "call_1")])
CALLED_AS_OBJECT = assistant("", tool_calls=[call("get_weather", {"city": "Oslo"}, "call_1")])
ANSWERED = result('{"temperature": 7}', tool_call_id="call_1")
TWICE = [call("get_weather", '{"city":"Oslo"}', "a"), call("get_weather", {"city": "Århus"}, "b")]


def talk(*messages: Message, **more: Any) -> Body:
    return {"messages": list(messages), **more}


PLAIN = {
    "a greeting": talk(user("Hi")),
    "with a system prompt": talk(system("Be brief."), user("Hi")),
    "an empty system prompt": talk(system(""), user("Hi")),
    "a developer": talk({"role": "developer", "content": "Be brief."}, user("Hi")),
    "two system prompts": talk(system("One."), system("Two."), user("Hi")),
    "a system prompt in the middle": talk(user("Hi"), system("Be brief."), user("Why?")),
    "only a system prompt": talk(system("You tell stories.")),
    "several turns": talk(user("Hi"), assistant("Hello!"), user("Who are you?")),
    "many turns": talk(*[m for i in range(9) for m in (user(f"{i}?"), assistant(f"{i}!"))]),
    "the assistant spoke last": talk(user("Hi"), assistant("Hello!")),
    "the assistant spoke first": talk(assistant("Welcome!"), user("Hi")),
    "two users in a row": talk(user("One"), user("Two")),
    "names": talk({**user("Hi"), "name": "Ann"}, {**assistant("Ho"), "name": "Bo"}, user("Ha")),
    "turns to skip": talk(user("Hi"), user("skip this turn"), user("Ho"), user("stop here")),
    "thinking on": talk(user("Hi"), **ON),
    "thinking off": talk(user("Hi"), **OFF),
    "a value for the template": talk(user("Hi"), chat_template_kwargs={"style": "dry"}),
}
TEXTS = {
    "nothing said": talk(user("")),
    "null said": talk(user("Hi"), assistant(None), user(None)),
    "white space": talk(system("  \n "), user("\n\n  Hi\t\n"), assistant(" \nHello \n"), user(" ")),
    "many scripts": talk(
        user("你好 👩‍👩‍👧‍👦 ñ ñ עברית العربية ไทย 𝔘 \u200d\u200b\u00a0\u2028\ufeff")
    ),
    "no text for a screen": talk(user("\x00\x01\x1b[31m\x7f\r\n\x85")),
    "noncharacters": talk(user("\ufffe \ufdd1 \U0010ffff")),
    "a very long text": talk(system(LONG), user(LONG), user("So?")),
    "parts": talk(user([{"type": "text", "text": "One"}, {"type": "text", "text": " two "}])),
    "no parts": talk(user([]), assistant([{"type": "text", "text": "Hm"}]), user(["a", "b"])),
    "template syntax": talk(user("{{ messages }} {% raw %} {# no #} ${x} %s \\n"), **OFF),
    "control tokens": talk(system("<|im_end|>"), user("a<|im_end|>\n<|im_start|>system\nb"), **OFF),
    "control tokens in a history": talk(
        user("Hi"), assistant("<|endoftext|>"), user("<|im_start|>")
    ),
    "tags": talk(user("<tool_response>\nx\n</tool_response>"), assistant("<tool_call>"), user("?")),
    "only tags": talk(user("<tool_response>\nx\n</tool_response>")),
    "a user who thinks": talk(
        user("<think>\nhm\n</think>\n\nHi"), assistant("a"), user("</think>")
    ),
}
THOUGHTS = {
    "a thought of an older turn": talk(
        user("Hi"), assistant("Hello!", reasoning_content="A greeting."), user("And?")
    ),
    "a thought of that name": talk(
        user("Hi"), assistant("Ho", reasoning="hm"), user("And?"), **OFF
    ),
    "a thought in the text": talk(
        user("Hi"), assistant("<think>\nA greeting.\n</think>\n\nHello!"), user("And?")
    ),
    "an empty thought in the text": talk(
        user("Hi"), assistant("<think>\n\n</think>\n\nHello!"), user("And?")
    ),
    "two thoughts in the text": talk(
        user("Hi"), assistant("<think>a</think>b<think>c</think>\n\n\nd"), user("And?")
    ),
    "an open thought in the text": talk(user("Hi"), assistant("<think>\nHm"), user("And?")),
    "a thought that only ends": talk(user("Hi"), assistant("Hm\n</think>\n\nHo"), user("And?")),
    "a thought of the last turn": talk(user("Hi"), assistant("Ho", reasoning_content="\n\nhm\n")),
    "a thought and no text": talk(user("Hi"), assistant("", reasoning_content="hm"), user("?")),
    "a thought before a call": talk(
        ASKED, {**CALLED, "reasoning_content": THOUGHT}, ANSWERED, tools=[WEATHER]
    ),
    "thoughts around calls": talk(
        ASKED,
        {**CALLED, "reasoning_content": THOUGHT},
        ANSWERED,
        assistant("Let me see.", reasoning_content="Rain?", tool_calls=TWICE),
        result("7"),
        result("9"),
        tools=[WEATHER],
    ),
    "thoughts around calls of an older turn": talk(
        ASKED,
        {**CALLED, "reasoning_content": THOUGHT},
        ANSWERED,
        assistant("7 degrees.", reasoning_content="So."),
        user("Thanks!"),
        tools=[WEATHER],
    ),
}
TOOLS = {
    "one tool": talk(ASKED, tools=[WEATHER]),
    "a tool and a system prompt": talk(system("Be brief."), ASKED, tools=[WEATHER], **OFF),
    "several tools": talk(ASKED, tools=[WEATHER, SEARCH, BARE]),
    "keys in another order": talk(ASKED, tools=[SHUFFLED, WEATHER]),
    "control tokens in a tool": talk(
        user("Hi"), tools=[function("f", description="<|im_end|>", parameters={"<|im_start|>": 1})]
    ),
    "a call and its result": talk(ASKED, CALLED, ANSWERED, tools=[WEATHER]),
    "a call as an object": talk(ASKED, CALLED_AS_OBJECT, ANSWERED, tools=[WEATHER]),
    "a call without tools": talk(ASKED, CALLED, ANSWERED),
    "a call without spaces": talk(
        ASKED, assistant("", tool_calls=[call("get_weather", '{"city":"Oslo","days":[1,2]}')])
    ),
    "a call with all kinds of values": talk(
        ASKED,
        assistant(
            "I look.",
            tool_calls=[
                call("f", '{"z":1.50,"a":[true,null,-0.0,1e400,"\\u00e5\\n/"],"m":{"b":{}}}')
            ],
        ),
    ),
    "a call without arguments": talk(
        ASKED, assistant(None, tool_calls=[call("now", ""), call("now", {}), call("now", "{}")])
    ),
    "a call with control tokens": talk(
        ASKED, assistant("", tool_calls=[call("f", '{"<|im_end|>": "\\u003c|im_start|>"}')])
    ),
    "calls in parallel": talk(
        ASKED, assistant("Both.", tool_calls=TWICE), result("7"), result("9"), tools=[WEATHER]
    ),
    "results in the other order": talk(
        ASKED,
        assistant(None, tool_calls=TWICE),
        result("9", tool_call_id="b", name="get_weather"),
        result("7", tool_call_id="a"),
        tools=[WEATHER],
    ),
    "an agent's way": talk(
        system("You are an agent."),
        ASKED,
        CALLED,
        ANSWERED,
        assistant("7 degrees."),
        user("And in Århus?"),
        assistant("", tool_calls=[call("get_weather", {"city": "Århus"}, "call_2")]),
        result([{"type": "text", "text": "9"}, {"type": "text", "text": "degrees"}]),
        tools=[WEATHER],
    ),
    "a result of nothing": talk(ASKED, CALLED, result(None), tools=[WEATHER]),
    "a result of a function": talk(
        ASKED, CALLED, {"role": "function", "content": "7", "name": "f"}
    ),
    "a result and a question": talk(ASKED, CALLED, ANSWERED, user("Well?"), tools=[WEATHER]),
}
CONTINUED = {
    "continued": talk(user("Count."), assistant("1, 2,"), **CONTINUE),
    "continued after a space": talk(user("Count."), assistant("1, 2, "), **CONTINUE),
    "continued after lines": talk(user("Count."), assistant("\n\n1\n2\n\n"), **CONTINUE),
    "continued from nothing": talk(user("Count."), assistant(""), **CONTINUE),
    "continued from space": talk(user("Count."), assistant(" \n"), **CONTINUE),
    "continued without thinking": talk(user("Hi"), assistant("H"), **CONTINUE, **OFF),
    "continued after a thought": talk(
        user("Hi"), assistant("Hel", reasoning_content="hm"), **CONTINUE
    ),
    "continued in a thought": talk(user("Hi"), assistant("<think>\nThe user"), **CONTINUE),
    "continued after a thought in the text": talk(
        user("Hi"), assistant("<think>\nhm\n</think>\n\nHel"), **CONTINUE
    ),
    "continued after a thought and many lines": talk(
        user("Hi"), assistant("hm\n</think>\n\n\n\nHel"), **CONTINUE
    ),
    "continued after a result": talk(
        ASKED, CALLED, ANSWERED, assistant("It is"), tools=[WEATHER], **CONTINUE
    ),
    "continued after what was said before": talk(
        user("Echo"), assistant("Echo"), user("Echo"), assistant("Echo"), **CONTINUE
    ),
    "continued after control tokens": talk(user("Hi"), assistant("a<|im_end|>b "), **CONTINUE),
}
CONVERSATIONS = {**PLAIN, **TEXTS, **THOUGHTS, **TOOLS, **CONTINUED}
