"""A hub leads only where it may, and what was checked is what is connected to; no network."""

import socket
from collections.abc import Callable, Iterator

import httpx2
import pytest

from inference.errors import DownloadError
from inference.hub_client import Guard, Hub

PUBLIC = "93.184.216.34"
NAMES = {
    "hub.example": [PUBLIC],
    "cdn.example": [PUBLIC],
    "two.example": ["2606:4700::1111", PUBLIC],
    "trap.example": [PUBLIC, "127.0.0.1"],
    "rooms.example": ["10.0.0.1"],
    "mirror.internal": ["10.1.1.1"],
    "tunnel.example": ["198.18.0.5"],
    "localhost": ["127.0.0.1"],
}


class Resolver:
    """Knows `names`, and real literals; `asked` are the names that it had to look up.

    Whoever asks again after that is told `then`.
    """

    def __init__(self) -> None:
        self.names = dict(NAMES)
        self.then: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self._real = socket.getaddrinfo

    def __call__(self, host: bytes, port: int | None, **options: int) -> list[tuple[object, ...]]:
        name = host.decode()
        if name not in self.names or options["flags"]:
            return [*self._real(host, port, **(options | {"flags": socket.AI_NUMERICHOST}))]
        self.asked.append(name)
        addresses = self.names[name]
        self.names |= self.then
        return [(0, 0, 0, "", (address, port)) for address in addresses]


class Door(httpx2.BaseTransport):
    """Connects to nothing: remembers what it was asked, and answers with `redirects` by path."""

    def __init__(self) -> None:
        self.requests: list[httpx2.Request] = []
        self.proxies: list[str | None] = []
        self.redirects: dict[str, str] = {}
        self.dead: set[str] = set()

    def __call__(self, proxy: str | None) -> "Door":
        self.proxies.append(proxy)
        return self

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        if request.url.host in self.dead:
            raise httpx2.ConnectError("refused")
        if target := self.redirects.get(request.url.path):
            return httpx2.Response(302, headers={"Location": target, "X-Xet-Hash": "1"})
        return httpx2.Response(200)

    @property
    def hosts(self) -> list[str]:
        return [request.url.host for request in self.requests]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    return resolver


@pytest.fixture
def door(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> Door:
    for scheme in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)
    return Door()


@pytest.fixture
def ask(door: Door) -> Iterator[Callable[..., httpx2.Response]]:
    """GETs a URL, led there by a public hub or by one that the operator `chose`."""

    def ask(url: str, chose: str | None = None, **headers: str) -> httpx2.Response:
        guard = Guard(Hub(chose or "https://hub.example"), door)
        with httpx2.Client(transport=guard, follow_redirects=True) as client:
            return client.get(url, headers=headers)

    yield ask


@pytest.mark.parametrize(
    "host",
    [
        *("0.0.0.0", "[::]", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254"),
        *("10.0.0.1", "192.168.1.1", "100.64.0.1", "[fd00::1]", "224.0.0.1"),
        *("2130706433", "0x7f.1", "127.1", "017700000001", "ok\\@127.0.0.1"),
        *("localhost", "rooms.example", "trap.example"),
    ],
)
def test_a_public_hub_leads_to_public_addresses_only(ask, door: Door, host: str) -> None:
    with pytest.raises(DownloadError, match="nothing was fetched"):
        ask(f"https://{host}/weights")
    door.redirects["/weights"] = f"https://{host}/"
    with pytest.raises(DownloadError, match="nothing was fetched"):
        ask("https://hub.example/weights")
    assert door.hosts == [PUBLIC]


@pytest.mark.parametrize(
    ("chose", "url", "allowed"),
    [
        ("https://mirror.internal", "https://mirror.internal", True),
        ("https://mirror.internal", "https://rooms.example", True),
        ("https://mirror.internal", "https://cdn.example", True),
        ("https://mirror.internal", "https://localhost", False),
        ("https://mirror.internal", "https://169.254.169.254", False),
        ("https://mirror.internal", "http://rooms.example", False),
        ("http://127.0.0.1:80", "http://localhost", True),
        ("http://127.0.0.1:80", "http://10.0.0.1", True),
        ("http://127.0.0.1:80", "https://cdn.example", True),
        ("http://127.0.0.1:80", "http://100.100.100.200", False),
        ("https://cdn.example", "https://rooms.example", False),
        ("https://trap.example", "https://localhost", False),
        ("https://trap.example", "https://trap.example", True),
        ("https://tunnel.example", "https://tunnel.example", True),
        ("https://tunnel.example", "https://198.18.0.6", True),
        ("http://0.0.0.0", "http://0.0.0.0", False),
        ("http://0.0.0.0", "http://127.0.0.1", False),
    ],
)
def test_a_hub_that_was_chosen_leads_nowhere_more_private(
    ask, door: Door, chose: str, url: str, allowed: bool
) -> None:
    if allowed:
        assert ask(url, chose).status_code == 200
    else:
        with pytest.raises(DownloadError):
            ask(url, chose)
    assert len(door.requests) == allowed


def test_what_was_checked_is_what_is_connected_to(ask, door: Door, resolver: Resolver) -> None:
    resolver.then = {"hub.example": ["127.0.0.1"]}
    assert ask("https://hub.example:444/a%2Fb?c=%20").url == "https://hub.example:444/a%2Fb?c=%20"
    assert resolver.asked == ["hub.example"]
    [request] = door.requests
    assert request.url == f"https://{PUBLIC}:444/a%2Fb?c=%20"
    assert request.headers["Host"] == "hub.example:444"
    assert request.extensions["sni_hostname"] == "hub.example"


def test_a_chosen_hub_that_becomes_private_is_refused(door: Door, resolver: Resolver) -> None:
    guard = Guard(Hub("https://cdn.example"), door)
    with httpx2.Client(transport=guard) as client:
        client.get("https://cdn.example")
        resolver.names["cdn.example"] = ["127.0.0.1"]
        with pytest.raises(DownloadError, match="loopback"):
            client.get("https://cdn.example")


def test_the_next_address_is_tried(ask, door: Door) -> None:
    door.dead = {"2606:4700::1111"}
    assert ask("https://two.example/").status_code == 200
    assert door.hosts == ["2606:4700::1111", PUBLIC]
    door.dead |= {PUBLIC}
    with pytest.raises(httpx2.ConnectError):
        ask("https://two.example/")


def test_a_name_that_nobody_knows_cannot_be_reached(ask) -> None:
    with pytest.raises(httpx2.ConnectError, match="not known"):
        ask("https://unknown.invalid/")


@pytest.mark.parametrize(
    ("chose", "redirects", "end"),
    [
        ("http://cdn.example", {"/1": "https://cdn.example/2"}, "/2"),
        ("http://cdn.example", {"/1": "http://hub.example/2", "/2": "/3"}, "/3"),
        ("http://cdn.example", {"/1": "https://cdn.example/2", "/2": "http://cdn.example/3"}, None),
        ("https://cdn.example", {"/1": "http://cdn.example/2"}, None),
        ("http://cdn.example", {"/1": "https://cdn.example/2", "/2": "http:///3"}, None),
    ],
)
def test_no_way_leads_back_from_https(
    ask, door: Door, chose: str, redirects: dict[str, str], end: str | None
) -> None:
    door.redirects = redirects
    if end:
        assert ask(f"{chose}/1", chose).url.path == end
    else:
        with pytest.raises((DownloadError, httpx2.InvalidURL), match=r"not https|no host"):
            ask(f"{chose}/1", chose)


def test_three_redirects_are_followed_and_no_more(ask, door: Door) -> None:
    door.redirects = {"/1": "/2", "/2": "https://cdn.example/3", "/3": "/4"}
    assert ask("https://hub.example/1").url == "https://cdn.example/4"
    door.redirects["/4"] = "/5"
    with pytest.raises(httpx2.TooManyRedirects):
        ask("https://hub.example/1")


def test_who_begins_anew_has_three_redirects_again(door: Door) -> None:
    door.redirects = {"/1": "/2#a", "/2": "/3", "/3": "/4", "/4": "/5"}
    guard = Guard(Hub("https://hub.example"), door)
    with httpx2.Client(transport=guard, follow_redirects=True) as client:
        assert client.get("https://hub.example/2").url.path == "/5"
        with pytest.raises(httpx2.TooManyRedirects):
            client.get("https://hub.example/1")
        assert client.get("https://hub.example/2").url.path == "/5"
        door.redirects["/6"] = "/6"
        with pytest.raises(httpx2.TooManyRedirects):
            client.get("https://hub.example/6")
        door.redirects.clear()
        assert client.get("https://hub.example/6").status_code == 200


@pytest.mark.parametrize(
    ("target", "kept"), [("https://cdn.example/2", False), ("https://hub.example/2", True)]
)
def test_a_token_stays_with_the_name_and_not_with_the_address(
    ask, door: Door, target: str, kept: bool
) -> None:
    door.redirects["/1"] = target
    ask("https://hub.example/1", authorization="Bearer secret")
    first, second = door.requests
    assert first.url.host == second.url.host
    assert "Authorization" in first.headers
    assert ("Authorization" in second.headers) == kept


def test_nothing_is_left_that_leads_to_xet(ask, door: Door) -> None:
    door.redirects["/1"] = "/2"
    [first] = ask("https://hub.example/1").history
    assert "Location" in first.headers and "X-Xet-Hash" not in first.headers


def test_a_proxy_resolves_names_and_is_asked_for_nothing_private(
    ask, door: Door, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "proxy.example:3128")
    monkeypatch.setenv("no_proxy", "two.example")
    ask("https://rooms.example/")
    assert (door.proxies, door.hosts) == (["http://proxy.example:3128"], ["rooms.example"])
    for host in ("127.0.0.1", "2130706433", "[::1]", "10.0.0.1"):
        with pytest.raises(DownloadError):
            ask(f"https://{host}/")
    assert resolver.asked == []
    ask("https://two.example/")
    assert (door.proxies[-1], resolver.asked) == (None, ["two.example"])
