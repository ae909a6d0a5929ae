"""The real llama.cpp on the bundled model, under the real scheduler."""

import json
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import llama_cpp
import msgspec
import numpy as np
import pytest

from inference import scheduler as scheduler_module
from inference.cost_model import CostModel
from inference.drafter import Drafter
from inference.engine import Engine
from inference.errors import BadModelFile, ContextTooLong, DoesNotFit
from inference.gguf_format import read
from inference.inbox import Audience
from inference.intake import Intake
from inference.kv_cache import IDS, StreamCache, UnifiedCache
from inference.llama import Llama
from inference.renderer import Renderer
from inference.scheduler import Scheduler
from inference.sequence import Chunk, SamplingParams, Sequence, StepPlan
from inference.types import Message
from inference.wire import Chat, Submit

GOLDEN = json.loads((Path(__file__).parent / "golden" / "qwen3_demo_greedy.json").read_text())
# The kernels of one CPU differ from another's, and in rounding from the reference, by up to 0.2.
GOLDEN["cases"] = [case for case in GOLDEN["cases"] if case["smallest_logit_gap"] >= 0.5]
GREEDY = SamplingParams(temperature=0)


@pytest.fixture(scope="module", params=["streams", "streams-joint", "unified", "unified-joint"])
def machine(request, deployment) -> Iterator[tuple[Llama, Engine]]:
    """llama.cpp in each KV layout, with decodes and prefills in separate calls and in one."""
    layout, _, joint = request.param.partition("-")
    config = msgspec.structs.replace(deployment.engine, unified=layout == "unified")
    with closing(Llama(config)) as llama:
        yield llama, Engine(llama, joint=bool(joint))


@pytest.fixture(autouse=True)
def empty_slots(request) -> Iterator[None]:
    """Every test leaves the KV cache as it found it."""
    yield
    for name in {"llama", "machine"} & set(request.fixturenames):
        found = request.getfixturevalue(name)
        model = found[0] if name == "machine" else found
        for id in ids_of(model):
            model.keep(id, 0)


def ids_of(llama: Llama) -> range:
    """The sequence ids that the layout knows."""
    return range(IDS if llama.unified else 8)


def scheduler_for(
    llama: Llama, slots: int = 8, cells: int = 8192, host: int = 0, **kwargs
) -> Scheduler:
    """On an empty KV cache."""
    cache = UnifiedCache(slots, cells, host) if llama.unified else StreamCache(slots, 1024, host)
    cost = CostModel(draft=kwargs.pop("draft", False))
    return Scheduler(cache, cost, kwargs.pop("batch", 512), **kwargs)


def run(engine: Engine, sequences: list[Sequence], scheduler: Scheduler) -> None:
    """Run sequences to their end, the next one arriving with every step."""
    arriving = iter(sequences)
    while (late := next(arriving, None)) or not scheduler.idle:
        if late:
            scheduler.add([late])
        plan = engine.draft(scheduler.plan(0.0))
        scheduler.commit(plan, engine.step(plan), 0.0)


def sequence_of(case: dict, id: int = 0, **kwargs) -> Sequence:
    prompt = case["prompt_ids"]
    return Sequence(id=id, tokens=list(prompt), limit=len(prompt) + 64, sampling=GREEDY, **kwargs)


def answer(seq: Sequence) -> list[int]:
    return seq.tokens[seq.prompt_len :]


def test_greedy_answers_equal_the_reference_implementation(llama):
    """Token for token what transformers says for the same weights."""
    engine, scheduler = Engine(llama), scheduler_for(llama)
    for case in GOLDEN["cases"]:
        seq = sequence_of(case)
        run(engine, [seq], scheduler)
        assert answer(seq) == case["continuation_ids"], case["prompt"]


def test_prompts_are_tokenised_as_the_reference_implementation_does(llama):
    for case in GOLDEN["cases"]:
        assert llama.tokenize(case["prompt"], special=True) == case["prompt_ids"]


@pytest.mark.parametrize("batch", [9, 16, 64, 256])
def test_eight_streams_at_once_say_what_they_say_one_by_one(machine, batch):
    llama, engine = machine
    cases = sorted(GOLDEN["cases"], key=lambda c: -len(c["prompt_ids"]))[:8]
    sequences = [sequence_of(case, id) for id, case in enumerate(cases)]
    run(engine, sequences, scheduler_for(llama, batch=batch))
    assert [answer(s) for s in sequences] == [c["continuation_ids"] for c in cases]


def test_choices_of_one_prompt_are_forked_and_say_the_same(machine):
    llama, engine = machine
    case = max(GOLDEN["cases"], key=lambda c: len(c["prompt_ids"]))
    choices = [sequence_of(case) for _ in range(3)]
    scheduler = scheduler_for(llama)
    scheduler.add(choices)
    run(engine, [], scheduler)
    prompt = len(case["prompt_ids"])
    assert [seq.cached for seq in choices] == [0, prompt - 1, prompt - 1]
    assert [answer(seq) for seq in choices] == [case["continuation_ids"]] * 3


def test_guesses_change_no_answer(machine):
    """Wrong ones most of the time: each leaves cells behind that must be gone."""
    llama, engine = machine
    scheduler = scheduler_for(llama, drafts=16)
    scheduler._speculation = Guessing()
    sequences = [sequence_of(case, id) for id, case in enumerate(GOLDEN["cases"][:24])]
    run(engine, sequences, scheduler)
    for seq, case in zip(sequences, GOLDEN["cases"], strict=False):
        assert answer(seq) == case["continuation_ids"], case["prompt"]
    assert 0 < scheduler.counters.accepted < scheduler.counters.drafted


@pytest.fixture(scope="module", params=["the same", "worse"])
def drafter(request, deployment, tmp_path_factory) -> Iterator[Drafter]:
    """A draft model that says what the large one says, and one that does so now and then."""
    config = deployment.engine
    if request.param == "worse":
        path = tmp_path_factory.mktemp("draft") / "worse.gguf"
        path.write_bytes(without(Path(config.path), "blk.1.ffn_down.weight"))
        config = msgspec.structs.replace(config, path=str(path), stamp=None)
    with closing(Llama(config)) as small:
        yield Drafter(small, config.batch)


def without(path: Path, name: str) -> bytes:
    """The file with zeros for a tensor."""
    file, data = read(path), bytearray(path.read_bytes())
    start = len(data) - max(t.offset + t.bytes for t in file.tensors)
    [tensor] = [t for t in file.tensors if t.name == name]
    data[start + tensor.offset : start + tensor.offset + tensor.bytes] = bytes(tensor.bytes)
    return bytes(data)


def test_a_draft_model_changes_no_answer(machine, drafter):
    """Eight streams at most in the slots, each with texts of other requests in it already."""
    llama, _ = machine
    scheduler = scheduler_for(llama, drafts=16, draft=True)
    scheduler._speculation = Asking()
    sequences = [sequence_of(case, id) for id, case in enumerate(GOLDEN["cases"][:24])]
    run(Engine(llama, drafter), sequences, scheduler)
    for seq, case in zip(sequences, GOLDEN["cases"], strict=False):
        assert answer(seq) == case["continuation_ids"], case["prompt"]
    assert 0 < scheduler.counters.accepted < scheduler.counters.drafted


def test_a_draft_model_that_is_behind_or_interrupted_says_nothing(llama, drafter):
    """It computes a call's worth in each step until it has caught up."""
    case = next(c for c in GOLDEN["cases"] if len(c["prompt_ids"]) > 20)
    seq = sequence_of(case, slot=0)
    patient = Drafter(drafter.llama, len(seq.tokens) // 3)
    plan = StepPlan(decodes=(Chunk(seq, len(seq.tokens) - 1, 1, asked=3),))
    filled = [patient.fill(plan) for _ in range(5)]
    assert [len(p.decodes[0].drafts) for p in filled[:2]] == [0, 0]
    assert len(filled[-1].decodes[0].drafts) == filled[-1].decodes[0].rows - 1 == 3
    drafter.llama.interrupt(True)
    assert patient.fill(plan).decodes == (Chunk(seq, len(seq.tokens) - 1, 1),)
    drafter.llama.interrupt(False)
    assert [patient.fill(plan) for _ in range(5)][-1].decodes == filled[-1].decodes


class Asking:
    """Asks for two guesses at every other length."""

    def chunks(self, decoding):
        return tuple(
            Chunk(seq, seq.computed, 1, asked=min(2 * (seq.generated % 2), seq.spare))
            for seq in decoding
        )


class Guessing:
    """Guesses two tokens in every step: the right ones at every other length."""

    def chunks(self, decoding):
        right = {tuple(c["prompt_ids"]): c["continuation_ids"] for c in GOLDEN["cases"]}
        return tuple(
            self._chunk(seq, right[tuple(seq.tokens[: seq.prompt_len])]) for seq in decoding
        )

    def _chunk(self, seq, continuation):
        guess = [*continuation[seq.generated :], 5, 5][:2] if seq.generated % 2 else [5, 5]
        return Chunk(seq, seq.computed, 1, tuple(guess[: seq.spare]))


def test_preempted_streams_say_what_they_would_have_said(deployment, monkeypatch):
    """Eight of them in fewer cells than half of what they need."""
    monkeypatch.setattr(scheduler_module, "HEADROOM", 0)
    cases = sorted(GOLDEN["cases"], key=lambda c: -len(c["continuation_ids"]))[:8]
    config = msgspec.structs.replace(deployment.engine, unified=True)
    with closing(Llama(config)) as llama:
        needed = sum(len(c["prompt_ids"]) + len(c["continuation_ids"]) for c in cases)
        scheduler = scheduler_for(llama, cells=needed // 2)
        sequences = [sequence_of(case, id) for id, case in enumerate(cases)]
        run(Engine(llama), sequences, scheduler)
        assert scheduler.counters.preemptions
        assert [answer(s) for s in sequences] == [c["continuation_ids"] for c in cases]


def test_prefixes_that_come_back_from_host_memory_change_no_answer(machine):
    """One slot, two conversations in turn, and no room for both."""
    llama, engine = machine
    cases = sorted(GOLDEN["cases"], key=lambda c: -len(c["prompt_ids"]))[:3]
    cells = max(len(c["prompt_ids"]) + 64 for c in cases)
    scheduler = scheduler_for(llama, slots=8 if llama.unified else 1, cells=cells, host=5000)
    for case in cases * 2:
        seq = sequence_of(case)
        run(engine, [seq], scheduler)
        assert answer(seq) == case["continuation_ids"]
    assert seq.cached == len(case["prompt_ids"]) - 1


def test_a_step_that_was_interrupted_leaves_nothing_behind(machine):
    """In the first step of a prompt, and while it is answered."""
    llama, engine = machine
    case = max(GOLDEN["cases"], key=lambda c: len(c["continuation_ids"]))
    scheduler, seq = scheduler_for(llama), sequence_of(case)
    scheduler.add([seq])
    steps = 0
    while not scheduler.idle:
        plan = scheduler.plan(0.0)
        llama.interrupt(steps % 3 == 0)
        result = engine.step(plan)
        assert result.aborted == (steps % 3 == 0)
        scheduler.commit(plan, result, 0.0)
        steps += 1
    llama.interrupt(False)
    assert answer(seq) == case["continuation_ids"]


def test_a_step_is_interrupted_when_the_last_who_waits_for_it_hangs_up():
    said = []
    audience = Audience(said.append)
    audience.attends((1, 2, 2))
    for id in (3, 1, 2, 2):
        audience.loses(id)
    audience.attends((1, 2, 2))
    assert said == [False, False, True, False]


def test_a_reused_prefix_changes_no_answer_and_cells_are_what_the_books_say(machine):
    llama, engine = machine
    scheduler = scheduler_for(llama, slots=2)
    memory = llama_cpp.llama_get_memory(llama._context)
    cached = 0
    for case in GOLDEN["cases"][:6] * 2:
        seq = sequence_of(case)
        scheduler.add([seq])
        while not scheduler.idle:
            plan = scheduler.plan(0.0)
            scheduler.commit(plan, engine.step(plan), 0.0)
        assert answer(seq) == case["continuation_ids"]
        cached += seq.cached
        engine.step(scheduler.plan(0.0))  # what the end of it left to move
        tree = scheduler._cache.tree
        lengths = [llama_cpp.llama_memory_seq_pos_max(memory, id) + 1 for id in ids_of(llama)]
        assert lengths == [tree.length(id) for id in ids_of(llama)]
    assert cached > 0


def test_a_seed_gives_the_same_text_again_and_another_seed_another_one(llama):
    """In the same batch shape: another one may round a logit differently."""
    engine, scheduler = Engine(llama), scheduler_for(llama, slots=1)
    prompt = GOLDEN["cases"][0]["prompt_ids"]

    def sampled(seed: int) -> list[int]:
        params = SamplingParams(temperature=2.0, seed=seed)
        seq = Sequence(id=0, tokens=list(prompt), limit=len(prompt) + 24, sampling=params)
        run(engine, [seq], scheduler)
        return answer(seq)

    assert sampled(7) == sampled(7)
    assert len({tuple(sampled(seed)) for seed in range(5)}) > 1


def test_ignore_eos_and_min_tokens_keep_a_text_from_ending(llama):
    case = min(GOLDEN["cases"], key=lambda c: len(c["continuation_ids"]))
    free, forced, patient = (
        sequence_of(case),
        sequence_of(case, ignore_eos=True),
        sequence_of(case, min_tokens=40),
    )
    scheduler = scheduler_for(llama)
    for seq in (free, forced, patient):
        run(Engine(llama), [seq], scheduler)
    assert free.tokens[-1] in llama.end_tokens
    assert forced.generated == 64 and not set(answer(forced)) & set(llama.end_tokens)
    assert 40 < patient.generated <= 64


def submit(text: str, **kwargs) -> Submit:
    return Submit(
        id=1,
        prompt=Chat((Message("user", text),), (), {"enable_thinking": False}),
        sampling=GREEDY,
        max_tokens=kwargs.get("max_tokens"),
    )


@pytest.fixture
def renderer():
    with Renderer() as renderer:
        yield renderer


def test_no_user_text_becomes_a_control_token(llama, renderer):
    intake = Intake(llama, renderer)
    controls = {t for t in range(llama.n_vocab) if not llama.pieces[t]}
    [plain], _ = intake.sequences(submit("hi"))
    count = sum(token in controls for token in plain.tokens)
    chance = random.Random(1)
    parts = [*llama.control_texts, *(text[1:] for text in llama.control_texts), "<", "|>", " ", "é"]
    for _ in range(1000):
        text = "".join(chance.choices(parts, k=chance.randrange(1, 9)))
        [hostile], _ = intake.sequences(submit(text))
        assert sum(token in controls for token in hostile.tokens) == count, text


def test_a_prompt_longer_than_the_context_is_refused_with_both_lengths(llama, renderer):
    with pytest.raises(
        ContextTooLong,
        match=r"^prompt is too long: \d+ tokens > 1023 maximum.*context length is 1024 tokens",
    ):
        Intake(llama, renderer).sequences(submit("word " * 20000))


def test_an_answer_ends_at_the_context_or_at_max_tokens(llama, renderer):
    [unlimited], _ = Intake(llama, renderer).sequences(submit("hi"))
    [limited], _ = Intake(llama, renderer).sequences(submit("hi", max_tokens=5))
    assert unlimited.limit == llama.info.context
    assert limited.limit == limited.prompt_len + 5


def test_pieces_join_to_the_text(llama):
    text = "Hello, 你好! <think> 👋 \n\t x"
    tokens = llama.tokenize(text, special=False)
    assert b"".join(llama.pieces[t] for t in tokens).decode() == text


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model at all" * 100])
def test_weights_that_cannot_be_loaded_are_one_sentence(tmp_path, deployment, content):
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    config = msgspec.structs.replace(deployment.engine, path=str(path), stamp=None)
    with pytest.raises(BadModelFile, match=r"cannot load .*broken\.gguf"):
        Llama(config)


def test_a_context_that_llama_cpp_refuses_is_one_sentence(deployment):
    """Such as a quantised KV cache without flash attention."""
    config = msgspec.structs.replace(deployment.engine, kv_type="q8_0", flash_attention=False)
    with pytest.raises(DoesNotFit, match="smaller --context"):
        Llama(config)


def test_logits_have_a_row_for_every_output(llama):
    tokens = np.array(llama.tokenize("hello there", special=False), np.int32)
    outputs = np.zeros(len(tokens), np.bool_)
    outputs[-1] = True
    llama.decode(tokens, np.arange(len(tokens), dtype=np.int32), np.zeros_like(tokens), outputs)
    assert llama.logits().shape == (1, llama.n_vocab)
