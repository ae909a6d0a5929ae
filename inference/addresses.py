"""How private an IP address is. It resolves no names, and does not know who asks."""

from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network


class Privacy(IntEnum):
    """Who can reach an address: everyone, some network, this machine alone."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2


_PRIVATE = [
    ip_network(network)
    for network in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "198.18.0.0/15",  # for measurements; VPN clients give these to names that they redirect
        "fc00::/7",
    )
]
_METADATA = {  # of clouds, where they are not link-local: who reads them has the machine's rights
    ip_address(address)
    for address in (
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd20:ce::254",
    )
}
_UNICAST = ip_network("2000::/3")
_NAT64 = ip_network("64:ff9b::/96")


def privacy(address: str) -> Privacy | None:
    """None for what no peer should name: link-local, metadata, unspecified, multicast, reserved.

    An IPv6 address that carries an IPv4 address is judged by that.
    """
    ip = _carried(ip_address(address))
    if ip in _METADATA or ip.is_multicast:
        return None
    if ip.is_loopback:
        return Privacy.LOOPBACK
    if any(ip in network for network in _PRIVATE):
        return Privacy.PRIVATE
    public = ip.is_global and (ip.version == 4 or ip in _UNICAST)
    return Privacy.PUBLIC if public else None


def _carried(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(ip, IPv4Address):
        return ip
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip
