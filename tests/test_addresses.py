"""How private an address is, by what it is and not by how it is written."""

import pytest

from inference.addresses import Privacy, privacy

PUBLIC, PRIVATE, LOOPBACK = Privacy


@pytest.mark.parametrize(
    ("expected", "addresses"),
    [
        (PUBLIC, "1.1.1.1 93.184.216.34 172.32.0.1 100.128.0.1 2606:4700::1111"),
        (PUBLIC, "::ffff:1.1.1.1 2002:101:101:: 64:ff9b::101:101"),
        (PRIVATE, "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 198.18.0.5 fd00::1"),
        (PRIVATE, "::ffff:10.0.0.1 2002:a00:1:: 64:ff9b::a00:1"),
        (LOOPBACK, "127.0.0.1 127.255.255.254 ::1"),
        (LOOPBACK, "::ffff:127.0.0.1 ::ffff:7f00:1 2002:7f00:1:: 64:ff9b::7f00:1"),
        (None, "169.254.169.254 fe80::1 fe80::1%lo ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe"),
        (None, "100.100.100.200 168.63.129.16 fd00:ec2::254 fd20:ce::254 192.0.0.192"),
        (None, "0.0.0.0 0.0.0.1 :: ::ffff:0.0.0.0 224.0.0.1 ff02::1 240.0.0.1 255.255.255.255"),
        (None, "192.0.2.1 2001:db8::1 2001::1 64:ff9b:1::1 ::127.0.0.1 fec0::1 100::1 4000::1"),
    ],
)
def test_privacy(expected: Privacy | None, addresses: str) -> None:
    found = {address: privacy(address) for address in addresses.split()}
    assert found == dict.fromkeys(addresses.split(), expected)
