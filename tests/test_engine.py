"""The real llama.cpp on the bundled model, under the real scheduler."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import llama_cpp
import msgspec
import numpy as np
import pytest

from inference.engine import Engine
from inference.intake import Intake
from inference.llama import Llama
from inference.scheduler import Scheduler
from inference.sequence import SamplingParams, Sequence
from inference.types import BadModelFile, ContextTooLong, DoesNotFit, Message
from inference.wire import Chat, Submit

GOLDEN = json.loads((Path(__file__).parent / "golden" / "qwen3_demo_greedy.json").read_text())
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
        for slot in range(8):
            (found[0] if name == "machine" else found).keep(slot, 0)


def run(engine: Engine, sequences: list[Sequence], chunk: int = 256, slots: int = 8) -> Scheduler:
    """Run sequences to their end, the next one arriving with every step."""
    scheduler = Scheduler(slots, batch=512, chunk=chunk)
    arriving = iter(sequences)
    while (late := next(arriving, None)) or not scheduler.idle:
        if late:
            scheduler.add([late])
        plan = scheduler.plan(0.0)
        scheduler.commit(plan, engine.step(plan), 0.0)
    return scheduler


def sequence_of(case: dict, id: int = 0, **kwargs) -> Sequence:
    prompt = case["prompt_ids"]
    return Sequence(id=id, tokens=list(prompt), limit=len(prompt) + 64, sampling=GREEDY, **kwargs)


def answer(seq: Sequence) -> list[int]:
    return seq.tokens[seq.prompt_len :]


def test_greedy_answers_equal_the_reference_implementation(llama):
    """Token for token what transformers says for the same weights."""
    engine = Engine(llama)
    for case in GOLDEN["cases"]:
        seq = sequence_of(case)
        run(engine, [seq])
        assert answer(seq) == case["continuation_ids"], case["prompt"]


def test_prompts_are_tokenised_as_the_reference_implementation_does(llama):
    for case in GOLDEN["cases"]:
        assert llama.tokenize(case["prompt"], special=True) == case["prompt_ids"]


@pytest.mark.parametrize("chunk", [7, 16, 64, 256])
def test_eight_streams_at_once_say_what_they_say_one_by_one(machine, chunk):
    _, engine = machine
    cases = sorted(GOLDEN["cases"], key=lambda c: -len(c["prompt_ids"]))[:8]
    sequences = [sequence_of(case, id) for id, case in enumerate(cases)]
    run(engine, sequences, chunk)
    assert [answer(s) for s in sequences] == [c["continuation_ids"] for c in cases]


def test_a_reused_prefix_changes_no_answer_and_cells_are_what_the_books_say(machine):
    llama, engine = machine
    scheduler = Scheduler(2, batch=512, chunk=256)
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
        held = sum(llama_cpp.llama_memory_seq_pos_max(memory, slot) + 1 for slot in (0, 1))
        assert scheduler.cells == held
    assert cached > 0


def test_a_seed_gives_the_same_text_again_and_another_seed_another_one(llama):
    """In the same batch shape: another one may round a logit differently."""
    engine = Engine(llama)
    prompt = GOLDEN["cases"][0]["prompt_ids"]

    def sampled(seed: int) -> list[int]:
        params = SamplingParams(temperature=2.0, seed=seed)
        seq = Sequence(id=0, tokens=list(prompt), limit=len(prompt) + 24, sampling=params)
        run(engine, [seq])
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
    for seq in (free, forced, patient):
        run(Engine(llama), [seq])
    assert free.tokens[-1] in llama.end_tokens
    assert forced.generated == 64 and not set(answer(forced)) & set(llama.end_tokens)
    assert 40 < patient.generated <= 64


def submit(text: str, **kwargs) -> Submit:
    return Submit(
        id=1,
        prompt=Chat((Message("user", text),), (), {"enable_thinking": False}),
        sampling=GREEDY,
        max_tokens=kwargs.get("max_tokens"),
        min_tokens=0,
        ignore_eos=False,
        stop=(),
        n=1,
    )


def test_no_user_text_becomes_a_control_token(llama):
    intake = Intake(llama)
    controls = {t for t in range(llama.n_vocab) if not llama.pieces[t]}
    [plain], _ = intake.sequences(submit("hi"))
    count = sum(token in controls for token in plain.tokens)
    for text in llama.control_texts:
        [hostile], _ = intake.sequences(submit(f"hi {text} you {text}"))
        assert sum(token in controls for token in hostile.tokens) == count


def test_a_prompt_longer_than_the_context_is_refused_with_both_lengths(llama):
    with pytest.raises(ContextTooLong, match="maximum context length is 1024 tokens"):
        Intake(llama).sequences(submit("word " * 2000))


def test_an_answer_ends_at_the_context_or_at_max_tokens(llama):
    [unlimited], _ = Intake(llama).sequences(submit("hi"))
    [limited], _ = Intake(llama).sequences(submit("hi", max_tokens=5))
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
    config = msgspec.structs.replace(deployment.engine, path=str(path))
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
