"""Imports only go down, and native code stays in the worker."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A module may import modules of `inference` from lower lines only; a line's modules know nothing
# of each other.
LINES = [
    {
        "types",
        "errors",
        "budget",
        "holdback",
        "memory",
        "history",
        "prefix_tree",
        "autopsy",
        "sandbox",
        "addresses",
        "schema_bounds",
        "inbox",
    },
    {"preamble", "logprobs"},
    {"text_out"},
    {
        "model",
        "sequence",
        "yaml_file",
        "gguf_format",
        "parser",
        "doctor",
        "hub_client",
        "thoughts",
        "vocabulary",
        "packing",
    },
    {
        "host_cache",
        "cost_model",
        "sampler",
        "wire",
        "config",
        "gguf_header",
        "template",
        "hub_errors",
        "guide",
    },
    {
        "grammar",
        "kv_cache",
        "speculation",
        "llama",
        "footprint",
        "hub",
        "tuned",
        "trial",
        "launch",
        "journal",
    },
    {"preflight", "renderer", "refusals", "pulls", "choice"},
    {"preflight_worker", "render_worker", "embedding", "catalogue"},
    {"scheduler", "drafter", "intake", "placement", "replica", "testbed", "embedder"},
    {"fit", "engine", "status"},
    {"deployment", "worker", "trial_worker"},
    {"pool", "tune"},
    {"seats"},
    {"models"},
    {"__init__"},
]
LINE = {module: number for number, line in enumerate(LINES) for module in line}

# Which packages may be imported where.
ONLY_IN = {
    "llama_cpp": {"inference/llama.py"},
    "llguidance": {"inference/grammar.py", "inference/guide.py", "inference/vocabulary.py"},
    "fastapi": {"api/"},
    "starlette": {"api/"},
    "sse_starlette": {"api/"},
    "uvicorn": {"api/"},
    "websockets": {"api/websocket_connection.py"},
    "sqlite3": {"api/store/"},
    "typer": {"api/cli.py", "api/keys_command.py", "api/terminal"},
    "rich": {"api/cli.py", "api/keys_command.py", "api/terminal"},
    "msgspec": {
        "inference/deployment.py",
        "inference/journal.py",
        "inference/wire.py",
        "inference/sequence.py",
        "inference/pool.py",
        "inference/tuned.py",
        "inference/trial.py",
        "inference/trial_worker.py",
        "inference/testbed.py",
        "inference/tune.py",
        "inference/preflight.py",
        "inference/preflight_worker.py",
        "inference/renderer.py",
        "inference/render_worker.py",
        "api/",
    },
    "huggingface_hub": {"inference/hub", "inference/doctor.py"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=str(module), names=names):
                found |= {module} | {f"{module}.{alias.name}" for alias in names}
    return found


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", modules("inference"), ids=lambda p: p.stem)
def test_imports_inside_inference_go_down(path):
    inner = {name.split(".")[1] for name in imports(path) if name.startswith("inference.")}
    lazy = {"worker"} if path.stem == "launch" else set()  # to run one on a thread
    for module in (inner & LINE.keys()) - lazy:
        assert LINE[module] < LINE[path.stem], f"{path.stem} imports {module}"
    assert not any(name.split(".")[0] == "api" for name in imports(path))


@pytest.mark.parametrize("path", modules("api"), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_api_sees_only_the_public_names_of_inference(path):
    public = set(ast.literal_eval(_all_of(ROOT / "inference" / "__init__.py")))
    used = {name for name in imports(path) if name.startswith("inference.")}
    assert {name.removeprefix("inference.") for name in used} <= public


@pytest.mark.parametrize("path", modules("api/store"), ids=lambda p: p.stem)
def test_the_store_knows_nothing_of_those_who_use_it(path):
    above = {name for name in imports(path) if name.startswith("api.")}
    assert {name for name in above if not name.startswith("api.store")} == set()
    assert not {"fastapi", "starlette"} & {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("room", ["openai", "anthropic", "ollama", "store", "page"])
def test_what_is_below_the_gateway_does_not_know_it(room):
    for path in modules(f"api/{room}"):
        assert not any(name.startswith("api.gateway") for name in imports(path)), path


def _all_of(path: Path) -> ast.expr:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
            return node.value
    raise AssertionError(f"{path} has no __all__")


@pytest.mark.parametrize("path", [*modules("inference"), *modules("api")], ids=lambda p: p.stem)
def test_packages_are_imported_where_they_belong(path):
    place = str(path.relative_to(ROOT))
    for name in {name.split(".")[0] for name in imports(path)} & ONLY_IN.keys():
        assert any(place.startswith(allowed) for allowed in ONLY_IN[name]), f"{place}: {name}"


def test_the_api_process_never_loads_native_model_code():
    code = "import sys, api.cli; sys.exit(bool({'llama_cpp', 'llguidance'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
