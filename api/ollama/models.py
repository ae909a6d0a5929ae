"""Ollama's addresses about models: which there are, which are loaded, and what cannot be changed.

A model is listed under all its names, as programs look for theirs in the list, and an agent with
what is known of its model. What would make or delete a model is not done over HTTP.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypedDict

from fastapi import APIRouter, Request, Response

from api.body import WireModel, Word, read, read_object
from api.document import JSON, Operation, body_schema
from api.errors import NotOffered
from api.json_reply import JsonReply
from api.metrics import Meter
from api.offers import agent_of, agents_on
from api.ollama.encoder import moment
from api.streaming import metered
from inference import Models, PoolStatus

# Programs compare it with the first release that has what they need. Ours is no such release.
SPOKEN: Final = "0.13.0"
_LONG_AGO, _NEVER = "1970-01-01T00:00:00Z", "2318-01-01T00:00:00Z"
_NOT_HERE: Final = {
    "/api/create": "Models are not made over HTTP; list them in models.yaml.",
    "/api/push": "Models are not pushed from here.",
    "/api/copy": "Models are not copied over HTTP; give them aliases in models.yaml.",
    "/api/delete": "Models are not deleted over HTTP.",
    "/api/blobs/{digest}": "Models are not made over HTTP; list them in models.yaml.",
}
_METHODS: Final = {"/api/delete": ("delete",), "/api/blobs/{digest}": ("head", "post")}

router = APIRouter()


class Details(TypedDict):
    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class Listed(TypedDict):
    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details
    capabilities: list[str]


class Running(Listed):
    size_vram: int
    expires_at: str
    context_length: int


class ListedModels(TypedDict):
    models: list[Listed]


class RunningModels(TypedDict):
    models: list[Running]


class Shown(TypedDict):
    modelfile: str
    parameters: str
    template: str
    details: Details
    model_info: dict[str, str | int]
    capabilities: list[str]
    modified_at: str


class Version(TypedDict):
    version: str


class ShowBody(WireModel):
    """`name` is what `model` was once called."""

    model: Word | None = None
    name: Word | None = None


@router.api_route("/api/tags", methods=["GET", "HEAD"])
async def tags(http: Request) -> Response:
    models: Models = http.app.state.models
    there = await models.listing()
    listed = [_listed(name, now) for now in there for name in _names(now)]
    agents = [_listed(agent.name, now, now.name) for agent, now in agents_on(http, there)]
    return JsonReply(ListedModels(models=listed + agents))


@router.get("/api/ps")
async def ps(http: Request) -> Response:
    models: Models = http.app.state.models
    return JsonReply(RunningModels(models=[*map(_running, models.loaded())]))


@router.api_route("/api/version", methods=["GET", "HEAD"])
async def version() -> Response:
    return JsonReply(Version(version=SPOKEN))


@router.post("/api/show")
async def show(http: Request) -> Response:
    async def reply(meter: Meter) -> Response:
        body = read(ShowBody, await read_object(http, meter.hold), {})
        models: Models = http.app.state.models
        name = body.model or body.name
        if agent := agent_of(http, name):
            shown = _shown(now := await models.described(agent.model or None), now.name)
        else:
            shown = _shown(await models.described(name))
        meter.end(200)
        return JsonReply(shown)

    return await metered(http, "ollama_show", reply)


def _refusal(sentence: str) -> Callable[[], Awaitable[Response]]:
    async def refuse() -> Response:
        raise NotOffered(sentence)

    return refuse


for _path, _sentence in _NOT_HERE.items():
    _methods = [method.upper() for method in _METHODS.get(_path, ("post",))]
    router.add_api_route(_path, _refusal(_sentence), methods=_methods)


def _names(now: PoolStatus) -> list[str]:
    return list(dict.fromkeys(name for name in (now.name, *now.aliases) if name != "default"))


def _listed(name: str, now: PoolStatus, parent: str = "") -> Listed:
    return Listed(
        name=name,
        model=name,
        modified_at=_LONG_AGO,
        size=now.size,
        digest="",
        details=_details(now, parent),
        capabilities=now.capabilities,
    )


def _running(now: PoolStatus) -> Running:
    return Running(
        **_listed(now.name, now),
        size_vram=now.on_gpu,
        expires_at=_NEVER if now.expires_in is None else moment(now.expires_in),
        context_length=now.info.context if now.info else 0,
    )


def _details(now: PoolStatus, parent: str) -> Details:
    """Nearly empty until somebody has looked into the file; of an agent `parent` is its model."""
    family = now.info.architecture if now.info else ""
    return Details(
        parent_model=parent,
        format="gguf",
        family=family,
        families=[family] if family else [],
        parameter_size=f"{now.info.parameters / 1e9:.1f}B" if now.info else "",
        quantization_level=now.quant,
    )


def _shown(now: PoolStatus, parent: str = "") -> Shown:
    about: dict[str, str | int] = {}
    if now.info:
        about["general.architecture"] = now.info.architecture
        about["general.parameter_count"] = now.info.parameters
        # What a request may use, not what the model was trained for: programs fill it.
        about[f"{now.info.architecture}.context_length"] = now.info.context
        if now.embeds:
            about[f"{now.info.architecture}.embedding_length"] = now.info.dimensions
    return Shown(
        modelfile="",
        parameters=f"num_ctx {now.info.context}" if now.info else "",
        template="",
        details=_details(now, parent),
        model_info=about,
        capabilities=now.capabilities,
        modified_at=_LONG_AGO,
    )


_READ: Final = ("get", "head")
OPERATIONS: Final = (
    Operation(
        "/api/tags",
        "The models and agents that can be asked, by all their names",
        {200: {JSON: ListedModels}},
        methods=_READ,
    ),
    Operation("/api/ps", "The models in memory", {200: {JSON: RunningModels}}),
    Operation("/api/version", "Whose API this is like", {200: {JSON: Version}}, methods=_READ),
    Operation(
        "/api/show",
        "What is known of a model",
        {200: {JSON: Shown}},
        (400, 404, 408, 413),
        partial(body_schema, ShowBody, {}),
        methods=("post",),
    ),
    *(
        Operation(path, sentence, {}, (501,), methods=_METHODS.get(path, ("post",)))
        for path, sentence in _NOT_HERE.items()
    ),
)
