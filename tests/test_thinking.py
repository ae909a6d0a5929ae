"""Who decides whether an answer thinks, and for how long: every spelling, in its order."""

import pytest

from api.openai.chat import understand
from inference import BadRequest, GenerationRequest, Message, Pool
from inference.thoughts import thinks


def request_of(**fields) -> GenerationRequest:
    body = {"messages": [{"role": "user", "content": "Hi"}], **fields}
    return understand(body, "fake").requests[0]


# In their order: each wins over all that follow it. Of each the first means yes.
SWITCHES = [
    lambda on: {"chat_template_kwargs": {"enable_thinking": on}},
    lambda on: {"enable_thinking": on},
    lambda on: {"think": on},
    lambda on: {"reasoning": {"enabled": on, "effort": "low" if not on else "none"}},
    lambda on: {"reasoning_effort": "low" if on else "none"},
]
BUDGETS = [
    lambda tokens: {"thinking_budget": tokens},
    lambda tokens: {"thinking_token_budget": tokens},
    lambda tokens: {"thinking_budget_tokens": tokens},
    lambda tokens: {"reasoning_budget": tokens},
    lambda tokens: {"chat_template_kwargs": {"thinking_budget": tokens}},
    lambda tokens: {"reasoning": {"max_tokens": tokens}},
]


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("place", range(len(SWITCHES)))
def test_the_first_switch_in_order_counts(place, on):
    assert request_of(**SWITCHES[place](on)).thinking is on
    for later in SWITCHES[place + 1 :]:
        assert request_of(**SWITCHES[place](on), **later(not on)).thinking is on


@pytest.mark.parametrize("place", range(len(BUDGETS)))
def test_the_first_budget_in_order_counts(place):
    assert request_of(**BUDGETS[place](7)).thinking_budget == 7
    assert request_of(**BUDGETS[place](0)).thinking_budget == 0
    assert request_of(**BUDGETS[place](-1)).thinking_budget is None
    for later in BUDGETS[place + 1 :]:
        assert request_of(**BUDGETS[place](7), **later(8)).thinking_budget == 7
        assert request_of(**BUDGETS[place](-1), **later(8)).thinking_budget is None
    assert request_of(**BUDGETS[place](7), reasoning_effort="low").thinking_budget == 7


@pytest.mark.parametrize(
    ("effort", "thinking", "budget"),
    [
        ("none", False, None),
        ("minimal", False, None),
        ("low", True, 1024),
        ("medium", True, 8192),
        ("high", True, None),
        ("xhigh", True, None),
        ("max", True, None),
        ("enormous", None, None),
    ],
)
def test_an_effort_is_a_switch_and_a_budget(effort, thinking, budget):
    spellings = [{"reasoning_effort": effort}, {"reasoning": {"effort": effort}}]
    for said in spellings + [{"think": effort}] * (effort in ("none", "low", "medium", "high")):
        request = request_of(**said)
        assert (request.thinking, request.thinking_budget) == (thinking, budget)


def test_an_effort_of_none_does_not_end_thoughts_that_are_asked_for():
    request = request_of(enable_thinking=True, reasoning_effort="none")
    assert (request.thinking, request.thinking_budget) == (True, None)


@pytest.mark.parametrize("spelled", ["true", "TRUE", "false"])
@pytest.mark.parametrize("field", ["enable_thinking", "think"])
def test_switches_may_be_spelled_out(field, spelled):
    assert request_of(**{field: spelled}).thinking is (spelled != "false")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("think", "perhaps"),
        ("think", 2),
        ("reasoning", "high"),
        ("reasoning.enabled", {"enabled": 2}),
        ("reasoning.exclude", {"exclude": True}),
        ("reasoning.max_tokens", {"max_tokens": -2}),
        ("thinking_budget", -2),
        ("thinking_budget", 1.5),
        ("chat_template_kwargs", {"thinking_budget": "8"}),
        ("chat_template_kwargs", {"thinking_budget": True}),
    ],
)
def test_what_says_nothing_clear_is_refused_by_name(field, value):
    with pytest.raises(BadRequest) as refusal:
        request_of(**{field.split(".")[0]: value})
    assert refusal.value.field == field


def talk(*texts: tuple[str, str], **fields) -> GenerationRequest:
    messages = tuple(Message(role, text) for role, text in texts)
    return GenerationRequest(id="x", messages=messages, **fields)


@pytest.mark.parametrize("default", [True, False])
@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("Hi /think", True),
        ("Hi /no_think", False),
        ("/no_think Hi", False),
        ("Hi\n/no_think\n", False),
        ("Do it (quickly) /no_think.", False),
        ("/think no, /no_think", False),
        ("/no_think no, /think", True),
        ("no_think", None),
        ("a/think", None),
        ("//think", None),
        ("/thinking", None),
        ("/think/tank", None),
        ("/think-tank", None),
        ("/home/no_think", None),
    ],
)
def test_people_switch_thoughts_in_what_they_write(text, meant, default):
    expected = default if meant is None else meant
    for role in ("user", "system"):
        assert thinks(talk((role, text)), default) is expected
    assert thinks(talk(("assistant", text), ("tool", text)), default) is default


def test_the_last_word_counts_and_holds_until_there_is_another():
    off, on = ("user", "Hi /no_think"), ("user", "Ho /think")
    assert (
        thinks(talk(on, ("assistant", "a"), off, ("assistant", "b"), ("user", "c")), True) is False
    )
    assert thinks(talk(off, ("assistant", "a"), on, ("user", "c")), False) is True
    assert thinks(talk(("system", "/no_think"), ("user", "c /think")), False) is True


def test_a_field_wins_over_the_text_and_a_budget_of_nothing_over_all():
    assert thinks(talk(("user", "/no_think"), thinking=True), False) is True
    assert thinks(talk(("user", "/think"), thinking=True, thinking_budget=0), True) is False


@pytest.mark.parametrize("text", ["/think", "/no_think", "Hi"])
def test_template_and_sampling_follow_what_was_decided(deployment, text):
    model, request = deployment.model, talk(("user", text))
    thinking = thinks(request, model.thinking)
    submit = Pool(deployment)._resolve(request)
    assert submit.prompt.kwargs == {"enable_thinking": thinking}
    defaults = model.sampling.thinking if thinking else model.sampling.plain
    assert submit.sampling.top_p == defaults.top_p
    assert model.sampling.thinking.top_p != model.sampling.plain.top_p
