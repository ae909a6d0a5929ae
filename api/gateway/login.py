"""Who somebody is: a cookie for a browser that shows a key once, and links that open one.

A cookie is of no use to a page of another origin, and no script can read it.
"""

from typing import Annotated, Final, TypedDict

from fastapi import APIRouter, Request, Response
from pydantic import Field

from api.admission import COOKIE, Admission, shown_in
from api.body import WireModel, read_object, validate
from api.document import JSON, Operation, body_schema
from api.guard import address_of
from api.json_reply import JsonReply
from api.keys import called
from api.metrics import Meter
from api.sockets import Sockets
from api.store.logins import SECONDS, TOKEN_SECONDS, Logins
from api.streaming import metered

router = APIRouter()

LOGIN: Final = "/api/v1/login"


class LoginBody(WireModel):
    token: Annotated[str, Field(min_length=1, max_length=256)]


class Identity(TypedDict):
    name: str
    admin: bool


class Me(Identity):
    keys: bool


class Link(TypedDict):
    token: str
    path: str
    expires_in: int


def _takes() -> dict[str, object]:
    return body_schema(LoginBody, {})


OPERATIONS: Final = (
    Operation(
        LOGIN,
        "A cookie for a key or a one-time token",
        {200: {JSON: Identity}},
        (400, 401, 413, 429, 503),
        _takes,
        methods=("post",),
    ),
    Operation("/api/v1/logout", "End a cookie", {204: {}}, methods=("post",)),
    Operation("/api/v1/me", "Who asks", {200: {JSON: Me}}),
    Operation(
        "/api/v1/links",
        "A one-time token, and the address of the page that uses it",
        {200: {JSON: Link}},
        methods=("post",),
    ),
)


@router.post(LOGIN)
async def login(http: Request) -> Response:
    """Where no key is needed, there is nothing to log in to."""
    admission: Admission = http.app.state.admission
    logins: Logins = http.app.state.logins

    async def reply(meter: Meter) -> Response:
        said = validate(LoginBody, await read_object(http, meter.hold))
        if admission.required():
            key = admission.log_in(said.token.encode(), address_of(http.scope))
            answer = JsonReply(Identity(name=key.name, admin=key.admin))
            _set_cookie(http, answer, await logins.add(key.tenant), SECONDS)
        else:
            answer = JsonReply(Identity(name="", admin=True))
        meter.end(200)
        return answer

    return await metered(http, LOGIN, reply)


@router.post("/api/v1/logout")
async def logout(http: Request) -> Response:
    """Ends the connections as well that the cookie has opened."""
    logins: Logins = http.app.state.logins
    sockets: Sockets = http.app.state.sockets
    if cookie := shown_in(http.scope["onebox.headers"], None).cookie:
        await logins.remove(cookie)
        sockets.logged_out(cookie)
    answer = Response(status_code=204)
    _set_cookie(http, answer, "", 0)
    return answer


@router.get("/api/v1/me")
async def me(http: Request) -> Response:
    admission: Admission = http.app.state.admission
    name = called(http.state.tenant)
    return JsonReply(Me(name=name, admin=http.state.admin, keys=admission.required()))


@router.post("/api/v1/links")
async def link(http: Request) -> Response:
    logins: Logins = http.app.state.logins
    token = logins.tokens.add(http.state.tenant)
    return JsonReply(Link(token=token, path=f"/?token={token}", expires_in=TOKEN_SECONDS))


def _set_cookie(http: Request, answer: Response, value: str, seconds: int) -> None:
    """Where a browser says that it came over TLS, the cookie goes no other way."""
    answer.set_cookie(
        COOKIE,
        value,
        max_age=seconds,
        path="/",
        secure=http.headers.get("origin", "").startswith("https://"),
        httponly=True,
        samesite="strict",
    )
