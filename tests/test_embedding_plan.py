"""The memory plan of embedding models, and what follows from it."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.embeddings import WAYS, measure
from benchmarks.synthetic import PRESETS, write
from inference import Wishes, load_config, prepare, tune
from inference.errors import ConfigError, DoesNotFit
from inference.fit import Plan, plan
from inference.footprint import Footprint, Setting, outputs_bytes
from inference.gguf_header import GgufHeader, Pooling, read_header
from inference.memory import Gpu, Memory
from inference.tune import CannotTune
from tests.headers import write_header

MIB, GIB = 1 << 20, 1 << 30
HOME = Memory(ram_total=64 * GIB, ram_free=56 * GIB)
POOLINGS: tuple[Pooling, ...] = ("mean", "cls", "last")


@pytest.fixture(scope="module")
def last(tmp_path_factory: pytest.TempPathFactory) -> GgufHeader:
    """That of an embedding model like the smallest of Qwen3's."""
    path = tmp_path_factory.mktemp("models") / "0.6b.gguf"
    return replace(read_header(write_header(path, PRESETS["0.6b"])), pooling="last")


def calls(made: Plan) -> int:
    """Tokens of a call, as the deployment has them."""
    return min(made.n_ubatch, made.context)


def test_inputs_share_the_cells_and_long_ones_come_by_parts(last: GgufHeader) -> None:
    made = plan(last, HOME)
    assert (made.context, made.slots, calls(made)) == (8192, 32, 512)
    assert made.request_context == 8192
    words = " ".join(made.reasons)
    assert "vectors of 1,024 numbers" in words and "One input can have 8,192 tokens" in words
    assert plan(last, HOME, Wishes(context=32_768)).request_context == 32_768
    gpu = Gpu(name="a card", total=9 * GIB, free=8 * GIB)
    assert plan(last, replace(HOME, gpus=(gpu,))).gpu_layers == 29


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_where_an_input_has_to_be_whole_a_call_holds_it(pooling: Pooling, last: GgufHeader) -> None:
    made = plan(replace(last, pooling=pooling), HOME)
    assert calls(made) == made.request_context == 8192
    short = plan(replace(last, pooling=pooling, context=300), HOME)
    assert short.request_context == 300 and calls(short) == 512


@pytest.mark.parametrize(
    ("logged_mib", "context", "slots", "n_ubatch"),
    [(306.76, 8192, 32, 512), (300.79, 2048, 8, 512), (1227.05, 8192, 32, 2048)],
)
def test_compute_buffers_are_what_llama_cpp_logs(
    logged_mib: float, context: int, slots: int, n_ubatch: int, last: GgufHeader
) -> None:
    """Logged by llama-cpp-python 0.3.36 with flash attention, and beside them the outputs of every
    token of a call; never below, at most an eighth over."""
    setting = Setting(0, context, slots, "f16", n_ubatch, unified=True)
    _, ram = Footprint(last).demands(setting)
    outputs = 4 * n_ubatch * (151_936 + 1024)
    assert outputs == outputs_bytes(last, setting)
    assert logged_mib * MIB <= ram.compute - outputs <= logged_mib * 1.125 * MIB


def test_a_model_that_keeps_nothing_needs_no_cells(last: GgufHeader) -> None:
    header = replace(last, pooling="cls", causal=False)
    made = plan(header, HOME)
    assert made.in_ram.kv == 0 and made.request_context == 8192
    assert outputs_bytes(header, Setting(0, 512, 1, "f16", 512)) == 4 * 512 * 1024


@given(
    pooling=st.sampled_from(POOLINGS),
    ram=st.integers(0, 8 * 1024),
    slots=st.none() | st.integers(1, 254),
    context=st.none() | st.integers(1, 50_000),
    trained=st.integers(1, 50_000),
)
@example(pooling="mean", ram=8 * 1024, slots=7, context=1000, trained=8192)
def test_a_plan_fits_and_its_calls_hold_what_they_have_to(
    pooling: Pooling,
    ram: int,
    slots: int | None,
    context: int | None,
    trained: int,
    last: GgufHeader,
) -> None:
    header = replace(last, pooling=pooling, context=trained)
    memory = Memory(ram_total=64 * GIB, ram_free=ram * MIB)
    try:
        made = plan(header, memory, Wishes(slots=slots, context=context))
    except DoesNotFit:
        return
    assert made.in_ram.total <= memory.ram_free
    assert slots in (None, made.slots)
    assert made.request_context <= min(made.context, trained)
    if header.whole_inputs:
        assert made.request_context <= calls(made)
        assert calls(made) % made.slots == 0  # or llama.cpp aborts


def test_an_embedding_model_is_neither_tuned_nor_drafted_for(embedder) -> None:
    assert embedder.engine.pooling == "last" and embedder.tuning == ""
    assert (embedder.engine.drafts, embedder.engine.host_cells) == (0, 0)
    with pytest.raises(CannotTune, match="embedder is an embedding model"):
        tune(embedder, 1.0, lambda what, left: None)
    with pytest.raises(ConfigError, match="embedding model") as refusal:
        prepare(load_config(), embedder.engine.path, Wishes(draft="qwen3-demo"))
    assert refusal.value.field == "draft"


def test_embedding_models_are_listed_by_the_names_in_use() -> None:
    config = load_config()
    for size in ("0.6b", "4b", "8b"):
        named = config.find(f"qwen3-embedding:{size}").name
        assert named == config.find(f"Qwen/Qwen3-Embedding-{size.upper()}").name
        assert named == f"qwen3-embedding-{size}"
    assert Path(config.find("qwen3-embedding-0.6b:F16").source.file).suffix == ".gguf"


async def test_every_way_of_asking_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write(path, replace(PRESETS["tiny"], embedding=True))
    rates = await measure(path, count=4, tokens=8, rounds=1)
    assert rates.keys() == WAYS.keys() and min(rates.values()) > 0
