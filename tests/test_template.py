"""Chat templates: sandboxed, faithful, and deaf to control tokens in user text."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.errors import BadModelFile, BadRequest
from inference.intake import Intake
from inference.renderer import Renderer
from inference.sequence import SamplingParams
from inference.template import ChatTemplate, Segment
from inference.types import Message, Tool, ToolCall
from inference.wire import Chat, Submit
from tests import template_attacks

CONTROLS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
CHATML = """
{%- for m in messages %}
<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}
{%- if tools %}{{ tools | tojson }}{% endif %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% endif %}"""


def template(source: str = CHATML) -> ChatTemplate:
    return ChatTemplate(source, CONTROLS, "", "<|im_end|>")


def user(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


def test_a_plain_conversation_is_one_segment_with_its_control_tokens():
    [segment] = template().render(user("hi"), (), {}).segments
    assert segment.special
    assert segment.text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_token_in_user_text_is_only_text(control):
    segments = template().render(user(f"a{control}b"), (), {}).segments
    assert [s.text for s in segments if not s.special] == [control]
    assert "".join(s.text for s in segments).startswith(f"<|im_start|>user\na{control}b")


def test_no_text_adds_a_control_token_to_a_conversation():
    chance = random.Random(1)
    halves = [half for c in CONTROLS for n in (1, 5) for half in (c[:n], c[n:])]
    parts = [*CONTROLS, *halves, *"\ufdd0\ufffd\u200b\0 \naé", "{{", "}}", "{% raw %}"]

    def said() -> str:
        return "".join(chance.choices(parts, k=chance.randrange(1, 9)))

    def controls(prompt) -> list[int]:
        special = [s.text for s in prompt.segments if s.special]
        return [sum(text.count(control) for text in special) for control in CONTROLS]

    chatml = template()
    expected = controls(chatml.render(user("hi"), (Tool("f"),), {}))
    for _ in range(1000):
        tool = Tool(said(), said(), {said(): [said(), 1]})
        prompt = chatml.render(user(text := said()), (tool,), {})
        assert controls(prompt) == expected, text
        assert text.replace("\ufdd0", "\ufffd") in "".join(s.text for s in prompt.segments)


def test_control_tokens_in_tools_are_only_text():
    tool = Tool("f", "<|im_end|>", {"<|im_start|>": 1})
    segments = template().render(user("hi"), (tool,), {}).segments
    assert [s.text for s in segments if not s.special] == ["<|im_end|>", "<|im_start|>"]


def test_the_marker_that_keeps_texts_apart_cannot_be_smuggled_in():
    segments = template().render(user("<\ufdd0|im_end|>"), (), {}).segments
    assert "".join(s.text for s in segments).count("<\ufffd|im_end|>") == 1


def prompt_of(intake: Intake, text: str) -> list[int]:
    """The tokens of a conversation that says `text` wherever a client may say something."""
    messages = (
        Message("system", text),
        Message("user", text),
        Message("assistant", text, text, (ToolCall(text, text, text),)),
        Message("tool", text),
    )
    tools = (Tool("f", text, {text: text}),)
    chat = Chat(messages, tools, {"enable_thinking": False, "custom": text})
    submit = Submit(
        id=1,
        prompt=chat,
        sampling=SamplingParams(),
        max_tokens=1,
    )
    [sequence], _ = intake.sequences(submit)
    return sequence.tokens


def test_no_text_adds_a_control_token_of_the_real_model(llama):
    with Renderer() as renderer:
        _no_text_adds_a_control_token(llama, Intake(llama, renderer))


def _no_text_adds_a_control_token(llama, intake):
    controls = {llama.tokenize(text, special=True)[0] for text in llama.control_texts}
    scraps = ["<", "|", "<|", "|>", "im_end|>", "\ufdd0", "\n", "system", "a", "é", "\0", "{{ x }}"]
    pieces = st.sampled_from([*llama.control_texts, *scraps])

    def controls_in(text: str) -> list[int]:
        return [token for token in prompt_of(intake, text) if token in controls]

    @settings(max_examples=50)
    @given(st.lists(pieces, max_size=5).map("".join))
    def check(text: str) -> None:
        assert controls_in(text) == controls_in("a")

    assert controls_in("a")
    check()


def test_tools_are_written_as_transformers_writes_them():
    tool = Tool("sök", "a < b & c", {"type": "object"})
    text = template().render(user("hi"), (tool,), {}).segments[0].text
    assert '"name": "sök", "description": "a < b & c"' in text


def test_control_tokens_are_only_text_in_json_of_any_kind_and_in_what_is_continued():
    json = template("{{ messages | tojson(ensure_ascii=true, indent=1, sort_keys=true) }}")
    segments = json.render(user("é\x7f😀<|im_end|>"), (), {}).segments
    assert [s.text for s in segments if not s.special] == ["<|im_end|>"]
    assert '"\\u00e9\\u007f\\ud83d\\ude00<|im_end|>"' in "".join(s.text for s in segments)
    begun = (*user("hi"), Message("assistant", "a<|im_end|>b "))
    segments = template().render(begun, (), {}, continued=True).segments
    assert [s.text for s in segments if not s.special] == ["<|im_end|>"]
    assert segments[-1] == Segment("b ", True)


@pytest.mark.parametrize("text", ['{"a": "\\ud800"}', "[1]", '"a"', "no", "[" * 10**5, "9" * 10**4])
def test_arguments_that_are_no_object_that_can_be_written_stay_as_they_are(text):
    said = (*user("hi"), Message("assistant", "", "", (ToolCall("", "f", text),)))
    source = "{{ messages[1].tool_calls[0].function.arguments }}"
    assert template(source).render(said, (), {}).segments[0].text == text


@pytest.mark.parametrize(
    ("said", "thinking"), [("<think>\nhm", True), ("<think></think>", False), ("a", False)]
)
def test_an_answer_that_is_continued_may_begin_in_its_thoughts(said, thinking):
    begun = (*user("<think>"), Message("assistant", said))
    assert template().render(begun, (), {}, continued=True).thinking is thinking


@pytest.mark.parametrize("said", ["{{ m.content | upper }}", "{{ m.role }}"])
def test_a_message_that_the_template_changes_cannot_be_continued(said):
    begun = (*user("hi"), Message("assistant", "so"))
    with pytest.raises(BadRequest, match="cannot be continued"):
        template(CHATML.replace("{{ m.content }}", said)).render(begun, (), {}, continued=True)


def test_thinking_is_a_switch_and_an_open_think_block_is_noticed():
    off = template().render(user("hi"), (), {"enable_thinking": False})
    assert off.segments[0].text.endswith("<think>\n\n</think>\n\n")
    assert not off.thinking
    assert template(CHATML + "<think>\n").render(user("hi"), (), {}).thinking


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception('roles must alternate') }}",
        "{{ 1 / 0 }}",
        "{{ messages[99].content }}",
    ],
)
def test_a_template_that_refuses_or_misbehaves_is_a_bad_request(source):
    with pytest.raises(BadRequest, match="chat template"):
        template(source).render(user("hi"), (), {})


@pytest.mark.parametrize("source", ["{% for %}", "{{ " + "(" * 9999, "{% for a in b %}" * 99])
def test_a_template_that_does_not_compile_is_a_bad_model_file(source):
    with pytest.raises(BadModelFile, match="does not compile"):
        template(source + source.count("{% for a") * "{% endfor %}")


def test_no_template_gets_out_of_its_sandbox(tmp_path):
    assert len(template_attacks.attempts()) >= 60
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "tests.template_attacks"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(root)}, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert not list(tmp_path.iterdir())


def test_what_a_user_says_is_no_template():
    for attempt in template_attacks.attempts():
        assert attempt in template().render(user(attempt), (), {}).segments[0].text
