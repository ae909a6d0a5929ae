"""The HTTP client of a pull: where a hub may lead, and connections to just what was checked.

A hub redirects to other servers, so whoever answers for it could have this machine ask its own
services, its network or its cloud's metadata. Every request passes a `Guard`, redirects as well.
This module does not know what is asked, nor what becomes of the answers.
"""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from urllib.parse import urljoin
from urllib.request import getproxies, proxy_bypass

import httpx2
from huggingface_hub import constants, get_session, set_client_factory

from inference.addresses import Privacy, privacy
from inference.errors import DownloadError

MAX_REDIRECTS = 3
_INSTALLING = threading.Lock()


def endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")


def install() -> None:
    """From now on the hub's client goes through a `Guard`, everywhere in this process."""
    with _INSTALLING:
        _install(endpoint())


@lru_cache(maxsize=1)  # to install again would end the downloads of other threads
def _install(url: str) -> None:
    hub = Hub(url)
    hooks = get_session().event_hooks  # they know HF_HUB_OFFLINE, and name each request
    set_client_factory(
        lambda: httpx2.Client(
            transport=Guard(hub),
            event_hooks=hooks,
            follow_redirects=True,
            max_redirects=MAX_REDIRECTS,
            timeout=None,
        )
    )


class Hub:
    """Where pulls begin. It may have addresses of any privacy, and lead to the least of those.

    What it has is what it had first: a name that becomes private later must not open the network.
    """

    def __init__(self, url: str) -> None:
        self.url = httpx2.URL(url)
        self._own: list[Privacy] = []

    def allows(self, url: httpx2.URL, addresses: list[str]) -> Privacy:
        """How private a server at `url` may be, which is at these addresses."""
        here = url.host == self.url.host
        if not self._own:
            own = addresses if here else _addresses(self.url, literal=_proxy(self.url) is not None)
            self._own = [found for address in own if (found := privacy(address)) is not None]
        return (max if here else min)(self._own, default=Privacy.PUBLIC)


def _open(proxy: str | None) -> httpx2.BaseTransport:
    # A connection that is kept is found by its address; two names may share one, but not its TLS.
    return httpx2.HTTPTransport(proxy=proxy, limits=httpx2.Limits(max_keepalive_connections=0))


class Guard(httpx2.BaseTransport):
    """Resolves a name once, refuses what `hub` may not lead to, and connects to what it checked.

    A proxy resolves by itself; then scheme and literal addresses are checked, and no names.
    `open_door` makes what connects: directly, or through the proxy that it is given.
    """

    def __init__(
        self, hub: Hub, open_door: Callable[[str | None], httpx2.BaseTransport] = _open
    ) -> None:
        self._hub = hub
        self._open_door = open_door
        self._doors: dict[str | None, httpx2.BaseTransport] = {}
        self._trail = _Trail()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        url, proxy = request.url, _proxy(request.url)
        self._trail.come_to(url)
        self._check_scheme(url)
        addresses = _addresses(url, literal=proxy is not None)
        self._check(url, addresses)
        if proxy is None:
            response = self._connect(request, addresses)
        else:
            response = self._door(proxy).handle_request(request)
        self._trail.leave(url, response)
        # Xet connects by itself, past all this; without this header nobody thinks of it.
        response.headers.pop(constants.HUGGINGFACE_HEADER_X_XET_HASH, None)
        return response

    def close(self) -> None:
        for door in self._doors.values():
            door.close()

    def _door(self, proxy: str | None) -> httpx2.BaseTransport:
        if proxy not in self._doors:
            self._doors[proxy] = self._open_door(proxy)
        return self._doors[proxy]

    def _check_scheme(self, url: httpx2.URL) -> None:
        plain = url.scheme == "http" and self._hub.url.scheme == "http" and not self._trail.secure
        if url.scheme != "https" and not plain:
            raise self._refusal(url, "which is not https")

    def _check(self, url: httpx2.URL, addresses: list[str]) -> None:
        allowed = self._hub.allows(url, addresses)
        for address in addresses:
            found = privacy(address)
            if found is None:
                raise self._refusal(url, f"but no hub may lead to the address {address}")
            if found > allowed:
                raise self._refusal(url, f"whose address {address} is {found.name.lower()}")

    def _refusal(self, url: httpx2.URL, reason: str) -> DownloadError:
        return DownloadError(
            f"{self._hub.url} leads to {url.scheme}://{url.host}, {reason}; nothing was fetched "
            "from there. Is HF_ENDPOINT right? A mirror of your own must be named in it."
        )

    def _connect(self, request: httpx2.Request, addresses: list[str]) -> httpx2.Response:
        *others, last = addresses
        for address in others:
            with suppress(httpx2.ConnectError, httpx2.ConnectTimeout):
                return self._door(None).handle_request(_pinned(request, address))
        return self._door(None).handle_request(_pinned(request, last))


class _Trail(threading.local):
    """The redirects that this thread follows.

    They are counted here because the hub's client follows some by itself, 20 of them.
    """

    leads_to: httpx2.URL | None = None
    redirects = 0
    secure = False
    """Some of it was https, and so must be the rest."""

    def come_to(self, url: httpx2.URL) -> None:
        followed = url.copy_with(fragment=None) == self.leads_to
        self.redirects = self.redirects + 1 if followed else 0
        self.secure = self.secure and followed
        if self.redirects > MAX_REDIRECTS:
            self.leads_to = None
            raise httpx2.TooManyRedirects(f"more than {MAX_REDIRECTS} redirects")

    def leave(self, url: httpx2.URL, response: httpx2.Response) -> None:
        self.secure = self.secure or url.scheme == "https"
        self.leads_to = None
        if response.has_redirect_location:
            try:
                target = httpx2.URL(urljoin(str(url), response.headers["Location"]))
                if not target.host:
                    raise ValueError("it names no host")
                self.leads_to = target.copy_with(fragment=None)
            except (httpx2.InvalidURL, ValueError) as error:
                response.close()
                raise httpx2.InvalidURL(f"its redirect is no address: {error}") from error


def _pinned(request: httpx2.Request, address: str) -> httpx2.Request:
    """`request` to `address`, with the name where the server and its certificate need it."""
    return httpx2.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.raw_host.decode()},
    )


def _addresses(url: httpx2.URL, *, literal: bool) -> list[str]:
    """Where `url` is; with `literal`, only if it says so itself, in whatever notation."""
    flags = socket.AI_NUMERICHOST if literal else 0
    try:
        found = socket.getaddrinfo(url.raw_host, url.port, type=socket.SOCK_STREAM, flags=flags)
    except socket.gaierror as error:
        if literal:
            return []
        raise httpx2.ConnectError(str(error)) from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _proxy(url: httpx2.URL) -> str | None:
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(url.host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
