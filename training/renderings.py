"""`python -m training.renderings`: what transformers makes of conversations, for the test suite.

Each is rendered with the bundled model's template and with those of tests/golden/templates, which
use what the templates of real models use. Needs the extra `train`; the suite only reads the file.
"""

import json
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from training.conversations import CONVERSATIONS, Body, Message

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests/golden/renderings.json"
WANT_TEXTS = {"joined"}  # templates that cannot do with arguments that are objects
MARK = "CONTINUE_FINAL_MESSAGE_TAG "  # transformers' own, in a message that is written twice
ROLES = {"developer": "system", "function": "tool"}


def main() -> None:
    sources = {path.stem: path.read_text() for path in (GOLDEN.parent / "templates").glob("*")}
    sources["demo"] = (ROOT / "training/template.jinja").read_text()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"a": 0}, "a")), eos_token="<|im_end|>"
    )
    cases = [
        {
            "title": title,
            "body": body,
            "prompts": {
                name: render(tokenizer, sources[name], body, objects=name not in WANT_TEXTS)
                for name in sorted(sources)
            },
        }
        for title, body in CONVERSATIONS.items()
    ]
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    version = json.dumps(transformers.__version__)
    GOLDEN.write_text(f'{{"transformers": {version}, "cases": [\n{lines}\n]}}\n')


def render(tokenizer: Any, template: str, body: Body, *, objects: bool) -> str | None:
    """The prompt; None where transformers, or the template, refuses."""
    continued = body.get("continue_final_message", False)
    try:
        prompt: str = tokenizer.apply_chat_template(
            [for_transformers(message, objects) for message in body["messages"]],
            tools=body.get("tools"),
            chat_template=template,
            tokenize=False,
            add_generation_prompt=not continued,
            continue_final_message=continued,
            **body.get("chat_template_kwargs", {}),
        )
    except Exception as error:
        print(f"refused: {' '.join(str(error).split())[:120]}")
        return None
    return prompt.replace(MARK, "")


def for_transformers(message: Message, objects: bool) -> Message:
    """A message of the API as its user would write it for transformers: roles that templates know,
    one text, arguments that are objects, or texts where the template wants those."""
    role, content = message["role"], message["content"]
    if isinstance(content, list):
        content = "\n".join(part if isinstance(part, str) else part["text"] for part in content)
    calls = [
        {**call, "function": {**call["function"], "arguments": arguments(call, objects)}}
        for call in message.get("tool_calls", ())
    ]
    plain = {**message, "role": ROLES.get(role, role), "content": content}
    return {**plain, "tool_calls": calls} if calls else plain


def arguments(call: dict[str, Any], objects: bool) -> Any:
    said = call["function"]["arguments"] or "{}"
    if objects:
        return json.loads(said) if isinstance(said, str) else said
    return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)


if __name__ == "__main__":
    main()
