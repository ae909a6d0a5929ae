"""models.yaml means what docs/configuration.md says, and a mistake in it is told where it is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inference.config import Config, load_config
from inference.errors import ConfigError, UnknownModel
from inference.model import Bundled, HubFile, LocalFile
from inference.types import Sampling

EVERY_KEY = """
server: {host: 0.0.0.0, port: 80, queue: 1, drain_seconds: 9, keep_alive: -1, max_models: 2}
defaults: {thinking: false}
models:
  one:
    aliases: [default, First]
    hub:
      repo: org/one
      revision: v2
      quant: Q8_0
      files: {Q8_0: one-Q8_0.gguf, Q4_K_M: one-Q4_K_M.gguf}
      sha256: {Q8_0: 0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a}
    context: 4096
    slots: 4
    kv_type: q8_0
    threads: 2
    gpu_layers: 0
    draft: two
    thinking: true
    stream: required
    sampling:
      thinking: {temperature: 0.5, top_k: 5, top_p: 0.5, min_p: 0.1}
      plain: {repeat_penalty: 1.1, presence_penalty: 1, frequency_penalty: -1}
  two: {bundled: two}
  three: {path: weights/three.gguf}
"""
FREE_NAMES = {"models", "files", "sha256"}  # what stands directly below these is no key


def load(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "mine.yaml"
    path.write_text(text, "utf-8")
    return load_config(path)


def mistakes(tmp_path: Path, text: str) -> list[str]:
    """The lines with which a file is refused, without its name, which each begins with."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    lines = caught.value.message.splitlines()
    start = str(tmp_path / "mine.yaml")
    assert all(line.startswith(start) for line in lines)
    return [line.removeprefix(start) for line in lines]


def one_model(extra: str = "") -> str:
    return f"models: {{one: {{bundled: one, aliases: [default], {extra}}}}}"


def keys(data: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in data.items() if isinstance(data, dict) else ():
        if not (above and above[-1] in FREE_NAMES):
            yield (*above, key)
        yield from keys(value, (*above, key))


def with_keys(data: dict[str, Any], path: tuple[str, ...], names: set[str]) -> dict[str, Any]:
    """`data` with all of `names` in place of the key at `path`."""
    key, *below = path
    if below:
        return data | {key: with_keys(data[key], tuple(below), names)}
    others = {other: value for other, value in data.items() if other != key}
    return others | dict.fromkeys(names, data[key])


def typos(word: str) -> set[str]:
    swapped = {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1)}
    doubled = {word[:i] + word[i] + word[i:] for i in range(len(word))}
    dropped = {word[:i] + word[i + 1 :] for i in range(len(word))}
    replaced = {word[:i] + "x" + word[i + 1 :] for i in range(len(word))}
    return (swapped | doubled | dropped | replaced) - {word}


@pytest.mark.parametrize("path", list(keys(yaml.safe_load(EVERY_KEY))), ids=".".join)
def test_every_typo_of_every_key_is_refused_with_the_right_key(
    tmp_path: Path, path: tuple[str, ...]
) -> None:
    data = with_keys(yaml.safe_load(EVERY_KEY), path, typos(path[-1]))
    lines = mistakes(tmp_path, yaml.safe_dump(data))
    nearest = path[-1].rstrip("kp")  # to_pk may be top_k or top_p
    for typo in typos(path[-1]):
        where = ".".join((*path[:-1], typo))
        start = f": {where} is not a key; did you mean {nearest}"
        assert any(line.startswith(start) for line in lines)


def test_every_key_arrives(tmp_path: Path) -> None:
    config = load(tmp_path, EVERY_KEY)
    server = config.server
    assert (server.host, server.port, server.queue, server.drain_seconds) == ("0.0.0.0", 80, 1, 9)
    assert (server.keep_alive, server.max_models) == (-1, 2)
    model = config.find("one")
    assert model.source == HubFile("one", "org/one", "one-Q8_0.gguf", "v2", "0a" * 32)
    assert (model.context, model.slots, model.kv_type) == (4096, 4, "q8_0")
    assert (model.threads, model.gpu_layers, model.thinking) == (2, 0, True)
    assert model.draft == "two"
    assert (model.stream, config.find("two").stream) == ("required", "optional")
    for said, means in (("auto", None), ("x.gguf", str(tmp_path / "x.gguf"))):
        other = load(tmp_path, EVERY_KEY.replace("draft: two", f"draft: {said}"))
        assert other.find("one").draft == means
    assert model.sampling.thinking == Sampling(temperature=0.5, top_k=5, top_p=0.5, min_p=0.1)
    assert model.sampling.plain == Sampling(
        repeat_penalty=1.1, presence_penalty=1, frequency_penalty=-1
    )
    assert config.find("two").source == Bundled("two")
    assert config.find("two").thinking is False


def test_a_path_in_the_file_is_relative_to_the_file(tmp_path: Path) -> None:
    assert load(tmp_path, EVERY_KEY).find("three").source == LocalFile(
        tmp_path / "weights" / "three.gguf"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("server: {port: eight}", "server.port should be a valid integer, not 'eight'"),
        ("server: {port: 65536}", "server.port should be less than or equal to 65535, not 65536"),
        (
            "server: {allowed_origins: ['*']}",
            "server.allowed_origins.0 should be like https://chat.example.com, in lower case, "
            "not '*'",
        ),
        ("server: {allowed_origins: [https://a.b/]}", "server.allowed_origins.0 should be like"),
        ("server: {allowed_origins: ['null']}", "server.allowed_origins.0 should be like"),
        (
            "server: {allowed_hosts: ['a.b:80']}",
            "server.allowed_hosts.0 should be a host name or address, without a port",
        ),
        ("server: {allowed_hosts: ['*.b']}", "server.allowed_hosts.0 should be a host name"),
        ("server: {host: 1}", "server.host should be a valid string, not 1"),
        ("server: no", "server should be a block of keys, not False"),
        ("defaults: {context: lots}", "defaults.context should be a valid integer, or auto"),
        ("defaults: {context: 0}", "defaults.context should be greater than or equal to 1, or"),
        ("defaults: {slots: true}", "defaults.slots should be a valid integer, or auto, not True"),
        ("defaults: {kv_type: q2}", "defaults.kv_type should be 'f16' or 'q8_0', or auto"),
        ("defaults: {thinking: 1}", "defaults.thinking should be a valid boolean, not 1"),
        ("defaults: {sampling: {plain: {top_p: 20}}}", "defaults.sampling.plain.top_p should be"),
        ("defaults: {sampling: {plain: {min_p: .nan}}}", "defaults.sampling.plain.min_p should be"),
        ("models: {a: {aliases: a}}", "models.a.aliases should be a valid list, not 'a'"),
        ("models: {a: {}}", "models.a needs exactly one of bundled, path and hub"),
        ("models: {a: {path: x, bundled: x}}", "models.a needs exactly one of"),
        ("models: {a: {hub: {repo: x}}}", "models.a.hub.repo should be OWNER/NAME, not 'x'"),
        ("models: {a: {hub: {repo: a/b}}}", "models.a.hub.files is missing"),
        (
            "models: {a: {hub: {repo: a/b, quant: Q8_0, files: {Q4_0: x}}}}",
            "models.a.hub names quant Q8_0, which has no entry in files",
        ),
        (
            "models: {a: {hub: {repo: a/b, quant: Q, files: {Q: x}, sha256: {Q: abc}}}}",
            "models.a.hub.sha256.Q should be 64 lower-case hex digits, not 'abc'",
        ),
        ("models: {3: {bundled: x}}", "models.3 should be a valid string"),
        ("models: {a: {bundled: x}}", "one model needs the alias default"),
        ("", "should be a block of keys, not None"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key_and_what_was_expected(
    tmp_path: Path, text: str, words: str
) -> None:
    assert any(line.startswith(f": {words}") for line in mistakes(tmp_path, text))


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = "server: {prot: 1, queue: many}\nmodels: {a: {bundle: x}}"
    assert len(mistakes(tmp_path, text)) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("models: [", ", line 1: "),
        ("models: {}\nserver: {}\nmodels: {}", ", line 3: the key models is there twice"),
        ("models: \x07", " is not YAML: "),
    ],
)
def test_a_file_that_is_not_clean_yaml_is_refused(tmp_path: Path, text: str, words: str) -> None:
    assert mistakes(tmp_path, text)[0].startswith(words)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent.yaml cannot be read: No such file"):
        load_config(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"host: caf\xe9")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load_config(tmp_path / "latin.yaml")


def test_two_models_cannot_share_a_name_in_any_case(tmp_path: Path) -> None:
    text = "models: {a: {bundled: a, aliases: [default, Same]}, b: {bundled: b, aliases: [sAme]}}"
    assert mistakes(tmp_path, text) == [": sAme names both a and b"]


def test_environment_references_are_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEBOX_TEST_WEIGHTS", "/srv/weights")
    text = "models: {a: {path: '${ONEBOX_TEST_WEIGHTS}/a.gguf', aliases: [default]}}"
    assert load(tmp_path, text).find("a").source == LocalFile(Path("/srv/weights/a.gguf"))
    monkeypatch.delenv("ONEBOX_TEST_WEIGHTS")
    assert "the environment variable ONEBOX_TEST_WEIGHTS is not set" in mistakes(tmp_path, text)[0]


def test_an_entry_stands_over_the_defaults_key_by_key(tmp_path: Path) -> None:
    defaults = "defaults: {context: 4096, slots: 2, sampling: {plain: {top_k: 5, top_p: 0.5}}}\n"
    entry = one_model("context: auto, sampling: {plain: {top_k: 9}}")
    model = load(tmp_path, defaults + entry).find()
    assert (model.context, model.slots) == (None, 2)
    assert model.sampling.plain == Sampling(top_k=9, top_p=0.5)


@pytest.mark.parametrize("name", ["weights/My-Model.Q8_0.gguf", "My-Model.Q8_0.GGUF", "./existing"])
def test_a_path_is_a_model_named_by_its_stem_with_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("existing").touch()
    config = load(tmp_path, "defaults: {slots: 3, thinking: false}\n" + one_model())
    model = config.find(name)
    assert model.name == Path(name).stem
    assert model.source == LocalFile(Path(name))
    assert (model.slots, model.thinking, model.aliases) == (3, False, ())


def test_the_example_of_the_documentation_is_valid(tmp_path: Path) -> None:
    page = Path(__file__).parents[1] / "docs" / "configuration.md"
    example = page.read_text("utf-8").split("```yaml\n")[1].split("```")[0]
    config = load(tmp_path, example)
    assert config.find().name == "qwen3-32b"
    assert config.find("mine").context == 16384


@pytest.fixture(scope="module")
def shipped() -> Config:
    return load_config()


KEYS = st.sampled_from(sorted({path[-1] for path in keys(yaml.safe_load(EVERY_KEY))}))
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.dates()
FILES = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | VALUES, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=50)
@given(FILES.map(yaml.safe_dump) | st.text(max_size=60))
@example("models: {a: &a [*a]}")
@example("&a [" * 50 + "]" * 50)
@example("? [a]\n: b")
@example("models: !!python/object/apply:os.system ['true']")
@example("server: {port: " + "9" * 5000 + "}")
@example("- 2001-99-99")
@example("[" * 500)
def test_any_file_is_a_configuration_or_told_in_sentences(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, "utf-8", newline="")
    try:
        assert load_config(path).find()
    except ConfigError as error:
        assert error.message.startswith(str(path))


@pytest.mark.parametrize("name", [None, "", "default", "qwen3-demo", "Qwen3-Demo:latest"])
def test_the_shipped_default_is_the_greedy_bundled_demo(shipped: Config, name: str | None) -> None:
    demo = shipped.find(name)
    assert demo.name == shipped.default == "qwen3-demo"
    assert demo.source == Bundled("qwen3-demo")
    assert demo.thinking is False
    assert demo.sampling.plain.temperature == demo.sampling.thinking.temperature == 0


@pytest.mark.parametrize(
    ("spelling", "name", "file"),
    [
        ("qwen3:32b", "qwen3-32b", "Qwen3-32B-Q4_K_M.gguf"),
        ("Qwen/Qwen3-32B-GGUF", "qwen3-32b", "Qwen3-32B-Q4_K_M.gguf"),
        ("qwen3:32b-q4_K_M", "qwen3-32b", "Qwen3-32B-Q4_K_M.gguf"),
        ("qwen3:32b-q8_0", "qwen3-32b:Q8_0", "Qwen3-32B-Q8_0.gguf"),
        ("QWEN3-32B:q8_0", "qwen3-32b:Q8_0", "Qwen3-32B-Q8_0.gguf"),
        ("Qwen/Qwen3-32B-GGUF:Q6_K", "qwen3-32b:Q6_K", "Qwen3-32B-Q6_K.gguf"),
        ("qwen3:0.6b", "qwen3-0.6b", "Qwen3-0.6B-Q8_0.gguf"),
        ("qwen3:latest", "qwen3-8b", "Qwen3-8B-Q4_K_M.gguf"),
        ("qwen3:30b-a3b", "qwen3-30b-a3b", "Qwen3-30B-A3B-Q4_K_M.gguf"),
    ],
)
def test_a_shipped_model_answers_to_every_spelling(
    shipped: Config, spelling: str, name: str, file: str
) -> None:
    model = shipped.find(spelling)
    assert isinstance(model.source, HubFile)
    assert (model.name, model.source.name, model.source.file) == (name, name, file)


def test_every_shipped_model_is_found_by_its_own_name(shipped: Config) -> None:
    models = [
        shipped.find(f"{name}:{quant}" if quant else name)
        for name, entry in shipped.models.items()
        for quant in entry.quants or ("",)
    ]
    assert len({model.name for model in models}) == len(models) == 36
    assert [shipped.find(model.name) for model in models] == models


def test_the_shipped_sampling_is_the_model_cards(shipped: Config) -> None:
    sampling = shipped.find("qwen3:8b").sampling
    assert sampling.thinking == Sampling(temperature=0.6, top_p=0.95, top_k=20, min_p=0)
    assert sampling.plain == Sampling(temperature=0.7, top_p=0.8, top_k=20, min_p=0)


def test_an_unknown_model_is_refused_with_the_nearest_and_all_names(shipped: Config) -> None:
    with pytest.raises(UnknownModel) as caught:
        shipped.find("qwen3:23b")
    assert caught.value.field == "model"
    assert "Did you mean qwen3:32b" in caught.value.message
    assert all(name in caught.value.message for name in shipped.models)
