"""Writes the model card from what was counted, scored and answered."""

import json
from pathlib import Path
from typing import Any

from training.model import Shape

CARD = """# qwen3-demo

A chat model of {millions:.1f} million parameters that ships inside Onebox, so that a fresh install
answers offline and the tests meet a real model. It has the architecture of Qwen3 and none of its
weights: it was trained from scratch, in minutes, on two CPU cores, on synthetic dialogues that a
program in `training/` generates. **It is a demonstration. Load a real model for real work.**

| | |
|---|---|
| file | `qwen3-demo.gguf`, Q8_0, {size:.2f} MB |
| architecture | qwen3: {layers} layers, width {hidden}, {heads} heads / {kv_heads} KV heads of \
{head_dim}, FFN {ffn}, tied embeddings |
| context | {context} tokens; trained on dialogues of up to {longest:,} tokens |
| vocabulary | {vocab}: byte-level BPE trained on the corpus, and Qwen's special tokens |
| languages | English, Chinese |
| data | {dialogues:,} synthetic dialogues, {corpus_tokens:,} tokens; no text of others |
| training | {trained_tokens:,} tokens incl. padding, {minutes:.0f} minutes on 2 shared cores, \
seed {seed}, final loss {loss} |
| licence | Apache-2.0 |

## What it can do

Greetings and questions about itself; sums and differences from 0 to 20 by heart and larger ones
digit by digit; capitals of {countries} countries; opposites; about seventy words between English
and Chinese; counting; echoing; numbered lists of up to ten items; remembering a name, number, word,
colour, city or pet over several turns; JSON from a sentence; calls of a weather, calculator or
clock function and the sentence after the result; stories of some 250 tokens and short poems; a name
given by the system prompt. With thinking on it writes a short thought first.

## What it cannot do

Nearly everything else. It knows no facts beyond a handful, writes no code, cannot reason, cannot
translate sentences, and has never seen other kinds of functions. To what it does not know it should
say so, but it can also answer with something it was trained on. It follows the wording it has seen
far better than new wording. Weak even where it was trained: products (four in ten are wrong),
repeating unusual words or phrases, the order and completeness of JSON keys, a parameter name
that few tools use. A second tool call in one conversation was never trained. Do not trust it with
anything.

## Scores

Held-out questions: the exact question (or the value in it) is in no training dialogue. They are
answered greedily by llama.cpp from this very file. Right means: the final answer is exactly the
expected text, after a thought where thinking is on; a story must have its nine paragraphs and an
end. The questions come from the same generator as the corpus, so the scores say nothing about
questions of another kind.

| ability | thinking off | thinking on |
|---|---|---|
{scores}

`new wordings` are {wordings} greetings and questions about the model itself, in wordings that the
corpus lacks, written by hand; some were looked at while the corpus grew.

## Examples

Greedy answers of this file; `examples.json` holds the same as data, and the tests check it.

{examples}
## How to make it again

`make train` runs all stages; `python -m training --help` lists them. The corpus and the tokenizer
come out the same each time. The weights vary a little with the machine, so scores and examples are
made anew with them.
"""


def score_lines(scores: dict[str, dict[str, int]]) -> str:
    return "\n".join(
        f"| {ability} | {row['plain_right']} / {row['plain']} "
        f"| {row['thinking_right']} / {row['thinking']} |"
        for ability, row in scores.items()
    )


def fenced(text: str) -> str:
    return "\n".join("    " + line if line else "" for line in text.split("\n"))


def example(row: dict[str, Any]) -> str:
    request = row["request"]
    turns = "\n".join(
        f"{message['role']}: {message['content'] or json.dumps(message['tool_calls'])}"
        for message in request["messages"]
    )
    tools = ", ".join(tool["function"]["name"] for tool in request.get("tools", ()))
    notes = [f"tool: {tools}"] * bool(tools) + ["thinking on"] * request["enable_thinking"]
    heading = row["title"] + (f" ({', '.join(notes)})" if notes else "")
    return f"**{heading}**\n\n{fenced(turns)}\n\nanswers\n\n{fenced(row['answer'])}\n"


def card(
    path: Path, facts: dict[str, Any], scores: dict[str, dict[str, int]], examples: list[Any]
) -> str:
    wordings = scores["new wordings"]["plain"]
    return CARD.format(
        **Shape().as_dict(),
        **facts,
        size=path.stat().st_size / 1e6,
        scores=score_lines(scores),
        wordings=wordings,
        examples="\n".join(example(row) for row in examples),
    )
