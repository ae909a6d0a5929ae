"""The table of docs/api.md, feature by dialect: each of its cells is tried on a running server.

`yes`: it is done, which has to be seen. `no`: a 400 or 501 that names it. `-`: it is ignored, and
the rest is done. Empty: the dialect has no word for it.
"""

import base64
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest

from tests import embedding_model
from tests.test_end_to_end import running

DOCS = Path(__file__).parents[1] / "docs" / "api.md"
CONFIG = """
models:
  qwen3-demo: {aliases: [default], bundled: qwen3-demo, context: 4096, slots: 4, thinking: false}
  embedder: {path: embedder.gguf, context: 1024}
"""
HI = [{"role": "user", "content": "Hello!"}]
PLACE = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 9}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {"name": "weather", "parameters": PLACE}
OPTIONS = {"num_predict": 12, "temperature": 0}
NO_STREAM = {"model": "default", "stream": False, "options": OPTIONS}
Json = Any


@dataclass(frozen=True)
class Endpoint:
    """How a dialect is asked, and where in its answer are the text, or the vectors, and the size of
    the prompt."""

    path: str
    body: dict[str, Json]
    text: Callable[[Json], Any]
    prompt: Callable[[Json], int]


ENDPOINTS = {
    "chat": Endpoint(
        "/v1/chat/completions",
        {"messages": HI, "max_tokens": 12, "temperature": 0},
        lambda reply: reply["choices"][0]["message"]["content"],
        lambda reply: reply["usage"]["prompt_tokens"],
    ),
    "completions": Endpoint(
        "/v1/completions",
        {"prompt": "Hello", "max_tokens": 12, "temperature": 0},
        lambda reply: reply["choices"][0]["text"],
        lambda reply: reply["usage"]["prompt_tokens"],
    ),
    "responses": Endpoint(
        "/v1/responses",
        {"input": "Hello!", "max_tokens": 12, "temperature": 0},
        lambda reply: "".join(
            part["text"]
            for item in reply["output"]
            if item["type"] == "message"
            for part in item["content"]
        ),
        lambda reply: reply["usage"]["input_tokens"],
    ),
    "messages": Endpoint(
        "/v1/messages",
        {"model": "default", "messages": HI, "max_tokens": 12, "temperature": 0},
        lambda reply: "".join(part.get("text", "") for part in reply["content"]),
        lambda reply: reply["usage"]["input_tokens"] + reply["usage"]["cache_read_input_tokens"],
    ),
    "/api/chat": Endpoint(
        "/api/chat",
        NO_STREAM | {"messages": HI},
        lambda reply: reply["message"]["content"],
        lambda reply: reply["prompt_eval_count"],
    ),
    "/api/generate": Endpoint(
        "/api/generate",
        NO_STREAM | {"prompt": "Hello!"},
        lambda reply: reply["response"],
        lambda reply: reply["prompt_eval_count"],
    ),
    "/v1/embeddings": Endpoint(
        "/v1/embeddings",
        {"model": "embedder", "input": "A fox."},
        lambda reply: [made["embedding"] for made in reply["data"]],
        lambda reply: reply["usage"]["prompt_tokens"],
    ),
    "/api/embed": Endpoint(
        "/api/embed",
        {"model": "embedder", "input": "A fox."},
        lambda reply: reply["embeddings"],
        lambda reply: reply["prompt_eval_count"],
    ),
    "/api/embeddings": Endpoint(
        "/api/embeddings",
        {"model": "embedder", "prompt": "A fox."},
        lambda reply: [reply["embedding"]],
        lambda reply: 0,
    ),
}
OPENAI, OLLAMA = ("chat", "completions", "responses"), ("/api/chat", "/api/generate")
EMBEDDING = ("/v1/embeddings", "/api/embed", "/api/embeddings")


@dataclass(frozen=True)
class Answer:
    """What came back, and what comes back without the feature."""

    response: httpx.Response
    plain: Json
    at: Endpoint
    client: httpx.Client

    @property
    def reply(self) -> Json:
        return self.response.json()

    @property
    def text(self) -> str:
        return self.at.text(self.reply)

    @property
    def plain_text(self) -> str:
        return self.at.text(self.plain)

    def again(self) -> str:
        """The text when the same is asked for once more."""
        body = json.loads(self.response.request.content)
        return self.at.text(self.client.post(self.at.path, json=body).json())


Seen = Callable[[Answer], bool]
Try = tuple[dict[str, Json], Seen]


def each(dialects: Mapping[str, dict[str, Json]] | tuple[str, ...], *what: Any) -> dict[str, Try]:
    """A way to try a feature for each of the dialects."""
    if isinstance(dialects, tuple):
        asked, seen = what
        return dict.fromkeys(dialects, (asked, seen))
    [seen] = what
    return {dialect: (asked, seen) for dialect, asked in dialects.items()}


def taken(_: Answer) -> bool:
    return True


def differs(answer: Answer) -> bool:
    return answer.text != answer.plain_text


def more_prompt(answer: Answer) -> bool:
    return answer.at.prompt(answer.reply) > answer.at.prompt(answer.plain)


def says(pattern: str) -> Seen:
    """Whether a pattern is in what came back."""
    return lambda answer: bool(re.search(pattern, answer.response.text))


def is_place(answer: Answer) -> bool:
    return jsonschema_rs.is_valid(PLACE, json.loads(answer.text))


def calls_weather(answer: Answer) -> bool:
    return bool(re.search(r'"name":"weather"', answer.response.text))


def goes_some_day(answer: Answer) -> bool:
    """Whether the model does not stay for ever, as it did and then does again."""
    running = answer.client.get("/api/ps").json()["models"][0]
    answer.client.post("/api/chat", json={"keep_alive": -1})
    return not running["expires_at"].startswith("2318")


def goes_on(answer: Answer) -> bool:
    """Whether the next answer knows what was said before."""
    body = answer.at.body | {"previous_response_id": answer.reply["id"]}
    reply = answer.client.post(answer.at.path, json=body).json()
    return answer.at.prompt(reply) > 2 * answer.at.prompt(answer.reply)


def options(**said: Json) -> dict[str, Json]:
    return {"options": OPTIONS | said}


LONG = {"max_tokens": 60}
LONG_OPTIONS = options(num_predict=60)
TOOL = {"type": "function", "function": WEATHER}
CLAUDE_TOOL = {"name": "weather", "input_schema": PLACE}
SYSTEM = [{"role": "system", "content": "Be brief."}, *HI]
BEGUN = [*HI, {"role": "assistant", "content": "Dear"}]
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
CLAUDE_PICTURE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
}
FLAT_TOOL = {"type": "function", **WEATHER}
FLAT_CALL = {"tools": [FLAT_TOOL], "tool_choice": "required"}
FLAT_FORM = {"type": "json_schema", "name": "place", "schema": PLACE}
FORM = {"type": "json_schema", "json_schema": {"name": "place", "schema": PLACE}}
BRIEF = {"name": "brief", "system_prompt": "Be brief.", "repetition_penalty": 9}
DRAW = {"temperature": 1.5, "top_p": 0.9, "top_k": 40}

FEATURES: dict[str, dict[str, Try]] = {
    "streaming": each((*OPENAI, "messages"), {"stream": True}, says(r"(?s)data: .*data: "))
    | each(OLLAMA, {"stream": True}, says(r'(?s)"done":false.*"done":true')),
    "token counts in a stream": each(
        OPENAI, {"stream": True, "stream_options": {"include_usage": True}}, says(r'"usage":\{')
    )
    | each(("messages",), {"stream": True}, says('"output_tokens":12'))
    | each(OLLAMA, {"stream": True}, says('"eval_count":12')),
    "a system prompt": each(("chat", "/api/chat"), {"messages": SYSTEM}, more_prompt)
    | each(("messages", "/api/generate"), {"system": "Be brief."}, more_prompt)
    | each({"responses": {"instructions": "Be brief."}}, more_prompt),
    "several answers (`n`)": each(
        ("chat", "completions"), {"n": 2}, lambda a: len(a.reply["choices"]) == 2
    )
    | each({"responses": {"n": 2}}, says('"param":"n"')),
    "several prompts": each(
        {"completions": {"prompt": ["A", "B"]}}, lambda a: len(a.reply["choices"]) == 2
    ),
    "prompts as token ids": each(
        {"completions": {"prompt": [5, 6, 7]}}, lambda a: a.at.prompt(a.reply) == 3
    ),
    "an [agent](#agents) as the model": each(
        ("chat", "responses", "messages", *OLLAMA), {"model": "brief"}, more_prompt
    )
    | each({"completions": LONG | {"model": "brief"}}, differs),
    "a limit of tokens": each(OPENAI, {"max_tokens": 2}, says('"completion_tokens":2,'))
    | each({"responses": {"max_output_tokens": 2}}, says('"output_tokens":2,'))
    | each(("messages",), {"max_tokens": 2}, says('"output_tokens":2[,}]'))
    | each(OLLAMA, options(num_predict=2), says('"eval_count":2,')),
    "stop strings": each(OPENAI, {"stop": [" "]}, lambda a: " " not in a.text)
    | each(("messages",), {"stop_sequences": [" "]}, lambda a: " " not in a.text)
    | each(OLLAMA, options(stop=[" "]), lambda a: " " not in a.text),
    "stop tokens": each(
        OPENAI, {"stop_token_ids": [70], "logit_bias": {"70": 100}}, lambda a: a.text == ""
    ),
    "log probabilities": each(
        ("chat", *OLLAMA), {"logprobs": True, "top_logprobs": 2}, says(r'"top_logprobs":\[\{"')
    )
    | each(("completions",), {"logprobs": 2}, says(r'"top_logprobs":\[\{"'))
    | each(("responses",), {"top_logprobs": 2}, says("top_logprobs")),
    "those of a prompt (`echo`)": each(
        {"completions": {"echo": True, "max_tokens": 0, "logprobs": 1}},
        lambda a: a.text == "Hello" and a.reply["choices"][0]["logprobs"]["tokens"][0] in "Hello",
    ),
    "temperature, top-p, top-k": each((*OPENAI, "messages"), DRAW, taken)
    | each(OLLAMA, options(**DRAW), taken),
    "seed": each(OPENAI, DRAW | {"seed": 5}, lambda a: a.again() == a.text)
    | each(OLLAMA, options(**DRAW, seed=5), lambda a: a.again() == a.text)
    | each({"messages": DRAW | {"seed": 5}}, taken),
    "min-p": each(OPENAI, {"min_p": 0.1}, taken) | each(OLLAMA, options(min_p=0.1), taken),
    "penalties": each(OPENAI, LONG | {"presence_penalty": 2, "repetition_penalty": 5}, differs)
    | each(OLLAMA, options(num_predict=60, repeat_penalty=9), differs),
    "logit bias": each(OPENAI, {"logit_bias": {"70": 100}}, differs),
    "tools": each(("chat", "/api/chat"), {"tools": [TOOL]}, more_prompt)
    | each({"messages": {"tools": [CLAUDE_TOOL]}}, more_prompt)
    | each({"responses": {"tools": [FLAT_TOOL]}}, more_prompt),
    "forced calls": each(
        {
            "chat": LONG | {"tools": [TOOL], "tool_choice": "required"},
            "messages": LONG | {"tools": [CLAUDE_TOOL], "tool_choice": {"type": "any"}},
        },
        calls_weather,
    )
    | each({"responses": LONG | FLAT_CALL}, says('"call_id":')),
    "one call at most": each(
        {
            "chat": LONG
            | {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
            "messages": LONG
            | {
                "tools": [CLAUDE_TOOL],
                "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
            },
        },
        lambda a: len(re.findall('"name":"weather"', a.response.text)) == 1,
    )
    | each(
        {"responses": LONG | FLAT_CALL | {"parallel_tool_calls": False}},
        lambda a: len(re.findall('"call_id":', a.response.text)) == 1,
    ),
    "a JSON schema": each(OPENAI, LONG | {"response_format": FORM}, is_place)
    | each({"responses": LONG | {"text": {"format": FLAT_FORM}}}, is_place)
    | each(
        {
            "messages": LONG
            | {"output_config": {"format": {"type": "json_schema", "schema": PLACE}}}
        },
        is_place,
    )
    | each(OLLAMA, LONG_OPTIONS | {"format": PLACE}, is_place),
    "any JSON": each(
        OPENAI, {"response_format": {"type": "json_object"}}, lambda a: a.text.startswith("{")
    )
    | each(OLLAMA, {"format": "json"}, lambda a: a.text.startswith("{")),
    "a regex, a choice, a grammar": each(
        OPENAI, {"structured_outputs": {"regex": "[x]{3}"}}, lambda a: a.text == "xxx"
    ),
    "thinking switched": each({"chat": LONG | {"think": True}}, says('"reasoning_content":"'))
    | each({"responses": LONG | {"reasoning": {"effort": "high"}}}, says('"reasoning_text"'))
    | each({"messages": LONG | {"thinking": {"type": "enabled"}}}, says('"type":"thinking"'))
    | each(OLLAMA, LONG_OPTIONS | {"think": True}, says('"thinking":"')),
    "a budget for thinking": each(
        {
            "chat": {"think": True, "thinking_budget": 3, "max_tokens": 40},
            "responses": {"think": True, "thinking_budget": 3, "max_tokens": 40},
            "messages": {
                "thinking": {"type": "enabled", "budget_tokens": 3},
                "max_tokens": 40,
            },
        },
        says("So I answer"),
    )
    | each(OLLAMA, LONG_OPTIONS | {"think": "low"}, says('"thinking":"')),
    "an answer begun by the client": each(
        {
            "chat": {"messages": BEGUN, "continue_final_message": True},
            "messages": {"messages": BEGUN},
        },
        more_prompt,
    ),
    "images": each(
        {
            "chat": {"messages": [{"role": "user", "content": [PICTURE]}]},
            "responses": {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "messages": {"messages": [{"role": "user", "content": [CLAUDE_PICTURE]}]},
            "/api/chat": {"messages": [{**HI[0], "images": ["AAAA"]}]},
            "/api/generate": {"images": ["AAAA"]},
        },
        says("(?i)image|content"),
    ),
    "a deadline (`timeout`)": each(OPENAI, {"timeout": 60}, taken),
    "priority (`service_tier`)": each(OPENAI, {"service_tier": "priority"}, taken)
    | each({"messages": {"service_tier": "auto"}}, taken),
    "prefixes of one's own (`cache_salt`)": each(
        ("chat", "completions"), {"cache_salt": "mine"}, says('"cached_tokens":0')
    )
    | each({"responses": {"cache_salt": "another"}}, says('"cached_tokens":0')),
    "resumable streams": each(
        OPENAI,
        {"stream": True, "resumable": True},
        lambda a: bool(a.response.headers["x-stream-id"]),
    ),
    "how long the model stays (`keep_alive`)": each(
        (*OPENAI, "responses", *OLLAMA), {"keep_alive": "10m"}, goes_some_day
    ),
    "a vector of a text": each(EMBEDDING, {}, lambda a: len(a.text[0]) == 256),
    "vectors of several texts": each(
        EMBEDDING[:2], {"input": ["A fox.", "A bee."]}, lambda a: len(a.text) == 2
    ),
    "a vector of token ids": each(
        {"/v1/embeddings": {"input": [5, 6, 7]}}, lambda a: a.at.prompt(a.reply) == 3
    ),
    "vectors of length 1": each(
        EMBEDDING[:2], {}, lambda a: abs(math.hypot(*a.text[0]) - 1) < 1e-4
    ),
    "fewer numbers (`dimensions`)": each(
        EMBEDDING[:2], {"dimensions": 16}, lambda a: len(a.text[0]) == 16
    ),
    "numbers as base64": each(
        {"/v1/embeddings": {"encoding_format": "base64"}},
        lambda a: len(base64.b64decode(a.text[0])) == 4 * 256,
    ),
    "cutting what is too long (`truncate`)": each(
        {"/api/embed": {"input": "A fox. " * 2000}}, lambda a: a.at.prompt(a.reply) == 1024
    ),
    "a conversation that is remembered": each({"responses": {"store": True}}, goes_on),
    "`suffix`": each(
        {"completions": {"suffix": "x"}, "/api/generate": {"suffix": "x"}}, says("suffix")
    ),
}


def table() -> dict[str, dict[str, str]]:
    """The cells that say something, by feature and dialect, of both tables."""
    text = DOCS.read_text().partition("## What each dialect does\n")[2].partition("\n## ")[0]
    cells: dict[str, dict[str, str]] = {}
    for block in text.split("\n\n"):
        if block.lstrip().startswith("|"):
            rows = [
                [cell.strip() for cell in line.strip("|").split("|")] for line in block.split("\n")
            ]
            (_, *dialects), _, *rest = (row for row in rows if row != [""])
            for name, *row in rest:
                said = zip((dialect.strip("`") for dialect in dialects), row, strict=True)
                cells.setdefault(name, {}).update((d, cell) for d, cell in said if cell)
    return cells


TABLE = table()
CELLS = [(feature, dialect) for feature, row in TABLE.items() for dialect in row]


def test_every_cell_is_tried_and_everything_tried_has_a_cell():
    tried = {(feature, dialect) for feature, row in FEATURES.items() for dialect in row}
    assert tried == set(CELLS)
    assert {cell for row in TABLE.values() for cell in row.values()} <= {"yes", "no", "-"}


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[httpx.Client]:
    """Of a server with a model for answers, and one for vectors beside it."""
    folder = tmp_path_factory.mktemp("features")
    embedding_model.write(folder / "embedder.gguf", "last")
    (folder / "models.yaml").write_text(CONFIG)
    with (
        running("--config", str(folder / "models.yaml"), "--port", "0") as (url, _),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        assert client.post("/api/v1/agents", json=BRIEF).status_code == 201
        yield client


@pytest.fixture(scope="module")
def plain(client) -> dict[str, Json]:
    """What each dialect answers without any feature."""
    return {name: client.post(at.path, json=at.body).json() for name, at in ENDPOINTS.items()}


@pytest.mark.parametrize(("feature", "dialect"), CELLS)
def test_a_dialect_does_what_the_table_says(client, plain, feature, dialect):
    at, (asked, seen) = ENDPOINTS[dialect], FEATURES[feature][dialect]
    response = client.post(at.path, json=at.body | asked)
    answer = Answer(response, plain[dialect], at, client)
    cell = TABLE[feature][dialect]
    if cell == "no":
        assert response.status_code in (400, 501) and seen(answer)
    else:
        assert response.status_code == 200, response.text
        assert cell == "-" or seen(answer)
