"""What the worker reads and says, and who it works for."""

import time
from types import SimpleNamespace

from inference.errors import DeadlineExceeded
from inference.inbox import Audience
from inference.intake import Intake
from inference.renderer import Renderer
from inference.sequence import Progress, SamplingParams, Sequence
from inference.wire import Begin, Delta, Rejected, Said, Step, Submit, Tokens
from inference.worker import announce, report
from tests.scheduling import machine, make_sequence


def test_a_fault_ends_all_choices_of_a_request_once_after_their_last_text():
    scheduler, _ = machine(4)
    late = DeadlineExceeded("too late")
    first, second = (Sequence(id=1, index=index, tokens=[1], limit=9) for index in range(2))
    other = Sequence(id=2, tokens=[1], limit=9)
    progress = [
        Progress(first, "so", fault=late),
        Progress(second, "far", "length"),
        Progress(second, "", fault=late),
        Progress(other, "on"),
    ]
    sent = []
    report(SimpleNamespace(send=sent.append), progress, scheduler)
    step, refusal = sent
    assert isinstance(step, Step) and not step.ends
    assert step.deltas == [Delta(1, 0, "so", []), Delta(2, 0, "on", [])]
    assert refusal == Rejected(1, "deadline_exceeded", "too late")


def test_a_step_is_interrupted_when_the_last_one_hangs_up():
    said = []
    audience = Audience(said.append)
    audience.attends((1, 2))
    for id in (3, 1, 1, 2):
        audience.loses(id)
    assert said == [False, False, True]


def test_a_prompt_of_which_all_is_there_is_announced_too_and_once():
    scheduler, engine = machine(2, batch=8)
    sent = []
    channel = SimpleNamespace(send=sent.append)
    for id in (1, 2):
        scheduler.add([make_sequence(id, [*range(1, 41)], 3, ignore_eos=True)])
        while not scheduler.idle:
            plan = scheduler.plan(0.0)
            announce(channel, plan, scheduler)
            scheduler.commit(plan, engine.step(plan), 0.0)
    assert [begin.ids for begin in sent if isinstance(begin, Begin)] == [[1]] * 5 + [[2]]


def test_a_request_goes_on_where_it_was_and_its_time_runs_on():
    model = SimpleNamespace(
        chat_template="", n_vocab=9, pieces=[b"x"] * 9, info=SimpleNamespace(context=99)
    )
    submit = Submit(
        id=1,
        prompt=Tokens((1, 2)),
        sampling=SamplingParams(seed=5),
        max_tokens=9,
        deadline=30.0,
        salt="mine",
        n=3,
        waited=20.0,
        said=(Said([7, 8], 2.0), Said([3], 1.0, True), Said()),
    )
    before = time.monotonic()
    (first, last), _ = Intake(model, Renderer()).sequences(submit)
    assert (first.tokens, first.prompt_len, first.limit) == ([1, 2, 7, 8], 2, 11)
    assert (last.tokens, last.index, last.sampling.seed) == ([1, 2], 2, 7)
    assert first.salt == last.salt == "mine"
    assert 9 < first.deadline - before < 11 + time.monotonic() - before
