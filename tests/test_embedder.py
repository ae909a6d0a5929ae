"""The loop of an embedding model on the real llama.cpp, against an evaluation of our own."""

from collections import deque
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest

from inference import Wishes, load_config, prepare
from inference.embedder import Embedder, finished, load, run
from inference.errors import BadRequest, ContextTooLong
from inference.inbox import Audience, Inbox
from inference.intake import Intake
from inference.packing import Job
from inference.wire import Begin, Cancel, Embed, Rejected, Said, Step, Vector
from tests import embedding_model
from tests.embedding_model import POOLINGS, cosine, vector_of

STORY = "Once upon a time there was a fox who lived at the edge of a wood. "
TEXTS = (
    "Hello!",
    "What is the capital of France?",
    STORY,
    STORY * 20,
    "你好",
    "a",
    STORY * 60,
    "b",
)
CLOSE = 0.9995  # cosine: keys and values are 16-bit, and are summed up in another order


@pytest.fixture(scope="module", params=POOLINGS)
def model(request, tmp_path_factory):
    """A file, how it is pooled, and what serves it."""
    path = tmp_path_factory.mktemp("pooled") / "model.gguf"
    embedding_model.write(path, request.param)
    config = prepare(load_config(), str(path), Wishes(context=2048, slots=16), tuned=False).engine
    llama, embedder, packer = load(config, lambda: None)
    intake = Intake(llama, SimpleNamespace(use=lambda source: None))
    with closing(llama):
        yield SimpleNamespace(pooling=request.param, **locals())


def embed(model, *inputs, id=1, **asked) -> list[np.ndarray]:
    """Their vectors, in order, of as many calls as it takes."""
    job, _ = model.intake.job(Embed(id=id, inputs=inputs, **asked))
    model.packer.add(job)
    made = {}
    while model.packer.line:
        batch = model.packer.plan()
        for row, numbers in model.embedder.step(batch):
            made[row.index] = vector_of(finished(numbers, row.job))
        model.packer.commit(batch)
    return [made[place] for place in range(len(inputs))]


def test_vectors_are_those_of_an_evaluation_one_by_one(model):
    together = embed(model, *TEXTS, (5, 6, 7, 8))
    with embedding_model.reference(model.path, model.pooling) as reference:
        tokens = [*map(reference.tokens, TEXTS), [5, 6, 7, 8]]
        assert len(tokens[6]) > model.config.batch or model.config.whole_inputs
        alone = [reference.vector(each) for each in tokens]
    for vector, expected in zip(together, alone, strict=True):
        assert cosine(vector, expected) > CLOSE
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    # Different texts are further from each other than that, so that a wrong one would be seen.
    assert max(cosine(alone[0], other) for other in alone[1:]) < 0.99 or model.pooling == "cls"


def test_an_input_has_the_same_vector_in_any_company(model):
    few = [text for text in TEXTS if len(text) < 100]
    together, alone = embed(model, *few * 12), [embed(model, text)[0] for text in few]
    for vector, expected in zip(together, alone * 12, strict=True):
        assert cosine(vector, expected) > CLOSE


def test_dimensions_are_the_first_ones_and_of_length_1_again(model):
    [whole], [few], [raw] = (
        embed(model, STORY, **asked) for asked in ({}, {"dimensions": 10}, {"normalised": False})
    )
    assert few == pytest.approx(whole[:10] / np.linalg.norm(whole[:10]), abs=1e-6)
    assert raw / np.linalg.norm(raw) == pytest.approx(whole, abs=1e-6)
    assert np.linalg.norm(raw) > 2


def test_texts_end_as_the_model_wants_it_also_if_they_are_cut(model):
    end = model.llama.tokenize("<|im_end|>", special=True)
    most = model.llama.info.context
    job, count = model.intake.job(
        Embed(id=1, inputs=("Hi", "word " * 9000, (7,) * 9000), truncate=True)
    )
    short, cut, ids = (tokens for _, tokens in job.inputs)
    assert short[-1:] == cut[-1:] == end and short[-2:-1] != end
    assert len(cut) == len(ids) == most and ids == [7] * most
    assert count == len(short) + 2 * most
    assert cut[:-1] == model.llama.tokenize("word " * 9000, special=True)[: most - 1]


def test_what_cannot_be_embedded_is_refused_by_name(model):
    vocabulary, dimensions = model.llama.n_vocab, model.llama.info.dimensions
    assert dimensions == 256
    for inputs, more, error, field in (
        (("Hi", "word " * 9000), {}, ContextTooLong, "input"),
        ((tuple([7] * 2049),), {}, ContextTooLong, "input"),
        ((("Hi"), (vocabulary,)), {}, BadRequest, "input"),
        ((("Hi"), (-1,)), {}, BadRequest, "input"),
        (((),), {}, BadRequest, "input"),
        (("Hi",), {"dimensions": dimensions + 1}, BadRequest, "dimensions"),
    ):
        with pytest.raises(error) as refusal:
            model.intake.job(Embed(id=1, inputs=inputs, **more))
        assert refusal.value.field == field
    assert model.intake.job(Embed(id=1, inputs=(tuple([7] * 2048),)))[1] == 2048


def test_after_a_crash_only_the_others_are_made(model):
    said = (Said(ended=True), Said(), Said(ended=True), Said())
    job, count = model.intake.job(Embed(id=1, inputs=("a", "b", "c", "d"), said=said))
    assert [place for place, _ in job.inputs] == [1, 3] and count == 8


def served(model, *commands, interrupt=lambda now: None):
    """What the loop says to these commands, until it is told to stop."""
    inbox, sent = Inbox(), []
    for command in (*commands, None):
        inbox.put(command)

    class Patient(Inbox):
        def take(self, patience):
            """One at a time, and none while there is work: the end comes last."""
            if patience == 0:
                return []
            command = inbox._queue.get()
            return None if command is None else [command]

    channel = SimpleNamespace(send=sent.append)
    run(model.embedder, model.packer, Patient(), Audience(interrupt), channel)
    return sent


def test_the_loop_tells_what_it_begins_and_what_it_has(model):
    job, _ = model.intake.job(Embed(id=7, inputs=("a", "b")))
    sent = served(model, job, Cancel(8))
    begin, step, last = sent
    assert isinstance(begin, Begin) and begin.ids == [7] and begin.seconds > 0
    assert [(vector.id, vector.index) for vector in step.vectors] == [(7, 0), (7, 1)]
    assert (step.stats.running, step.stats.cells, step.stats.prompt_tokens) == (0, 0, 4)
    assert isinstance(last, Step) and not last.vectors  # a hang-up is answered by a step


def test_what_is_no_number_ends_its_request_alone(model, monkeypatch):
    good, _ = model.intake.job(Embed(id=1, inputs=("a", "b")))
    bad, _ = model.intake.job(Embed(id=2, inputs=("a", "b", "c")))
    step = Embedder.step

    def broken(self, batch):
        made = step(self, batch)
        return [(r, n * np.nan if (r.job.id, r.index) == (2, 1) else n) for r, n in made]

    monkeypatch.setattr(Embedder, "step", broken)
    sent = served(model, good, bad)
    vectors = [v for step in sent if isinstance(step, Step) for v in step.vectors]
    assert {(v.id, v.index) for v in vectors} >= {(1, 0), (1, 1)}
    [fault] = [one for one in sent if isinstance(one, Rejected)]
    assert (fault.id, fault.code) == (2, "numerical_error") and not model.packer.line


def test_a_call_that_nobody_waits_for_ends_at_once_and_leaves_nothing(model):
    long = Job(3, deque([(0, [7] * 1500)]))
    asked = []

    def gone(now: bool) -> None:
        asked.append(now)
        model.llama.interrupt(True)

    sent = served(model, long, interrupt=gone)
    model.llama.interrupt(False)
    assert not [v for step in sent if isinstance(step, Step) for v in step.vectors]
    assert model.packer.used == 0 and not model.packer.line
    [vector] = embed(model, "Hello!")
    with embedding_model.reference(model.path, model.pooling) as reference:
        assert cosine(vector, reference.vector(reference.tokens("Hello!"))) > CLOSE


def test_zeros_stay_zeros():
    job = Job(1, deque())
    assert finished(np.zeros(4, np.float32), job) == bytes(16)
    assert vector_of(Vector(1, 0, finished(np.ones(4, np.float32), job)).data)[0] == 0.5
