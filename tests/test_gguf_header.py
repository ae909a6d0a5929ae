"""A header is read exactly; whatever is wrong with a file costs one sentence."""

import re
import struct
from pathlib import Path

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.synthetic import PRESETS, write
from inference.errors import BadModelFile
from inference.gguf_format import BLOCKS
from inference.gguf_header import QUANTS, read_header
from tests.headers import Handmade, array, figures, string, tensor, text, u32, write_header


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "small.gguf"
    write(path, PRESETS["tiny"])
    return path


def test_a_header_says_what_the_model_is(tmp_path: Path) -> None:
    header = read_header(write_header(tmp_path / "m.gguf", PRESETS["0.6b"]))
    assert (header.architecture, header.name, header.quant) == (
        "qwen3",
        "Qwen3 0.6B, synthetic",
        "Q8_0",
    )
    assert (header.layers, header.embedding, header.feed_forward) == (28, 1024, 3072)
    assert (header.heads, header.kv_heads, header.key_size, header.value_size) == (16, 8, 128, 128)
    assert (header.vocabulary, header.context, header.experts) == (151_936, 40_960, 0)
    assert header.parameters == 596_049_920
    assert header.size == header.path.stat().st_size
    assert "enable_thinking" in (header.chat_template or "")


def test_tensors_are_where_the_reference_reader_finds_them(small: Path) -> None:
    header, reference = read_header(small), gguf.GGUFReader(small)
    assert [(t.name, t.type, t.dims, t.bytes) for t in header.tensors] == [
        (t.name, int(t.tensor_type), tuple(map(int, t.shape)), int(t.n_bytes))
        for t in reference.tensors
    ]
    begin = reference.data_offset
    assert [t.offset + begin for t in header.tensors] == [t.data_offset for t in reference.tensors]


def test_tables_of_types_agree_with_the_reference() -> None:
    assert {int(kind): size for kind, size in gguf.GGML_QUANT_SIZES.items()} == BLOCKS
    assert len(QUANTS) == len(gguf.LlamaFileType) - 1  # all but GUESSED
    assert all(QUANTS[int(t)] in t.name for t in gguf.LlamaFileType if t.name != "GUESSED")


def test_a_handmade_file_is_sound(tmp_path: Path) -> None:
    header = read_header(Handmade().at(tmp_path / "m.gguf"))
    assert (header.name, header.quant, header.kv_heads, header.key_size) == ("m", "unknown", 2, 4)
    assert read_header(Handmade(version=2).at(tmp_path / "v2.gguf")).layers == 1


def test_figures_per_layer_count_as_the_largest(tmp_path: Path) -> None:
    heads = array("qwen3.attention.head_count_kv", 5, 3) + struct.pack("<3i", 1, 2, 1)
    header = read_header(Handmade((*figures().values(), heads)).at(tmp_path / "m.gguf"))
    assert header.kv_heads == 2


@pytest.mark.parametrize(("number", "pooling"), [(0, ""), (1, "mean"), (2, "cls"), (3, "last")])
def test_an_embedding_model_says_how_it_is_pooled(
    number: int, pooling: str, tmp_path: Path
) -> None:
    header = read_header(extra(u32("qwen3.pooling_type", number)).at(tmp_path / "m.gguf"))
    assert (header.pooling, header.causal) == (pooling, True)
    assert header.whole_inputs == (pooling in ("mean", "cls"))
    assert read_header(extra().at(tmp_path / "m.gguf")).pooling == ""


def test_a_model_that_sees_all_of_an_input_keeps_none_of_it(tmp_path: Path) -> None:
    causal = string("qwen3.attention.causal") + struct.pack("<I?", 7, False)
    pooled = u32("qwen3.pooling_type", 3)
    header = read_header(extra(causal, pooled).at(tmp_path / "m.gguf"))
    assert header.encodes and header.whole_inputs and header.kv_bytes_per_token("f16") == 0
    answering = read_header(extra(causal).at(tmp_path / "m.gguf"))
    assert not answering.whole_inputs and answering.kv_bytes_per_token("f16") > 0


def test_names_are_fit_for_a_terminal(tmp_path: Path) -> None:
    name = text("general.name", "\x1b[31mred\n" + "x" * 500)
    header = read_header(Handmade((*figures().values(), name)).at(tmp_path / "m.gguf"))
    assert header.name.isprintable()
    assert len(header.name) <= 100


def test_missing_data_is_told_in_bytes(small: Path, tmp_path: Path) -> None:
    whole = small.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[:-1000])
    with pytest.raises(BadModelFile) as caught:
        read_header(cut)
    message = str(caught.value)
    expected, found = (int(n.replace(",", "")) for n in re.findall(r"[\d,]{5,}\d", message))
    assert found == len(whole) - 1000
    assert len(whole) - 32 < expected <= len(whole)
    assert "download is probably incomplete" in message


def test_a_file_cut_anywhere_in_its_header_is_truncated(tmp_path: Path) -> None:
    whole = Handmade(data=b"").bytes()
    for length in range(1, len(whole)):
        path = tmp_path / "cut.gguf"
        path.write_bytes(whole[:length])
        with pytest.raises(BadModelFile, match="is truncated"):
            read_header(path)


@pytest.mark.parametrize("key", figures())
def test_what_a_model_cannot_do_without_is_missed(key: str, tmp_path: Path) -> None:
    metadata = tuple(entry for name, entry in figures().items() if name != key)
    with pytest.raises(BadModelFile, match=r"does not say|no list of tokens"):
        read_header(Handmade(metadata).at(tmp_path / "m.gguf"))


def extra(*entries: bytes) -> Handmade:
    return Handmade((*figures().values(), *entries))


MILLION_LAYERS = u32("qwen3.block_count", 1 << 20)
HOSTILE = {
    "another format": (Handmade(magic=b"GGML"), "not a GGUF"),
    "version 1": (Handmade(version=1), "version 1"),
    "big endian": (Handmade(version=3 << 24), "little endian"),
    "2^60 tensors": (Handmade(tensor_count=1 << 60), "claims"),
    "2^60 entries": (Handmade(metadata_count=1 << 60), "claims"),
    "a key of 1 TiB": (extra(struct.pack("<Q", 1 << 40)), "claims"),
    "an empty key": (extra(u32("", 1)), "empty or appears twice"),
    "a key twice": (extra(u32("a", 1), u32("a", 2)), "empty or appears twice"),
    "a value of unknown type": (extra(u32("a", 1)[:-8] + struct.pack("<II", 99, 0)), "type 99"),
    "an array of arrays": (extra(array("a", 9, 1)), "type 9"),
    "an array of 2^40": (extra(array("a", 4, 1 << 40)), "claims"),
    "a token of 1 TiB": (extra(array("a", 8, 1) + struct.pack("<Q", 1 << 40)), "claims"),
    "alignment 0": (extra(u32("general.alignment", 0)), "alignment"),
    "alignment 3": (extra(u32("general.alignment", 3)), "power of two"),
    "heads of size 0": (extra(u32("qwen3.attention.key_length", 0)), "not a number it can be"),
    "a million layers": (
        Handmade(tuple((figures() | {"qwen3.block_count": MILLION_LAYERS}).values())),
        "block_count",
    ),
    "text for a number": (extra(text("qwen3.expert_count", "two")), "not a number it can be"),
    "a reranker": (extra(u32("qwen3.pooling_type", 4)), "is a reranker"),
    "one of several parts": (extra(u32("split.count", 3)), "split"),
    "a tensor without dimensions": (Handmade(tensors=(tensor(dims=()),)), "0 dimensions"),
    "a tensor of nothing": (Handmade(tensors=(tensor(dims=(8, 0)),)), "impossible"),
    "dimensions that overflow": (Handmade(tensors=(tensor(dims=(1 << 40,) * 4),)), "impossible"),
    "half a block": (Handmade(tensors=(tensor(dims=(8, 4), kind=8),)), "impossible"),
    "a tensor of unknown type": (Handmade(tensors=(tensor(kind=77),)), "type 77"),
    "a tensor between places": (Handmade(tensors=(tensor(offset=8),)), "not aligned"),
    "a tensor beyond the end": (Handmade(tensors=(tensor(offset=1 << 50),)), "truncated"),
    "a tensor too large": (Handmade(tensors=(tensor(dims=(1 << 30, 4)),)), "truncated"),
    "two tensors of one name": (Handmade(tensors=(tensor(), tensor())), "same name"),
}


@pytest.mark.parametrize(("file", "what"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused_with_its_name(file: Handmade, what: str, tmp_path: Path) -> None:
    path = file.at(tmp_path / "m.gguf")
    with pytest.raises(BadModelFile, match=what) as caught:
        read_header(path)
    assert str(path) in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.gguf").touch()
    for path, what in (
        (tmp_path / "none.gguf", "No such file"),
        (tmp_path, "directory"),
        (tmp_path / "empty.gguf", "empty"),
    ):
        with pytest.raises(BadModelFile, match=what):
            read_header(path)


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_any_damage_gives_a_header_or_one_sentence(
    changes: list[tuple[float, int]], kept: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(extra(u32("general.alignment", 32), text("general.name", "n")).bytes())
    for place, value in changes:
        content[int(place * (len(content) - 1))] = value
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    path.write_bytes(content[: int(kept * len(content))])
    is_header_or_sentence(path)


def is_header_or_sentence(path: Path) -> None:
    try:
        header = read_header(path)
    except BadModelFile as error:
        assert str(path) in str(error)
        assert len(str(error)) < 1000
    else:
        assert header.layers > 0
        assert header.weight_bytes <= header.size


@given(
    places=st.lists(st.integers(0, len(extra().bytes()) - 8), min_size=1, max_size=4),
    figure=st.sampled_from([0, 1, 8, 9, 2**16, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]),
)
def test_any_length_or_figure_may_be_absurd(
    places: list[int], figure: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(extra(u32("general.alignment", 32)).bytes())
    for place in places:
        struct.pack_into("<Q", content, place, figure)
    path = tmp_path_factory.getbasetemp() / "absurd.gguf"
    path.write_bytes(content)
    is_header_or_sentence(path)


@given(
    start=st.sampled_from(
        [b"", b"GGUF", b"GGUF\3\0\0\0", Handmade(metadata=(), tensors=()).bytes()[:24]]
    ),
    rest=st.binary(max_size=300),
)
def test_random_bytes_give_one_sentence(
    start: bytes, rest: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "random.gguf"
    path.write_bytes(start + rest)
    is_header_or_sentence(path)
