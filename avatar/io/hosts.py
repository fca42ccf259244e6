"""Names and addresses of hosts, as servers that check who calls read them."""

from __future__ import annotations

import ipaddress
import re

# A Host header in lower case: an IPv6 address in brackets or a name, and a port.
HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9_.-]+))(?::(?P<port>[0-9]{1,5}))?")


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read an address; None for a name."""
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    address = address_of(host)
    return host.lower() == "localhost" if address is None else address.is_loopback
