"""What the worker says of a step."""

from types import SimpleNamespace

from inference.sequence import Progress, Sequence
from inference.types import DeadlineExceeded
from inference.wire import Delta, Rejected, Step
from inference.worker import report
from tests.scheduling import machine


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
