"""What the source never does: run data, trust a URL's host, compare a secret with ==, leave a
field of a request without a bound, tell of every element that is wrong."""

import ast
import importlib
import re
from itertools import product
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from api.body import WireModel
from inference import BadRequest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "inference").rglob("*.py"), *(ROOT / "api").rglob("*.py")])

# Modules that run what they read, and calls that run what they are given.
MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "diskcache", "imp"}
CALLS = {
    "eval",
    "exec",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "os.system",
    "os.popen",
    "torch.load",
    "numpy.load",
    "np.load",
    "multiprocessing.Queue",
    "mp.Queue",
    "LlamaDiskCache",
}
# The URL of a request is made of its Host header, where it is a server that looks.
URLS = {"url", "base_url", "url_for"}
REQUESTS = {"http", "request", "websocket", "connection", "conn"}
SECRET = re.compile(r"secret|password|credential|bearer|api_?key|authorization|digest|hmac")

# Fields that hold any JSON object; how deep and how long it is, api/body.py bounds.
OBJECTS = {"parameters", "arguments", "input_schema", "input"}


def offences(source: str, requests: set[str] = REQUESTS) -> list[str]:
    """What in `source` breaks the rules, a line each; `requests` are names of what has a URL."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                bad = {alias.name.split(".")[0] for alias in names} & MODULES
            case ast.ImportFrom(module=str(module), names=names):
                full = {f"{module}.{alias.name}" for alias in names}
                bad = {module.split(".")[0]} & MODULES | full & CALLS
            case ast.Call(func=function, keywords=keywords):
                bad = {ast.unparse(function)} & CALLS
                bad |= {"shell" for k in keywords if k.arg == "shell" and not _is_false(k.value)}
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in requests:
                bad = {attribute} & URLS
            case ast.Compare(left=left, ops=ops, comparators=others):
                equal = any(isinstance(op, ast.Eq | ast.NotEq) for op in ops)
                bad = {name for side in (left, *others) for name in _secrets(side) if equal}
            case _:
                bad = set()
        found += [f"line {node.lineno}: {name}" for name in sorted(bad)]
    return found


# A clock that can be set is for people to read; nothing waits by it.
WALL_CLOCKS = {"time", "time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "date.today"}
FOR_PEOPLE = {
    "api/gateway/compaction.py",
    "api/gateway/turns.py",
    "api/ollama/encoder.py",
    "api/openai/replies.py",
    "inference/template.py",
}


def wall_clocks(source: str) -> set[str]:
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return {".".join(ast.unparse(c.func).split(".")[-2:]) for c in calls} & WALL_CLOCKS


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def _secrets(side: ast.expr) -> set[str]:
    names = {node.id for node in ast.walk(side) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(side) if isinstance(node, ast.Attribute)}
    return {name for name in names if SECRET.search(name.lower())}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_source_keeps_the_rules(path):
    served = path.is_relative_to(ROOT / "api")
    assert not offences(path.read_text(), REQUESTS if served else set())


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_waits_by_a_clock_that_can_be_set(path):
    assert not wall_clocks(path.read_text()) or str(path.relative_to(ROOT)) in FOR_PEOPLE


@pytest.mark.parametrize("source", ["time.time() - 1", "5 + time()", "datetime.datetime.now()"])
def test_clocks_that_can_be_set_are_seen(source):
    assert wall_clocks(source)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import json, marshal as m",
        "from shelve import open",
        "from diskcache.core import Cache",
        "from multiprocessing import Queue",
        "eval('1')",
        "exec(code)",
        "yaml.load(text, Loader)",
        "multiprocessing.Queue()",
        "subprocess.run('ls', shell=True)",
        "subprocess.run('ls', shell=wanted)",
        "path = request.url.path",
        "str(http.base_url)",
        "if secret == shown: pass",
        "ok = key.api_key != given",
        "found = sha256(secret).hexdigest() == key.sha256",
        "return_value = a < b == authorization",
    ],
)
def test_the_rules_see_what_they_forbid(source):
    assert offences(source)


def request_models() -> list[type[WireModel]]:
    for path in (ROOT / "api").rglob("*.py"):
        importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    found, todo = [], [WireModel]
    while todo:
        todo += (below := todo.pop().__subclasses__())
        found += [model for model in below if model.__module__.startswith("api.")]
    return sorted(found, key=lambda model: model.__name__)


def unbounded(schema: dict, name: str) -> list[str]:
    """The places in a JSON schema, nested ones included, that take a value of any size."""
    kind, free = schema.get("type"), False
    if kind in ("integer", "number"):
        free = not (
            _any(schema, "minimum", "exclusiveMinimum")
            and _any(schema, "maximum", "exclusiveMaximum")
        )
    elif kind == "string":
        free = not _any(schema, "maxLength", "pattern", "enum", "const")
    elif kind == "array":
        free = "maxItems" not in schema
    elif kind == "object" and not _any(schema, "properties", "maxProperties"):
        free = name.rpartition(".")[2] not in OBJECTS
    elif kind is None:
        free = not _any(schema, "anyOf", "oneOf", "$ref", "enum", "const")
    places = [name] if free else []
    for several in ("anyOf", "oneOf", "prefixItems"):
        for inner in schema.get(several, ()):
            places += unbounded(inner, name)
    if isinstance(schema.get("items"), dict):
        places += unbounded(schema["items"], name)
    for field, inner in schema.get("properties", {}).items():
        places += unbounded(inner, f"{name}.{field}")
    return places


def _any(schema: dict, *keys: str) -> bool:
    return any(key in schema for key in keys)


@pytest.mark.parametrize("model", request_models(), ids=lambda model: model.__name__)
def test_every_field_of_a_request_says_how_large_it_may_be(model):
    assert not unbounded(model.model_json_schema(), model.__name__)


def test_fields_without_bounds_are_seen():
    class Loose(WireModel):
        a: int
        b: float | None = None
        c: str
        d: list[bool]
        e: dict[str, str]
        f: tuple[tuple[int, str], ...]

    fields = {place.split(".")[1] for place in unbounded(Loose.model_json_schema(), "Loose")}
    assert fields == {"a", "b", "c", "d", "e", "f"}


def told(model: type[BaseModel], field: str, value: object) -> int:
    """How many errors there are of a field of this value."""
    try:
        model.model_validate({field: value})
    except ValidationError as error:
        return sum(one["loc"][:1] == (field,) for one in error.errors(include_input=False))
    except BadRequest:  # it is told at once
        return 1
    return 0


def told_each(model: type[BaseModel]) -> set[str]:
    """The fields of which every element that is wrong is an error, not the first one only."""
    fields = {field.alias or name for name, field in model.model_fields.items()}
    found = set()
    for field, wrong in product(fields, (None, -1, "", {}, [[]], [{}])):
        for one, many in (
            ([wrong], [wrong] * 1000),
            ({"0": wrong}, {str(number): wrong for number in range(1000)}),
        ):
            if told(model, field, many) > max(1, told(model, field, one)):
                found.add(field)
    return found


@pytest.mark.parametrize("model", request_models(), ids=lambda model: model.__name__)
def test_of_very_many_wrong_elements_the_first_is_told(model):
    assert not told_each(model)


def test_elements_that_are_all_told_are_seen():
    class Talkative(BaseModel):
        a: list[int]
        b: int | tuple[str, ...]
        c: dict[str, str]
        d: str

    class Terse(WireModel):
        a: list[int]
        b: int | tuple[str, ...]
        c: dict[str, str]
        d: list[list[int]]

    assert told_each(Talkative) == {"a", "b", "c"}
    assert not told_each(Terse)
    assert told(Terse, "a", [{}] * 1000) == told(Terse, "c", dict.fromkeys("abc")) == 1
