"""The set-up, run as `make` runs it: real processes, real pip, stand-in packages, no network."""

import ast
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from importlib.metadata import packages_distributions, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from setup import SetupError
from setup.llama_wheel import Recipe, recipe_for_this_machine, wheel_of
from setup.running import Pip, follow

ROOT = Path(__file__).parent.parent
LLAMA = "llama_cpp_python-0.3.36.tar.gz"
OURS = {"inference", "api", "benchmarks"}
RECIPE = Recipe("0.3.36", ("-DGGML_NATIVE=ON",), "GCC 12.2.0", "0123456789abcdef")


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_package(folder: Path, name: str, version: str) -> None:
    backend = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    project = f'[project]\nname = "{name}"\nversion = "{version}"\n'
    (folder / "pyproject.toml").write_text(backend + project)
    shutil.copy(ROOT / "tests" / "stand_in_backend.py", folder / "backend.py")


@dataclass(frozen=True)
class Box:
    """A machine for the set-up: a checkout, a home, and an index with one source package."""

    checkout: Path
    environment: dict[str, str]

    def start(self, *arguments: str, before: str = "") -> subprocess.Popen[str]:
        """`python -m setup`, in an interpreter that has run `before`."""
        code = f"import runpy, sys\n{before}\nrunpy.run_module('setup', run_name='__main__')"
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=self.checkout,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def refusal(self, before: str = "") -> str:
        """The one sentence with which the set-up refuses to go on."""
        setup = self.start(before=before)
        output, errors = setup.communicate()
        assert setup.returncode == 1
        assert output == ""
        assert len(errors.splitlines()) == 1
        assert "Traceback" not in errors
        return errors

    def builds(self) -> list[str]:
        return Path(self.environment["STAND_IN_BUILDS"]).read_text().split()


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return make_box(tmp_path)


def make_box(tmp_path: Path) -> Box:
    checkout, index, source = (tmp_path / name for name in ("check out", "index", "source"))
    for folder in (checkout, index, source):
        folder.mkdir()
    shutil.copytree(ROOT / "setup", checkout / "setup")
    write_package(checkout, "onebox", "0.1.0")
    (checkout / "constraints.txt").write_text("llama-cpp-python==0.3.36\n")
    write_package(source, "llama_cpp_python", "0.3.36")
    with tarfile.open(index / LLAMA, "w:gz") as archive:
        archive.add(source, "llama_cpp_python-0.3.36")
    (checkout / "locks").mkdir()
    for name in ("build", "dev", "llama", "serve"):
        pinned = f"llama-cpp-python==0.3.36 --hash=sha256:{digest_of(index / LLAMA)}\n"
        (checkout / "locks" / f"{name}.txt").write_text("" if name == "build" else pinned)
    (index / "llama_cpp_python-0.3.36-py3-none-any.whl").touch()  # to be left alone
    inherited = {"PATH": os.environ["PATH"], "SOURCE_DATE_EPOCH": "1", "CMAKE_ARGS": "-DOTHER=ON"}
    own = {"HOME": tmp_path, "STAND_IN_BUILDS": tmp_path / "builds", "PIP_FIND_LINKS": index}
    environment = inherited | {"PIP_NO_INDEX": "1"} | {k: str(v) for k, v in own.items()}
    return Box(checkout, environment)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Box:
    """A box that was set up with another compiler once, and then twice at the same time."""
    folder = tmp_path_factory.mktemp("box")
    box = make_box(folder)
    box.environment["CXX"] = compiler(folder, '__VERSION__ "1.0"')
    finish(box.start())
    del box.environment["CXX"]
    (box.checkout / ".venv" / "kept").touch()
    for setup in [box.start("--extra", "dev"), box.start("--extra", "dev")]:
        finish(setup)
    return box


def finish(setup: subprocess.Popen[str]) -> None:
    output, errors = setup.communicate()
    assert setup.returncode == 0, output + errors


def compiler(folder: Path, *macros: str) -> str:
    """A program that answers like a compiler asked for its predefined macros."""
    path = folder / f"compiler-{len(list(folder.iterdir()))}"
    lines = "".join(f"echo '#define {macro}'\n" for macro in macros)
    path.write_text(f"#!/bin/sh\n{lines}")
    path.chmod(0o755)
    return str(path)


def test_every_recipe_and_every_state_is_built_once_even_by_two_at_once(ready: Box) -> None:
    assert ready.builds() == ["llama_cpp_python", "onebox"] * 2


def test_what_changed_is_replaced_and_the_rest_is_kept(ready: Box) -> None:
    code = "import json, llama_cpp_python as built; print(json.dumps(built.BUILT_WITH))"
    python = ready.checkout / ".venv" / "bin" / "python"
    built_with = json.loads(subprocess.check_output([python, "-c", code]))
    recipe = recipe_for_this_machine("0.3.36", cuda=False)
    assert shlex.split(built_with["CMAKE_ARGS"]) == list(recipe.flags)
    assert "compiler-" not in built_with["CXX"]
    assert built_with["SOURCE_DATE_EPOCH"] is None
    assert (ready.checkout / ".venv" / "kept").exists()


def test_the_record_tells_how_llama_was_built(ready: Box) -> None:
    record = json.loads((ready.checkout / ".venv" / "onebox-setup.json").read_text())
    recipe = recipe_for_this_machine("0.3.36", cuda=False)
    assert record["llama"]["flags"] == list(recipe.flags)
    place = Path(ready.environment["HOME"], ".cache", "onebox", "wheels", recipe.key)
    assert json.loads((place / "build.json").read_text()) == record["llama"]


@pytest.fixture
def without_pip(ready: Box) -> Iterator[Box]:
    """The ready box with an environment whose Python fails, whatever it is asked."""
    python = ready.checkout / ".venv" / "bin" / "python"
    real = python.rename(python.with_name("real-python"))
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    yield ready
    real.replace(python)


def test_a_ready_environment_is_left_alone_and_keeps_its_extras(without_pip: Box) -> None:
    for arguments in ([], ["--extra", "dev"], ["--cuda", "0"]):
        setup = without_pip.start(*arguments)
        assert setup.communicate() == ("", "")
        assert setup.returncode == 0


@pytest.mark.parametrize("name", ["constraints.txt", "locks/serve.txt", "pyproject.toml"])
def test_changed_packages_are_work_and_work_that_failed_is_not_remembered(
    without_pip: Box, name: str
) -> None:
    changed = without_pip.checkout / name
    before = changed.read_text()
    record = without_pip.checkout / ".venv" / "onebox-setup.json"
    finished = record.read_text()
    try:
        changed.write_text(before + "# changed\n")
        assert "pip failed" in without_pip.start().communicate()[1]
        assert not record.exists()
    finally:
        record.write_text(finished)
        changed.write_text(before)


@pytest.mark.parametrize("name", ["build", "llama", "serve", "dev"])
def test_a_file_that_is_not_the_one_that_was_locked_is_not_installed(box: Box, name: str) -> None:
    index = box.checkout.with_name("index")
    (index / "stranger-1.0.tar.gz").write_bytes((index / LLAMA).read_bytes() + b"changed")
    with (box.checkout / "locks" / f"{name}.txt").open("a") as lock:
        lock.write(f"stranger==1.0 --hash=sha256:{digest_of(index / LLAMA)}\n")
    setup = box.start("--extra", "dev")
    assert "DO NOT MATCH THE HASHES" in setup.communicate()[1]
    assert setup.returncode == 1


@pytest.mark.parametrize("name", ["build", "llama"])
def test_a_list_without_hashes_installs_nothing(box: Box, name: str) -> None:
    lock = box.checkout / "locks" / f"{name}.txt"
    lock.write_text("llama-cpp-python==0.3.36\n")
    setup = box.start("--extra", "dev")
    assert "Hashes are required" in setup.communicate()[1]
    assert setup.returncode == 1


def test_every_ingredient_of_a_recipe_changes_its_key() -> None:
    others = [
        replace(RECIPE, **{field.name: getattr(RECIPE, field.name) + extra})
        for field in fields(Recipe)
        for extra in [("-DX=ON",) if field.name == "flags" else "x"]
    ]
    assert len({recipe.key for recipe in (RECIPE, *others)}) == 1 + len(fields(Recipe))


def test_another_compiler_or_cpu_is_another_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = set()
    for macros in (
        ['__VERSION__ "12.2.0"'],
        ['__VERSION__ "13.1.0"'],
        ['__VERSION__ "12.2.0"', "__AVX2__ 1"],
    ):
        monkeypatch.setenv("CXX", compiler(tmp_path, *macros))
        keys.add(recipe_for_this_machine("0.3.36", cuda=False).key)
    assert len(keys) == 3


def test_only_gcc_is_given_the_amx_repair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", compiler(tmp_path, '__VERSION__ "12.2.0"'))
    gcc = recipe_for_this_machine("0.3.36", cuda=False)
    monkeypatch.setenv("CXX", compiler(tmp_path, '__VERSION__ "Clang 14"', "__clang__ 1"))
    clang = recipe_for_this_machine("0.3.36", cuda=False)
    assert "-DCMAKE_CXX_FLAGS=-fno-tree-dse -fno-dse" in gcc.flags
    assert not any("dse" in flag for flag in clang.flags)


def test_cuda_is_another_recipe_and_needs_nvcc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", compiler(tmp_path, '__VERSION__ "12.2.0"'))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match=r"CUDA=1 needs nvcc.*apt install"):
        recipe_for_this_machine("0.3.36", cuda=True)
    (tmp_path / "bin").mkdir()
    shutil.copy("/bin/true", tmp_path / "bin" / "nvcc")
    recipe = recipe_for_this_machine("0.3.36", cuda=True)
    assert "-DGGML_CUDA=on" in recipe.flags
    assert recipe.cuda
    assert recipe.key != recipe_for_this_machine("0.3.36", cuda=False).key
    monkeypatch.setenv("CUDAARCHS", "89;90")
    assert "-DCMAKE_CUDA_ARCHITECTURES=89;90" in recipe_for_this_machine("0.3.36", cuda=True).flags
    assert recipe.key != recipe_for_this_machine("0.3.36", cuda=True).key


def test_a_wheel_is_taken_for_its_own_recipe_only_and_a_failed_build_leaves_none(
    box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in box.environment.items():
        monkeypatch.setenv(name, value)
    cache, out = tmp_path / "cache", io.StringIO()
    pip = Pip(Path(sys.executable), box.checkout)
    broken = Pip(tmp_path / "no-python", box.checkout)
    wheel = wheel_of(RECIPE, cache, pip, out)
    assert wheel_of(RECIPE, cache, broken, out) == wheel

    monkeypatch.setenv("STAND_IN_FAILS", "1")
    other = replace(RECIPE, flags=("-DGGML_NATIVE=OFF",))
    with pytest.raises(SetupError, match=re.escape(f"{other.key}.log")) as failure:
        wheel_of(other, cache, pip, out)
    assert "no such header" in str(failure.value)
    assert not (cache / "wheels" / other.key).exists()


class WheelBuilder:
    """Stands for pip, and makes a wheel in no time."""

    def run(self, arguments: list[str], *_: object) -> None:
        folder = arguments[arguments.index("--wheel-dir") + 1]
        with zipfile.ZipFile(Path(folder) / "built.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
            wheel.writestr("module.py", "sound = True\n" * 100)


@pytest.mark.parametrize(
    "damage",
    [
        lambda wheel: wheel.write_bytes(wheel.read_bytes()[:-9]),
        lambda wheel: wheel.write_bytes(wheel.read_bytes().replace(b"PK", b"KP")),
        lambda wheel: wheel.write_bytes(wheel.read_bytes()[:45] + b"?" + wheel.read_bytes()[46:]),
        lambda wheel: wheel.unlink(),
    ],
)
def test_a_damaged_wheel_is_told_and_built_again(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    out = io.StringIO()
    wheel = wheel_of(RECIPE, tmp_path, WheelBuilder(), out)
    sound = wheel.read_bytes()
    assert wheel_of(RECIPE, tmp_path, WheelBuilder(), out).read_bytes() == sound
    assert "damaged" not in out.getvalue()
    damage(wheel)
    assert zipfile.ZipFile(wheel_of(RECIPE, tmp_path, WheelBuilder(), out)).testzip() is None
    assert "The wheel in the cache is damaged: it is built again.\n" in out.getvalue()


def test_a_missing_compiler_is_one_sentence(box: Box) -> None:
    box.environment["PATH"] = str(box.checkout)
    assert "apt install g++" in box.refusal()


def test_an_old_python_is_one_sentence(box: Box) -> None:
    sentence = box.refusal("sys.version_info = (3, 9, 2, 'final', 0)")
    assert "needs Python 3.11 or newer and this is 3.9" in sentence
    ast.parse((ROOT / "setup" / "__init__.py").read_text(), feature_version=(3, 6))


def test_a_missing_venv_module_is_one_sentence(box: Box) -> None:
    assert "apt install python3-venv" in box.refusal("sys.modules['ensurepip'] = None")


def test_a_cache_that_cannot_be_made_is_one_sentence(box: Box) -> None:
    box.environment["XDG_CACHE_HOME"] = str(box.checkout / "constraints.txt")
    assert "XDG_CACHE_HOME" in box.refusal()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_build_shows_how_far_it_is() -> None:
    output = ["Configuring\n", *(f"  [{step}/140] /usr/bin/g++ -c x\n" for step in range(1, 141))]
    copy, file, terminal = io.StringIO(), io.StringIO(), Terminal()
    follow(output, copy, file)
    follow(output, io.StringIO(), terminal)
    assert copy.getvalue() == "".join(output)
    assert [line.split()[1] for line in file.getvalue().splitlines()] == [
        str(step) for step in range(14, 141, 14)
    ]
    assert terminal.getvalue().count("\r") == 140
    assert terminal.getvalue().count("\n") == 1


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def project() -> dict[str, list[str]]:
    """The declared dependencies: by extra, and under "" those that every installation has."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {"": declared["dependencies"], **declared["optional-dependencies"]}


def locked(name: str) -> dict[str, str]:
    """The packages in a list of `locks/`, those for other systems left out."""
    text = (ROOT / "locks" / f"{name}.txt").read_text().replace("\\\n", "")
    requirements = [Requirement(line.partition("--hash")[0]) for line in text.splitlines()]
    return {
        canonicalize_name(r.name): str(r.specifier).removeprefix("==")
        for r in requirements
        if _applies(r, {""})
    }


@pytest.mark.parametrize("name", ["bench", "build", "dev", "llama", "serve"])
def test_locks_are_of_the_versions_in_the_constraints(name: str) -> None:
    assert locked(name).items() <= pins().items()
    assert name in ("build", "llama") or locked(name).items() >= locked("serve").items()


def test_constraints_are_exact_versions_and_nothing_else() -> None:
    for name, pinned in pins().items():
        assert name == canonicalize_name(name)
        assert re.fullmatch(r"\d[\w.]*", pinned)


def test_everything_that_is_installed_for_the_project_is_pinned() -> None:
    wanted = [Requirement(text) for text in project()[""] + project()["dev"]]
    seen: set[str] = set()
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        assert locked("dev")[name] == version(name)
        extras = requirement.extras or {""}
        if f"{name}{extras}" not in seen:
            seen.add(f"{name}{extras}")
            needed = [Requirement(text) for text in requires(name) or []]
            wanted += [r for r in needed if _applies(r, extras)]


def _applies(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)


FUZZING = ("contract", "generated", "structured")  # is for those who have the tests


@pytest.mark.parametrize(
    "package, extra", [("inference", ""), ("api", ""), ("benchmarks", "bench")]
)
def test_what_is_imported_is_declared(package: str, extra: str) -> None:
    modules = packages_distributions()
    for path in ROOT.glob(f"{package}/**/*.py"):
        needed = "dev" if path.stem in FUZZING else extra
        declared = {canonicalize_name(name) for name in project()[""] + project()[needed]}
        for module in _imported(path) - sys.stdlib_module_names - OURS:
            names = {canonicalize_name(name) for name in modules[module]}
            assert names & declared, f"{path} imports {module}"


def _imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def test_make_help_lists_every_target() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    listed = subprocess.check_output(["make", "help"], cwd=ROOT, text=True)
    assert re.findall(r"^  make (\S+) +\S", listed, re.MULTILINE) == phony[1].split()


# The first versions without a hole that let strangers in: a Host header that fools authentication,
# chunks that hide a request, a sandbox that leaks.
@pytest.mark.parametrize(
    ("package", "floor"), [("starlette", (1, 0, 1)), ("h11", (0, 16, 0)), ("jinja2", (3, 1, 6))]
)
def test_packages_with_known_holes_are_newer(package: str, floor: tuple[int, ...]) -> None:
    assert tuple(map(int, pins()[package].split("."))) >= floor
