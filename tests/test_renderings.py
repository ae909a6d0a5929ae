"""Prompts are those of transformers, byte for byte: templates of all kinds, conversations too."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from api.openai.chat import understand
from benchmarks.mutants import MODEL
from inference import BadRequest, Pool
from inference.gguf_format import read
from inference.template import ChatTemplate

GOLDEN = Path(__file__).parent / "golden"
CASES = json.loads((GOLDEN / "renderings.json").read_text())["cases"]
CONTROLS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")


@pytest.fixture(scope="module")
def templates():
    sources = {path.stem: path.read_text() for path in (GOLDEN / "templates").glob("*")}
    sources["demo"] = str(read(MODEL).metadata["tokenizer.chat_template"])
    return {
        name: ChatTemplate(source, CONTROLS, "", "<|im_end|>") for name, source in sources.items()
    }


def test_there_is_enough_to_compare(templates):
    assert len(CASES) >= 50
    for case in CASES:
        assert case["prompts"].keys() == templates.keys()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["title"])
def test_a_prompt_is_the_one_that_transformers_makes(case, templates, deployment):
    thinking = replace(deployment, model=replace(deployment.model, thinking=True))
    [request] = understand(case["body"], "demo").requests
    chat = Pool(thinking)._resolve(request).prompt
    for name, expected in case["prompts"].items():
        try:
            prompt = templates[name].render(chat.messages, chat.tools, chat.kwargs, chat.continued)
            text = "".join(segment.text for segment in prompt.segments)
        except BadRequest:
            text = None
        assert text == expected, name
