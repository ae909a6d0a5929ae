"""From where requests may come: the names of this server, and the pages that may use it.

Loopback is no border. A page of any site can point its own name at 127.0.0.1 (then `Host` gives it
away) or send a request from the user's browser (then `Origin` or `Sec-Fetch-Site` does). Names
are compared whole, never by how they begin or end.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from api.errors import ForeignOrigin, WrongHost
from api.keys import KeyFile
from inference import Config, ConfigError

LOOPBACK: Final = frozenset({"127.0.0.1", "[::1]", "localhost"})
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
_NOT_CROSS_SITE: Final = ("none", "same-origin", "same-site")


@dataclass(frozen=True, slots=True)
class Reach:
    """The hosts and origins that are known. `any_address`: and every host that is an IP address.

    No name of somebody else's leads to an address, so where a server listens on all of them, and
    behind a port forwarding cannot even know them, addresses are safe to believe.
    """

    hosts: frozenset[str] = LOOPBACK
    origins: frozenset[str] = frozenset()
    any_address: bool = False

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Raises `WrongHost` and `ForeignOrigin`."""
        host = headers.get(b"host", b"").lower().decode("latin-1")
        shaped = _HOST.fullmatch(host)
        if not shaped or not self._knows(shaped[1]):
            raise WrongHost(
                "This server does not go by the name in the Host header; "
                "server.allowed_hosts in models.yaml can give it further names."
            )
        origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site")
        if not self._trusts(origin, site, host):
            raise ForeignOrigin(
                "Requests of other sites' pages are refused; "
                "server.allowed_origins in models.yaml can allow a site."
            )

    def _knows(self, name: str) -> bool:
        return name in self.hosts or (self.any_address and _is_address(name))

    def _trusts(self, origin: bytes | None, site: bytes | None, host: str) -> bool:
        page = None if origin is None else origin.decode("latin-1")
        if page in self.origins:
            return True
        if site is not None and site.decode("latin-1") not in _NOT_CROSS_SITE:
            return False
        # A proxy may speak TLS for us, so the scheme says nothing.
        return page is None or page in (f"http://{host}", f"https://{host}")


def is_own_page(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a page of this very server asks, or no page: a browser's user, a program.

    Other ports of a host are the same site, for which browsers add cookies.
    """
    host, origin = headers.get(b"host", b"").lower(), headers.get(b"origin")
    site = headers.get(b"sec-fetch-site", b"none")
    ours = (None, b"http://" + host, b"https://" + host)
    return site in (b"none", b"same-origin") and origin in ours


def _is_address(name: str) -> bool:
    bare = name.removeprefix("[").removesuffix("]")
    try:
        address = ip_address(bare)
    except ValueError:
        return False
    mapped = address.version == 6 and address.ipv4_mapped
    odd = address.is_unspecified or address.is_multicast or mapped
    return not odd and (address.version == 6) == (bare != name)


def reach_of(config: Config, host: str, address: str) -> Reach:
    """What a server is reached by that was told to listen on `host`, which is `address`."""
    ip = ip_address(address.partition("%")[0])
    names = {host.lower(), f"[{ip.compressed}]" if ip.version == 6 else ip.compressed}
    return Reach(
        hosts=LOOPBACK
        | {name.lower() for name in config.server.allowed_hosts}
        | (frozenset() if ip.is_unspecified else names),
        origins=frozenset(config.server.allowed_origins),
        any_address=ip.is_unspecified,
    )


def is_open_door(address: str, keys: KeyFile) -> bool:
    """Whether whoever reaches `address` over a network could use a server there without a key."""
    return not ip_address(address.partition("%")[0]).is_loopback and not keys.required()


def refuse_open_door(host: str, address: str, keys: KeyFile) -> None:
    """Raises ConfigError with the way out."""
    if is_open_door(address, keys):
        raise ConfigError(
            f"{host} can be reached over the network and there is no API key yet: add one with "
            "`onebox keys add NAME`, or listen on 127.0.0.1, or pass --insecure-no-auth."
        )
