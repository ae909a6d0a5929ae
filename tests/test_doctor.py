"""The doctor: every finding has a verdict, and every verdict but "ok" says what to do."""

import json
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from inference import doctor
from inference.doctor import Build, Check
from inference.memory import Gpu, Memory
from setup import environment

GIB = 2**30
REPAIRED = {"flags": ["-DCMAKE_C_FLAGS=-fno-tree-dse -fno-dse"], "compiler": "GCC 12.2.0"}
UNREPAIRED = {"flags": ["-DGGML_NATIVE=ON"], "compiler": "GCC 12.2.0"}
AMX = Build("0.3.36", "CPU : AVX2 = 1 | AMX_INT8 = 1 | ", offload=False, recipe=REPAIRED)
CARD = Gpu("NVIDIA L4", total=24 * GIB, free=23 * GIB)
WITHOUT_GPU = Memory(ram_total=16 * GIB, ram_free=8 * GIB)
WITH_GPU = replace(WITHOUT_GPU, gpus=(CARD,))


def test_this_machine_gets_a_whole_report_with_advice_for_all_that_is_not_ok() -> None:
    checks = doctor.examine(port=0)
    names = [check.name for check in checks]
    assert names == ["Python", "llama.cpp", "AMX", "GPU", "memory", "port", "weights", "threads"]
    assert all(check.found and bool(check.advice) == (check.status != "ok") for check in checks)


def test_llama_is_never_loaded_into_the_process_that_asks() -> None:
    code = "import sys; from inference.doctor import ask_llama; print(ask_llama({}))"
    code += "; print('llama_cpp' in sys.modules)"
    build, loaded = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()
    assert build.startswith("Build(")
    assert loaded == "False"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ImportError('libllama.so: not found')", "ImportError: libllama.so: not found"),
        ("import os; os.kill(os.getpid(), 4)", f"signal {int(signal.SIGILL)}"),
    ],
)
def test_a_build_that_cannot_be_loaded_fails_with_the_reason(
    code: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "llama_cpp.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    check = doctor.ask_llama({})
    assert isinstance(check, Check)
    assert check.status == "fail"
    assert reason in check.found
    assert "make install" in check.advice


def test_the_recipe_is_read_from_the_record_of_the_set_up(tmp_path: Path) -> None:
    assert doctor.read_recipe(tmp_path) == {}
    (tmp_path / environment.RECORD).write_text(json.dumps({"llama": REPAIRED}))
    assert doctor.read_recipe(tmp_path) == REPAIRED


def test_a_wheel_that_onebox_did_not_build_is_a_warning() -> None:
    assert doctor.check_build(AMX).status == "ok"
    assert doctor.check_build(replace(AMX, recipe={})).status == "warn"


@pytest.mark.parametrize(
    ("build", "cpu_flags", "status"),
    [
        (AMX, {"amx_int8"}, "ok"),
        (AMX, {"avx2"}, "ok"),
        (replace(AMX, features="CPU : AVX2 = 1 | "), {"amx_int8"}, "warn"),
        (replace(AMX, recipe=UNREPAIRED), {"amx_int8"}, "fail"),
        (replace(AMX, recipe=UNREPAIRED | {"compiler": "Clang 14.0.6"}), {"amx_int8"}, "ok"),
        (replace(AMX, recipe={}), {"amx_int8"}, "warn"),
    ],
)
def test_amx_must_be_used_and_must_be_repaired_under_gcc_12(
    build: Build, cpu_flags: set[str], status: str
) -> None:
    assert doctor.check_amx(build, cpu_flags).status == status


def test_a_gpu_without_a_build_for_it_is_a_warning_that_names_the_command() -> None:
    check = doctor.check_gpu(AMX, WITH_GPU)
    assert check.status == "warn"
    assert "make install CUDA=1" in check.advice
    assert doctor.check_gpu(replace(AMX, offload=True), WITH_GPU).status == "ok"


def test_a_cuda_build_without_a_visible_gpu_is_a_warning() -> None:
    cuda = replace(AMX, recipe=REPAIRED | {"cuda": "release 12.4"})
    assert doctor.check_gpu(cuda, WITHOUT_GPU).status == "warn"
    assert doctor.check_gpu(AMX, WITHOUT_GPU).status == "ok"


def test_less_than_a_gibibyte_of_free_memory_is_a_warning() -> None:
    assert doctor.check_memory(WITHOUT_GPU).status == "ok"
    assert doctor.check_memory(replace(WITHOUT_GPU, ram_free=GIB - 1)).status == "warn"


def test_a_port_that_somebody_listens_on_is_a_warning() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert doctor.check_port(port).status == "warn"
    assert doctor.check_port(port).status == "ok"


def test_a_folder_for_weights_that_cannot_be_made_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert doctor.check_weights_folder(tmp_path / "file" / "hub").status == "fail"
    assert doctor.check_weights_folder(tmp_path / "new" / "hub").status != "fail"
    assert not (tmp_path / "new").exists()


def test_threads_that_were_told_to_spin_are_a_warning() -> None:
    assert doctor.check_waiting({"OMP_WAIT_POLICY": "active"}).status == "warn"
    assert doctor.check_waiting({}).status == "ok"
