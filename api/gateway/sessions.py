"""`/api/v1/sessions`: the conversations of a key; those of others are as good as none."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Annotated, Final, TypeVar
from urllib.parse import quote

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec import UNSET, UnsetType
from pydantic import Field

from api.body import Model, WireModel, Word, parse_object, read_bytes, read_object, validate
from api.document import JSON, MARKDOWN, Operation, body_schema
from api.gateway import imports
from api.gateway.imports import ImportBody, Title
from api.gateway.settings import SettingsBody
from api.gateway.turns import Turns
from api.json_reply import JsonReply
from api.metrics import Meter
from api.store import exports, tree
from api.store.exports import Export
from api.store.records import Conversation, Message, Session, Summary
from api.store.search import Found
from api.store.sessions import Sessions
from api.streaming import metered, unless_gone
from inference import BadRequest

MAX_IMPORT: Final = 16 << 20  # bytes
_MOST: Final = 100  # sessions of a page
_LONGEST_QUERY: Final = 256  # characters
_HERE: Final = "/api/v1/sessions"
_SESSION: Final = _HERE + "/{id}"
_BODY: Final = (400, 408, 409, 413, 429, 503)
router = APIRouter()

Said = TypeVar("Said")
Hold = Callable[[int], None]
Reply = Callable[[Said], Awaitable[Response]]


class CreateBody(WireModel):
    title: Title = ""
    model: Word = ""
    settings: SettingsBody = SettingsBody()


class ChangeBody(WireModel):
    """What is not said stays as it is; `settings` are said as a whole."""

    title: Title | None = None
    model: Word | None = None
    settings: SettingsBody | None = None
    head: Word | None = None


class BranchBody(WireModel):
    message_id: Annotated[str, Field(min_length=1, max_length=256)]


class Listed(msgspec.Struct):
    """`snippet` is what stands around the place that was looked for, in one of its messages."""

    id: str
    title: str
    model: str
    created: float
    updated: float
    running: bool
    snippet: str | UnsetType = UNSET


class SessionList(msgspec.Struct):
    sessions: list[Listed]
    more: bool


class WholeSession(Session, frozen=True, kw_only=True):
    """`messages` are in the order in which they were written; `running` is the answer that is
    being written."""

    messages: list[Message]
    summaries: list[Summary]
    running: str | None


class Stopped(msgspec.Struct):
    stopped: bool


OPERATIONS: Final = (
    Operation(
        _HERE,
        "Conversations, the latest first; with a query those in which it stands",
        {200: {JSON: SessionList}},
        (400, 404, 503),
        queries=("query", "limit", "before"),
    ),
    Operation(
        _HERE,
        "A new conversation",
        {201: {JSON: Session}},
        _BODY,
        partial(body_schema, CreateBody, {}),
        methods=("post",),
    ),
    Operation(
        f"{_HERE}/import",
        "A new conversation of one that was exported as JSON",
        {201: {JSON: Session}},
        _BODY,
        partial(body_schema, ImportBody, {}),
        methods=("post",),
    ),
    Operation(_SESSION, "A conversation", {200: {JSON: WholeSession}}, (404, 503)),
    Operation(
        _SESSION,
        "Change what is said of a conversation, or which branch of it is read",
        {200: {JSON: Session}},
        (*_BODY, 404),
        partial(body_schema, ChangeBody, {}),
        methods=("patch",),
    ),
    Operation(_SESSION, "Delete a conversation", {204: {}}, (404, 503), methods=("delete",)),
    Operation(
        f"{_SESSION}/stop",
        "End the answer that is being written; whether there was one",
        {200: {JSON: Stopped}},
        (404, 503),
        methods=("post",),
    ),
    Operation(
        f"{_SESSION}/branch",
        "A new conversation that begins as another one, up to one of its messages",
        {201: {JSON: Session}},
        (*_BODY, 404),
        partial(body_schema, BranchBody, {}),
        methods=("post",),
    ),
    Operation(
        f"{_SESSION}/export",
        "A conversation as a file: json, all of it, or markdown, the branch that is read",
        {200: {JSON: Export, MARKDOWN: str}},
        (400, 404, 503),
        queries=("format",),
    ),
)


@router.get(_HERE)
async def listed(http: Request) -> Response:
    """Raises `BadRequest` naming the parameter that is wrong, `UnknownSession`, `SearchTooLong`
    and `ClientGone`."""
    query, limit = http.query_params.get("query", "").strip(), _limit(http)
    if len(query) > _LONGEST_QUERY:
        raise BadRequest(f"query: Input should be at most {_LONGEST_QUERY} characters.", "query")
    before = http.query_params.get("before")
    sessions = _sessions(http)
    asked = sessions.listed(http.state.tenant, query, limit, before)
    found, more = await unless_gone(http, asked)
    running = _turns(http).answers()
    return JsonReply(SessionList([_listed(one, running) for one in found], more))


@router.post(_HERE)
async def create(http: Request) -> Response:
    async def reply(body: CreateBody) -> Response:
        about = (body.title, body.model, body.settings.settings())
        return JsonReply(await _sessions(http).create(http.state.tenant, *about), 201)

    return await _answered(http, partial(_read, CreateBody), reply)


@router.post(f"{_HERE}/import")
async def restore(http: Request) -> Response:
    async def read(http: Request, hold: Hold) -> Conversation:
        body = await read_bytes(http, hold, MAX_IMPORT)
        return await asyncio.to_thread(lambda: imports.understand(parse_object(body)))

    async def reply(whole: Conversation) -> Response:
        return JsonReply(await _sessions(http).restore(http.state.tenant, whole), 201)

    return await _answered(http, read, reply)


@router.get(_SESSION)
async def retrieve(http: Request, id: str) -> Response:
    """Raises `UnknownSession`."""
    whole = await _whole(http, id)
    about = {name: getattr(whole.session, name) for name in Session.__struct_fields__}
    running = tree.running(whole.messages)
    messages, summaries = whole.messages, whole.summaries
    return JsonReply(WholeSession(**about, messages=messages, summaries=summaries, running=running))


@router.patch(_SESSION)
async def change(http: Request, id: str) -> Response:
    """Raises `UnknownSession`, and `UnknownMessage` for a head that is none of its messages."""

    async def reply(body: ChangeBody) -> Response:
        changed = await _sessions(http).change(
            http.state.tenant,
            id,
            title=body.title,
            model=body.model,
            settings=None if body.settings is None else body.settings.settings(),
            head=body.head,
        )
        return JsonReply(changed)

    return await _answered(http, partial(_read, ChangeBody), reply)


@router.delete(_SESSION)
async def delete(http: Request, id: str) -> Response:
    """Raises `UnknownSession`."""
    await _sessions(http).delete(http.state.tenant, id)
    await _turns(http).stop(id, http.state.tenant)
    return Response(status_code=204)


@router.post(f"{_SESSION}/stop")
async def stop(http: Request, id: str) -> Response:
    """Raises `UnknownSession`."""
    await _sessions(http).find(http.state.tenant, id)
    return JsonReply(Stopped(stopped=await _turns(http).stop(id, http.state.tenant)))


@router.post(f"{_SESSION}/branch")
async def branch(http: Request, id: str) -> Response:
    """Raises `UnknownSession`, `UnknownMessage` and `SessionBusy`."""

    async def reply(body: BranchBody) -> Response:
        await _sessions(http).find(http.state.tenant, id)
        await _turns(http).tidy(id)
        return JsonReply(await _sessions(http).branch(http.state.tenant, id, body.message_id), 201)

    return await _answered(http, partial(_read, BranchBody), reply)


@router.get(f"{_SESSION}/export")
async def export(http: Request, id: str) -> Response:
    """Raises `UnknownSession`, and `BadRequest` for another format."""
    format = http.query_params.get("format", "json")
    if format not in ("json", "markdown"):
        raise BadRequest("format: Input should be json or markdown.", "format")
    whole = await _whole(http, id)
    title = whole.session.title
    if format == "json":
        return _file(await asyncio.to_thread(exports.as_json, whole), JSON, title, "json")
    text = await asyncio.to_thread(exports.as_markdown, whole)
    return _file(text.encode(), MARKDOWN, title, "md")


async def _whole(http: Request, id: str) -> Conversation:
    """A session as it is; raises `UnknownSession`."""
    whole = await _sessions(http).whole(http.state.tenant, id)
    if tree.running(whole.messages):
        await _turns(http).tidy(id)
        whole = await _sessions(http).whole(http.state.tenant, id)
    return whole


def _turns(http: Request) -> Turns:
    turns: Turns = http.app.state.turns
    return turns


def _sessions(http: Request) -> Sessions:
    sessions: Sessions = http.app.state.sessions
    return sessions


async def _answered(
    http: Request, read: Callable[[Request, Hold], Awaitable[Said]], reply: Reply[Said]
) -> Response:
    """The reply to a body, which is counted and weighed."""

    async def metered_reply(meter: Meter) -> Response:
        response = await reply(await read(http, meter.hold))
        meter.end(response.status_code)
        return response

    return await metered(http, "sessions", metered_reply)


async def _read(model: type[Model], http: Request, hold: Hold) -> Model:
    return validate(model, await read_object(http, hold))


def _limit(http: Request) -> int:
    limit = http.query_params.get("limit", "50")
    if not (limit.isascii() and limit.isdecimal() and len(limit) < 4 and 0 < int(limit) <= _MOST):
        raise BadRequest(f"limit: Input should be from 1 to {_MOST}.", "limit")
    return int(limit)


def _listed(found: Found, running: Collection[str]) -> Listed:
    session = found.session
    return Listed(
        id=session.id,
        title=session.title,
        model=session.model,
        created=session.created,
        updated=session.updated,
        running=session.id in running,
        snippet=UNSET if found.snippet is None else found.snippet,
    )


def _file(content: bytes, media: str, title: str, ending: str) -> Response:
    name = quote(f"{title[:80] or 'conversation'}.{ending}", safe="")
    plain = f'filename="conversation.{ending}"'  # for who cannot read other alphabets
    headers = {"Content-Disposition": f"attachment; {plain}; filename*=UTF-8''{name}"}
    return Response(content, media_type=media, headers=headers)
