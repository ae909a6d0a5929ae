"""A model file is looked at from a distance: whatever it is, it costs one sentence."""

import os
import random
import sys
from pathlib import Path

import pytest

from benchmarks.mutants import MODEL, dissect
from benchmarks.synthetic import PRESETS, write
from inference import NotReady, Pool, Wishes, load_config, preflight, prepare
from inference.errors import BadModelFile, InferenceError
from inference.gguf_format import MAX_HEADER, read
from inference.gguf_header import MAX_TEMPLATE, read_header
from inference.preflight import inspect
from inference.renderer import Renderer, Source
from inference.types import Message
from tests.headers import Handmade, array, figures, strings, tensor, text, u32
from tests.template_attacks import BOMBS

SECONDS = 0.1  # for templates that want all the time there is


def templated(source: str) -> Handmade:
    return Handmade((*figures().values(), text("tokenizer.chat_template", source)))


def refusal(path: Path, seconds: float = 10) -> str:
    """The sentence with which the file at `path` is refused."""
    with pytest.raises(BadModelFile) as caught:
        inspect(path, seconds)
    return sentence(caught.value)


def sentence(error: InferenceError) -> str:
    assert error.message.isprintable()
    assert len(error.message) < 1000
    assert "Traceback" not in error.message
    return error.message


@pytest.fixture(scope="module", params=["bundled", "tiny"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "bundled":
        return MODEL
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    write(path, PRESETS["tiny"])
    return path


def test_from_a_distance_a_file_looks_the_same(model: Path) -> None:
    assert inspect(model) == read_header(model)


def test_a_file_cut_at_any_edge_is_refused(model: Path, tmp_path: Path) -> None:
    path, whole = tmp_path / "cut.gguf", dissect(model)
    path.write_bytes(whole.bytes())
    for edge in sorted((0, 4, *whole.edges(), path.stat().st_size - 1), reverse=True):
        for length in (edge + 1, edge):
            os.truncate(path, min(length, path.stat().st_size - 1))
            with pytest.raises(BadModelFile, match=r"truncated|empty|not a GGUF") as caught:
                read_header(path)
            sentence(caught.value)
    path.write_bytes(b"GGUF")
    assert "truncated" in refusal(path)


def test_bits_that_turned_over_in_the_header_give_a_header_or_a_sentence(
    model: Path, tmp_path: Path
) -> None:
    path, whole, chance = tmp_path / "hurt.gguf", dissect(model), random.Random(1)
    path.write_bytes(whole.bytes())
    header, outcomes = bytearray(path.read_bytes()[: [*whole.edges()][-1]]), set()
    for _ in range(300):
        hurt = header.copy()
        for _ in range(chance.choice((1, 2, 8))):
            hurt[chance.choice((len(hurt), 1300)) * chance.randrange(999) // 1000] ^= (
                1 << chance.randrange(8)
            )
        with path.open("r+b") as file:
            file.write(hurt)
        try:
            outcomes.add(read_header(path).architecture)
        except BadModelFile as error:
            outcomes.add("refused")
            sentence(error)
    assert {"refused", "qwen3"} <= outcomes


TOKENS = "tokenizer.ggml.tokens"
HOSTILE = {
    "tokens that are numbers": (
        Handmade(tuple((figures() | {TOKENS: array(TOKENS, 4, 1) + bytes(4)}).values())),
        "tokens",
    ),
    "types that are texts": (
        Handmade((*figures().values(), strings("tokenizer.ggml.token_type", ["1"] * 4))),
        "token_type",
    ),
    "a score for one token only": (
        Handmade((*figures().values(), array("tokenizer.ggml.scores", 6, 1) + bytes(4))),
        "shorter",
    ),
    "merges that are a number": (
        Handmade((*figures().values(), u32("tokenizer.ggml.merges", 1))),
        "merges",
    ),
    "two tensors in one place": (Handmade(tensors=(tensor("a"), tensor("b"))), "overlaps"),
    "a tensor with a long name": (Handmade(tensors=(tensor("a" * 64),)), "claims 64 bytes"),
    "a long template": (templated("a" * (MAX_TEMPLATE + 1)), "longer than"),
    "a template that writes a lot": (templated("{{ 'a' * 2 * 10 ** 6 }}"), "makes more than"),
    "a template without an end": (templated(BOMBS["nested loops"]), "0.1 s of computing"),
    "a template that does not compile": (templated("{% for %}"), "does not compile"),
}


@pytest.mark.parametrize(("file", "what"), HOSTILE.values(), ids=HOSTILE)
def test_what_others_take_for_granted_is_checked(file: Handmade, what: str, tmp_path: Path) -> None:
    seconds = SECONDS if "computing" in what else 10
    assert what in refusal(file.at(tmp_path / "m.gguf"), seconds)


def holey(path: Path, entries: int, begin: bytes, hole: int) -> Path:
    """A file with so many entries that begin like that and go on with zeros."""
    with path.open("wb") as file:
        file.write(Handmade(metadata=(), metadata_count=entries).bytes()[:24])
        for number in range(entries):
            file.write(begin.replace(b"###", b"%03d" % number))
            file.seek(hole - 1, os.SEEK_CUR)
            file.write(b"\0")
    return path


def test_a_header_that_is_too_large_is_refused(tmp_path: Path) -> None:
    begin = array("k###", 12, 1 << 24)
    path = holey(tmp_path / "m.gguf", 3, begin, 8 << 24)
    assert path.stat().st_size > MAX_HEADER
    assert "header is larger than" in refusal(path)


def test_a_header_that_takes_too_much_memory_is_refused(tmp_path: Path) -> None:
    length = 1 << 20
    begin = text("k###", "")[:-8] + length.to_bytes(8, "little") + b"\xff"
    path = holey(tmp_path / "m.gguf", 250, begin, length - 1)
    assert "takes more than 512 MiB" in refusal(path)


@pytest.mark.parametrize(
    ("program", "seconds", "what"),
    [
        ("import time; time.sleep(60)", 0.5, "reading its header takes more than 0.5 s"),
        ("print({}, flush=True); import time; time.sleep(60)", 3, "chat template takes more than"),
        ("import os; os.abort()", 60, "ended with signal 6"),
        ("print('{\"refusal\"', end='')", 60, "ended with exit code 0"),
    ],
)
def test_whatever_happens_to_the_one_who_looks_is_one_sentence(
    program: str, seconds: float, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "command", lambda *_: [sys.executable, "-c", program])
    monkeypatch.setattr(preflight, "SECONDS", seconds)
    assert what in refusal(MODEL)


@pytest.mark.parametrize("source", BOMBS.values(), ids=BOMBS)
def test_a_template_that_never_ends_is_refused_or_refuses(source: str, tmp_path: Path) -> None:
    path = templated(source).at(tmp_path / "m.gguf")
    with pytest.raises(InferenceError) as caught:
        inspect(path, SECONDS)
        with Renderer(SECONDS) as renderer:
            renderer.use(Source(source, (), "", ""))
            renderer.render((Message("user", "hi"),), (), {})
    assert "template" in sentence(caught.value)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"m\xff.gguf")
    Handmade().at(path)
    assert "rename the file" in refusal(path)


async def test_a_file_that_changed_since_it_was_looked_at_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(MODEL.read_bytes())
    deployment = prepare(load_config(), str(path), Wishes(context=256, slots=1), tuned=False)
    os.utime(path)
    pool = Pool(deployment)
    await pool.start()
    with pytest.raises(NotReady, match="has changed since it was checked"):
        await pool.until_ready()
    await pool.close()


def test_another_file_in_its_place_has_another_stamp(tmp_path: Path) -> None:
    path, other = tmp_path / "m.gguf", tmp_path / "other.gguf"
    Handmade().at(path)
    stamp = inspect(path).stamp
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)
    assert read(path).stamp != stamp
