"""The memory plan: exact arithmetic, known boxes, and laws that hold on any box."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.synthetic import PRESETS
from inference.errors import ConfigError, DoesNotFit
from inference.fit import Plan, Wishes, plan
from inference.footprint import Footprint, Setting, activation_bytes, logits_bytes
from inference.gguf_header import GgufHeader, read_header
from inference.memory import Gpu, Memory, group_limit, read_memory
from tests.headers import write_header

MIB, GIB = 1 << 20, 1 << 30
HOME = Memory(ram_total=64 * GIB, ram_free=56 * GIB)


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, GgufHeader]:
    folder = tmp_path_factory.mktemp("models")
    return {
        name: read_header(write_header(folder / f"{name}.gguf", PRESETS[name]))
        for name in ("0.6b", "32b")
    }


@pytest.fixture(scope="module")
def small(headers: dict[str, GgufHeader]) -> GgufHeader:
    return headers["0.6b"]


@pytest.fixture(scope="module")
def large(headers: dict[str, GgufHeader]) -> GgufHeader:
    return headers["32b"]


def card(free_mib: int, name: str = "a card") -> Gpu:
    return Gpu(name=name, total=(free_mib + 400) * MIB, free=free_mib * MIB)


def box(*gpus: Gpu, ram: int = 56) -> Memory:
    return Memory(ram_total=64 * GIB, ram_free=ram * GIB, gpus=gpus)


def assert_in_memory(made: Plan, memory: Memory) -> None:
    assert made.in_ram.total <= memory.ram_free
    assert made.on_gpu.total <= (made.gpu.free if made.gpu else 0)
    assert made.context % (256 * made.slots) == 0


def test_keys_and_values_of_a_token_have_their_exact_size(
    small: GgufHeader, large: GgufHeader
) -> None:
    assert large.kv_bytes_per_token("f16") == 262_144
    assert large.kv_bytes_per_token("q8_0") == 139_264
    assert small.kv_bytes_per_token("f16") == 114_688
    assert small.kv_bytes_per_token("q8_0") == 60_928


def test_weights_are_divided_as_llama_cpp_divides_them(
    small: GgufHeader, large: GgufHeader
) -> None:
    """The 32B figures are those of the published Q4_K_M file."""
    assert len(large.tensors) == 707
    gpu, ram = Footprint(large).demands(Setting(65, 0, 1, "f16", 512))
    assert gpu.weights == 19_318_598_656
    assert ram.weights == 437_575_680
    gpu, ram = Footprint(large).demands(Setting(1, 0, 1, "f16", 512))
    assert gpu.weights == pytest.approx(638_131_200, rel=1e-4)  # the output and its norm
    tied, _ = Footprint(small).demands(Setting(29, 0, 1, "f16", 512))
    assert tied.weights == small.weight_bytes


@pytest.mark.parametrize(
    ("model", "logged_mib", "context", "n_ubatch"),
    [
        ("0.6b", 27.01, 1024, 512),
        ("0.6b", 34.01, 8192, 512),
        ("0.6b", 58.01, 32_768, 512),
        ("0.6b", 232.05, 32_768, 2048),
        ("32b", 200.01, 4096, 512),
    ],
)
def test_compute_buffers_are_what_llama_cpp_logs(
    model: str, logged_mib: float, context: int, n_ubatch: int, headers: dict[str, GgufHeader]
) -> None:
    """Logged by llama-cpp-python 0.3.36 with flash attention; never below, at most a tenth over."""
    setting = Setting(0, context, 1, "f16", n_ubatch)
    _, ram = Footprint(headers[model]).demands(setting)
    graph = ram.compute - 2 * logits_bytes(headers[model], 1)
    assert logged_mib * MIB - MIB / 10 <= graph <= logged_mib * 1.1 * MIB


@pytest.mark.parametrize(
    ("logged_mib", "context", "slots", "n_ubatch", "unified"),
    [
        (52.01, 8192, 8, 512, False),
        (154.01, 32_768, 8, 512, False),
        (290.01, 8192, 1, 512, False),
        (1106.01, 32_768, 8, 512, True),
        (1160.03, 8192, 1, 2048, False),
    ],
)
def test_without_flash_attention_the_scores_of_every_head_count(
    logged_mib: float, context: int, slots: int, n_ubatch: int, unified: bool, small: GgufHeader
) -> None:
    """Logged likewise; never below, and over by no more than the activations are."""
    setting = Setting(0, context, slots, "f16", n_ubatch, flash_attention=False, unified=unified)
    _, ram = Footprint(small).demands(setting)
    graph = ram.compute - 2 * logits_bytes(small, slots)
    assert logged_mib * MIB <= graph <= logged_mib * MIB + activation_bytes(small, n_ubatch) / 2


def test_a_draft_model_takes_its_weights_and_its_cache_beside_the_other(
    small: GgufHeader, large: GgufHeader
) -> None:
    setting = Setting(65, 4096, 1, "f16", 512)
    alone, beside = Footprint(large), Footprint(large, small)
    gpu, _ = beside.demands(setting)
    assert gpu.weights == alone.demands(setting)[0].weights + small.weight_bytes
    assert gpu.kv == 4096 * (262_144 + 114_688)
    on_cpu, ram = beside.demands(replace(setting, gpu_layers=0))
    assert on_cpu.total == 0
    assert ram.kv == gpu.kv
    memory = box(card(24_080))
    assert plan(large, memory, draft=small).context < plan(large, memory).context


def test_experts_count_as_often_as_they_are_used(small: GgufHeader) -> None:
    """45,061 floats a token, logged for 8 experts of 768 over a hidden size of 2048."""
    mixture = replace(
        small, embedding=2048, feed_forward=0, experts_used=8, expert_feed_forward=768
    )
    assert 45_061 <= activation_bytes(mixture, 1) / 4 <= 45_061 * 1.4


def test_32b_on_24_gb_is_whole_on_the_gpu_with_the_largest_context(large: GgufHeader) -> None:
    memory = box(card(24_080))
    made = plan(large, memory)
    assert made.gpu_layers == made.layers == 65
    assert made.kv_type == "q8_0"
    assert 35_000 <= made.context <= 38_000
    assert any("at f16 only 19," in reason for reason in made.reasons)
    assert_in_memory(made, memory)
    with pytest.raises(DoesNotFit, match=r"a context of at most"):
        plan(large, memory, Wishes(context=made.context + 4 * 1024, gpu_layers=-1))


def test_32b_on_24_gb_at_f16_holds_half(large: GgufHeader) -> None:
    made = plan(large, box(card(24_080)), Wishes(kv_type="f16"))
    assert made.gpu_layers == 65
    assert 18_000 <= made.context <= 20_000


def test_a_large_card_serves_many_at_full_precision(large: GgufHeader) -> None:
    made = plan(large, box(card(81_000)))
    assert (made.gpu_layers, made.kv_type, made.slots) == (65, "f16", 16)
    assert made.context > 240_000


def test_a_small_model_never_gets_more_context_than_its_slots_can_use(small: GgufHeader) -> None:
    made = plan(small, box(card(200_000)))
    assert made.slots == 32
    assert made.context == 32 * small.context
    assert made.request_context == small.context


def test_a_card_too_small_takes_layers_and_says_what_would_fit(large: GgufHeader) -> None:
    memory = box(card(8000))
    made = plan(large, memory)
    assert 0 < made.gpu_layers < made.layers
    warning = made.reasons[0]
    assert warning.startswith(f"Warning: only {made.gpu_layers} of 65 layers fit on a card")
    assert "a model or quantisation that is 11." in warning
    assert_in_memory(made, memory)


def test_without_a_gpu_the_plan_is_modest(small: GgufHeader) -> None:
    made = plan(small, HOME)
    assert (made.gpu_layers, made.gpu) == (0, None)
    assert (made.slots, made.context, made.kv_type) == (8, 8 * 4096, "f16")
    assert made.on_gpu.total == 0


def test_little_ram_gives_fewer_slots_before_it_refuses(small: GgufHeader) -> None:
    assert plan(small, box(ram=4)).slots == 2
    with pytest.raises(DoesNotFit, match=r"does not fit: 1\.0 GiB of RAM"):
        plan(small, box(ram=1))


def test_what_no_memory_can_hold_is_refused_with_a_way_out(large: GgufHeader) -> None:
    with pytest.raises(DoesNotFit) as caught:
        plan(large, box(card(8000), ram=7))
    assert "GiB are missing" in str(caught.value)
    assert "a model or quantisation that is" in str(caught.value)


def test_the_gpu_with_the_most_free_memory_is_used(small: GgufHeader) -> None:
    made = plan(small, box(card(4000, "old"), card(9000, "new")))
    assert made.gpu is not None
    assert made.gpu.name == "new"
    assert any("Of 2 GPUs" in reason for reason in made.reasons)


def test_a_context_is_rounded_up_to_whole_cells(small: GgufHeader) -> None:
    made = plan(small, HOME, Wishes(context=1000, slots=3))
    assert made.context == 3 * 512
    assert any("rounded up from 1,000 to 1,536" in reason for reason in made.reasons)


@pytest.mark.parametrize(("layout", "most"), [("unified", 4096), ("streams", 1024), (None, 1024)])
def test_without_a_shared_pool_a_request_can_use_the_share_of_its_slot(
    layout: str | None, most: int, small: GgufHeader
) -> None:
    made = plan(small, HOME, Wishes(context=4096, slots=4, kv_layout=layout))
    assert made.request_context == most
    assert any(f"One request can use {most:,} tokens" in reason for reason in made.reasons)


def test_a_request_cannot_exceed_what_the_model_was_trained_for(small: GgufHeader) -> None:
    made = plan(small, HOME, Wishes(context=2 * small.context, slots=1))
    assert made.context == 2 * small.context
    assert made.request_context == small.context
    assert any(reason.startswith("Warning: the model was trained") for reason in made.reasons)


@pytest.mark.parametrize(
    "wishes",
    [
        Wishes(kv_type="q4_0"),
        Wishes(slots=0),
        Wishes(slots=257),
        Wishes(context=0),
        Wishes(n_ubatch=0),
        Wishes(gpu_layers=5),
    ],
)
def test_a_wish_that_cannot_be_names_its_field(wishes: Wishes, small: GgufHeader) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(small, HOME, wishes)
    assert caught.value.field is not None
    assert getattr(wishes, caught.value.field) is not None


def test_a_head_that_fills_no_block_cannot_be_q8(small: GgufHeader) -> None:
    odd = replace(small, key_size=80, value_size=80)
    assert plan(odd, box(card(2000))).kv_type == "f16"
    with pytest.raises(ConfigError, match="choose f16"):
        plan(odd, HOME, Wishes(kv_type="q8_0"))


def test_the_table_adds_up(large: GgufHeader) -> None:
    rows = dict(plan(large, box(card(24_080))).rows())
    assert rows["Layers on the GPU"] == "65 of 65"
    assert rows["Weights"] == "18.0 GiB on the GPU, 417 MiB in RAM"
    assert rows["KV cache"].startswith("q8_0, 4.")


sizes = st.integers(0, 8 * 1024) | st.integers(0, 100 * 1024)  # MiB
growth = st.integers(0, 2 * 1024) | sizes
wishes = st.builds(
    Wishes,
    context=st.none() | st.integers(1, 200_000),
    slots=st.none() | st.integers(1, 64),
    kv_type=st.none() | st.sampled_from(["f16", "q8_0"]),
    gpu_layers=st.none() | st.integers(-1, 70),
)
models = st.sampled_from(["0.6b", "32b"])


@settings(max_examples=150, deadline=None)
@given(model=models, gpu=sizes, ram=sizes, wished=wishes)
def test_a_plan_stays_in_memory_and_keeps_every_wish(
    model: str, gpu: int, ram: int, wished: Wishes, headers: dict[str, GgufHeader]
) -> None:
    memory = Memory(ram_total=100 * GIB, ram_free=ram * MIB, gpus=(card(gpu),))
    try:
        made = plan(headers[model], memory, wished)
    except DoesNotFit:
        return
    assert_in_memory(made, memory)
    assert wished.slots in (None, made.slots)
    assert wished.kv_type in (None, made.kv_type)
    if wished.context is not None:
        assert wished.context <= made.context < wished.context + 256 * made.slots
    if wished.gpu_layers is not None:
        all_layers = wished.gpu_layers < 0
        assert made.gpu_layers == (
            made.layers if all_layers else min(wished.gpu_layers, made.layers)
        )


@settings(max_examples=150, deadline=None)
@given(
    model=models,
    free=st.tuples(sizes, sizes),
    more=st.tuples(growth, growth),
    slots=st.none() | st.integers(1, 40),
)
def test_more_memory_never_gives_less(
    model: str,
    free: tuple[int, int],
    more: tuple[int, int],
    slots: int | None,
    headers: dict[str, GgufHeader],
) -> None:
    """First layers on the GPU, then context: a faster device may hold less."""
    (gpu, ram), (more_gpu, more_ram) = free, more
    poor = Memory(ram_total=300 * GIB, ram_free=ram * MIB, gpus=(card(gpu),))
    rich = replace(poor, ram_free=(ram + more_ram) * MIB, gpus=(card(gpu + more_gpu),))
    try:
        before = plan(headers[model], poor, Wishes(slots=slots))
    except DoesNotFit:
        return
    after = plan(headers[model], rich, Wishes(slots=slots))
    assert (after.gpu_layers, after.context) >= (before.gpu_layers, before.context)


def test_no_larger_card_holds_less(large: GgufHeader) -> None:
    """Also where layers, the KV type and the number of slots change."""
    plans = [plan(large, box(card(free))) for free in range(2000, 60_000, 100)]
    held = [(made.gpu_layers, made.context) for made in plans]
    assert held == sorted(held)


def test_this_box_has_memory() -> None:
    memory = read_memory()
    assert 0 < memory.ram_free <= memory.ram_total


@pytest.mark.parametrize(
    ("limit", "found"), [("max", []), ("4294967296", [(4 * GIB, 700)])], ids=["none", "4 GiB"]
)
def test_a_control_group_limits_what_its_processes_hold(
    limit: str, found: list[tuple[int, int]], tmp_path: Path
) -> None:
    (tmp_path / "memory.max").write_text(limit + "\n")
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.stat").write_text("anon 700\ninactive_file 300\n")
    names = ("memory.max", "memory.current", "inactive_file")
    assert list(group_limit(tmp_path, *names)) == found
