"""What workers are kept from: secrets, core files, and life after the server."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from inference import Deployment, Pool, sandbox
from inference.testbed import Testbed, TrialFailed
from inference.trial import Trial

SECRETS = ("HF_TOKEN", "OPENAI_API_KEY", "NVIDIA_API_KEY", "LLAMA_API_KEY", "AWS_PROFILE", "SSH_X")
NEEDED = ("PATH", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "CUDA_CACHE_PATH", "OMP_NUM_THREADS")
CANARY = "canary-in-a-coal-mine"


@pytest.fixture
def canaries(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, CANARY)


def test_an_environment_has_what_is_needed_and_no_secrets(
    canaries: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NEEDED:
        monkeypatch.setenv(name, "needed")
    found = sandbox.environment({"CUDA_VISIBLE_DEVICES": "1"})
    assert CANARY not in found.values()
    assert {name: found[name] for name in NEEDED} == dict.fromkeys(NEEDED, "needed")
    assert found["CUDA_VISIBLE_DEVICES"] == "1"


async def test_a_worker_and_what_it_starts_know_no_secrets_and_leave_no_core(
    canaries: None, pool: Pool
) -> None:
    worker = psutil.Process(pool.worker_pid)
    processes = [worker, *worker.children(recursive=True)]
    assert len(processes) == 2  # and what renders its prompts
    for process in processes:
        told = Path(f"/proc/{process.pid}")
        assert CANARY.encode() not in (told / "environ").read_bytes()
        assert "Max core file size 0 0" in " ".join((told / "limits").read_text().split())
        assert "NoNewPrivs:\t1" in (told / "status").read_text()


def test_what_tuning_starts_knows_no_secrets(canaries: None, deployment: Deployment) -> None:
    code = f"import os, sys; sys.exit(7 if {CANARY!r} in os.environ.values() else 8)"
    trial = Trial(deployment.engine, 64)
    with (
        Testbed(command=[sys.executable, "-c", code]) as testbed,
        pytest.raises(TrialFailed, match="exit code 8"),
    ):
        testbed.measure(trial, None)


SERVER = """
import asyncio, sys
from inference import Pool, Wishes, load_config, prepare

async def serve():
    pool = Pool(prepare(load_config(), "qwen3-demo", Wishes(context=256, slots=1), tuned=False))
    await pool.start()
    await pool.until_ready()
    print(pool.worker_pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(serve())
"""


@pytest.mark.parametrize("stopped", [False, True])
def test_a_worker_dies_with_its_server_even_if_it_hangs(stopped: bool) -> None:
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]) as server:
        assert server.stdout
        worker = psutil.Process(int(server.stdout.readline()))
        processes = [worker, *worker.children()]
        if stopped:
            for process in processes:
                process.suspend()
        server.kill()
    deadline = time.monotonic() + 30
    while (left := [process for process in processes if lives(process)]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.01)
    for process in left:
        process.kill()
    assert not left


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_memory_and_time_are_bounded() -> None:
    for program, end in (
        ("sandbox.limit_memory(1 << 20); bytes(1 << 24)", 1),
        ("sandbox.limit_cpu(0.05)\nwhile True: pass", -signal.SIGPROF),
    ):
        command = [sys.executable, "-c", f"from inference import sandbox\n{program}"]
        done = subprocess.run(
            command, cwd=Path(__file__).parents[1], stderr=subprocess.DEVNULL, check=False
        )
        assert done.returncode == end
