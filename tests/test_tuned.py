"""What tuning remembers, what `prepare` and `serve` make of it, and a real run of the command."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from api import cli
from inference import Deployment, Wishes, deployment, load_config, prepare
from inference.llama import Llama
from inference.memory import Memory
from inference.testbed import Testbed, TrialFailed
from inference.trial import Times
from inference.tune import Tuning, TuningRow
from inference.tuned import Choice, DamagedResult, NotStored, Result, identify, place, recall
from inference.tuned import remember as keep

SERVE = [sys.executable, "-c", "from api.cli import app; app()", "serve", "--port", "0"]


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def _steady_memory(monkeypatch) -> None:
    """What is free changes from one look to the next, and with it the settings."""
    monkeypatch.setattr(deployment, "read_memory", lambda: Memory(16 << 30, 8 << 30))


CHOICE = Choice(threads=1, batch=256, flash_attention=False, unified=False, joint=True)
WISHES = Wishes(context=2048, slots=2)


def ready(**options) -> Deployment:
    return prepare(load_config(), "qwen3-demo", WISHES, **options)


def known(choice: Choice = CHOICE) -> Result:
    """A result for the bundled model, kept."""
    result = Result(subject=ready(tuned=False).subject, choice=choice, gain=1.5)
    keep(result)
    return result


def test_a_result_is_remembered_for_its_subject_only(cache):
    result = known()
    assert recall(result.subject) == result
    for other in ({"threads": 1}, {"slots": 4}, {"changed": 1}, {"llama": "0.0.1"}, {"cpu": "?"}):
        assert recall(replace(result.subject, **other)) is None


def test_another_file_is_another_subject(tmp_path):
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"some weights")
    before = path.stat()
    engine = replace(ready(tuned=False).engine, path=str(path))
    subject = identify(engine, "", None, None)
    path.write_bytes(b"more weights")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert identify(engine, "", None, None) != subject


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"threads": 1', '"threads": 0'),
        ('"threads": 1', '"threads": "many"'),
        ('"batch": 256', '"batch": 1'),
        ('"gain"', '"win"'),
        ('"slots": 2', '"slots": 3'),
        ("{", ""),
        ('"cpu": "', '"cpu": "\udcff'),
    ],
)
def test_a_damaged_result_is_told_and_ignored(old, new, cache):
    path = place(known().subject)
    damaged = path.read_text().replace(old, new, 1)
    path.write_text(damaged, errors="surrogateescape")
    with pytest.raises(DamagedResult):
        recall(ready(tuned=False).subject)
    found = ready()
    assert found.engine == ready(tuned=False).engine
    assert str(path) in found.tuning
    assert "`onebox tune qwen3-demo`, with the same options, measures them again." in found.tuning


def test_a_result_that_cannot_be_stored_says_where(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(NotStored, match=f"{tmp_path}/file/onebox/tuned .*XDG_CACHE_HOME"):
        known()


def test_a_full_disk_keeps_what_was_known_and_leaves_nothing_behind(cache):
    result = known()
    path = place(result.subject)
    path.with_name(f"{path.name}.{os.getpid()}.partial").symlink_to("/dev/full")
    with pytest.raises(NotStored, match=r"No space left on device.*XDG_CACHE_HOME"):
        keep(replace(result, gain=2.0))
    assert recall(result.subject) == result
    assert list(path.parent.iterdir()) == [path]


def test_without_a_result_there_are_defaults_and_advice(cache):
    found = ready()
    assert found.engine == ready(tuned=False).engine
    assert found.tuning.startswith("`onebox tune qwen3-demo`")


def test_a_result_is_used_and_told(cache):
    known()
    found = ready()
    expected = CHOICE.over(ready(tuned=False).engine)
    assert found.engine == expected != ready(tuned=False).engine
    assert found.plan.n_ubatch == 256
    assert found.plan.request_context == found.engine.request_context == 1024
    assert any("One request can use 1,024 tokens" in reason for reason in found.plan.reasons)
    assert found.tuning == f"Tuned: {CHOICE}; 1.50 times as fast as the defaults."


def test_what_was_said_goes_over_what_was_measured(cache):
    known()
    assert ready(threads=2).engine.threads == 2
    model = "models: {mine: {aliases: [default], bundled: qwen3-demo, threads: 2}}"
    (cache / "models.yaml").write_text(model)
    found = prepare(load_config(cache / "models.yaml"), "mine", WISHES)
    assert found.engine.threads == 2
    assert found.engine.batch == ready(tuned=False).engine.batch


def test_a_result_that_no_longer_fits_is_not_used(cache, monkeypatch):
    known(replace(CHOICE, batch=2048, unified=True))
    mib = 1 << 20
    monkeypatch.setattr(deployment, "read_memory", lambda: Memory(2048 * mib, 620 * mib))
    found = ready()
    assert found.engine == ready(tuned=False).engine
    assert "need more memory than is free" in found.tuning


def test_the_plan_and_the_engine_speak_of_the_same_layout():
    found = ready(tuned=False)
    assert found.plan.request_context == found.engine.request_context


@pytest.fixture(scope="module")
def llama() -> Iterator[Llama]:
    """One to open again: the model of the other tests keeps its context."""
    llama = Llama(ready(tuned=False).engine)
    yield llama
    llama.close()


@pytest.mark.parametrize("flash_attention", [None, False])
@pytest.mark.parametrize("unified", [True, False])
def test_cells_are_saved_and_restored_in_every_kind_of_context(unified, flash_attention, llama):
    engine = ready(tuned=False).engine
    llama.reopen(replace(engine, unified=unified, flash_attention=flash_attention))
    prompt = np.arange(100, 140, dtype=np.int32)
    where = np.arange(40, dtype=np.int32)
    llama.decode(prompt, where, np.zeros_like(where), where == 39)
    llama.restore(1, llama.save(0))
    both = np.array([0, 1], np.int32)
    llama.decode(np.full_like(both, 7), np.full_like(both, 40), both, both >= 0)
    first, second = llama.logits()
    assert np.allclose(first, second, atol=1e-2)
    assert np.ptp(first) > 1


async def test_tune_measures_and_serve_uses_it(cache):
    options = ["--slots", "2", "--context", "2048"]
    tuned = CliRunner().invoke(cli.app, ["tune", "qwen3-demo", *options, "--budget", "4"])
    assert tuned.exit_code == 0, tuned.stderr
    assert "default" in tuned.stdout and "best" in tuned.stdout
    (stored,) = (cache / "onebox" / "tuned").iterdir()
    assert f"Stored in {stored}" in tuned.stdout
    assert "- Tuned: threads " in await _greeting(*options)
    untuned = await _greeting(*options, "--no-tuned")
    assert "une" not in untuned and not untuned.endswith("- Loading")
    assert "`onebox tune qwen3-demo`" in await _greeting("--slots", "4")


async def _greeting(*options: str) -> str:
    """What a real `onebox serve` says until it loads the model."""
    process = await asyncio.create_subprocess_exec(
        *SERVE, "qwen3-demo", *options, stdout=asyncio.subprocess.PIPE
    )
    said = await process.stdout.readuntil(b"Loading")
    process.terminate()
    await process.communicate()
    return " ".join(said.decode().split())


@pytest.mark.parametrize(("neighbours", "told"), [(0.05, False), (0.4, True)])
def test_the_verdict_tells_of_neighbours_and_of_lack_of_time(neighbours, told):
    found = ready(tuned=False)
    row = TuningRow(found.engine, Times(prompt=500, decode=100, separate=300, joint=400))
    tuning = Tuning(
        subject=found.subject,
        rows=(row,),
        base=row,
        best=row,
        prompt=512,
        complete=not told,
        neighbours=neighbours,
    )
    assert ("Other programs took 40% of the CPU" in tuning.verdict) is told
    assert ("see --budget" in tuning.verdict) is told
    assert tuning.result.gain == 1


def test_tuning_within_no_time_at_all_is_one_sentence(cache, monkeypatch):
    def too_late(*_):
        raise TrialFailed("it took too long")

    monkeypatch.setattr(Testbed, "measure", too_late)
    result = CliRunner().invoke(cli.app, ["tune", "qwen3-demo"])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1 and "--budget" in result.stderr
