"""IPv6 of a host: whether its kernel has it, its addresses, and forwarding."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address
from pathlib import Path

from afterswarm.core.dataplane.vxlan import Link

_ADDRESSES = Path("/proc/net/if_inet6")
_CONF = Path("/proc/sys/net/ipv6/conf")
EVERYWHERE = "fe80::1"  # an engine gives it to each bridge, and looks for it there when it starts
_GLOBAL = "00"  # scope
_OTHERS = ("lo", "docker", "br-", "asw", "asx", "veth")  # not what a host is dialled at, or speaks from


def own() -> list[str] | None:
    """The host's global addresses; `None`: there is no IPv6, or it was turned off."""
    try:
        if (_CONF / "all" / "disable_ipv6").read_text().strip() == "1":
            return None
    except FileNotFoundError:
        return None
    return sorted(a for name, scope, a in _addresses() if scope == _GLOBAL and not name.startswith(_OTHERS))


def of(interface: str) -> set[str]:
    return {address for name, _, address in _addresses() if name == interface}


def trust(link: Link) -> None:
    """Our addresses are unique as they are: a gateway need not wait for a second until it may be used."""
    if link.ipv6:
        (_CONF / link.bridge / "accept_dad").write_text("0")


def forward() -> bool:
    """Whether the host did not yet. One that forwards listens to routers only if it is told to: who did goes on."""
    forwarding = _CONF / "all" / "forwarding"
    if forwarding.read_text().strip() == "1":
        return False
    for setting in _CONF.glob("*/accept_ra"):
        if setting.parent.name not in ("all", "default") and setting.read_text().strip() == "1":
            setting.write_text("2")
    forwarding.write_text("1")
    return True


def _addresses() -> Iterator[tuple[str, str, str]]:
    """Interface, scope, address."""
    try:
        lines = _ADDRESSES.read_text().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        packed, _index, _prefix, scope, _flags, name = line.split()
        yield name, scope, str(IPv6Address(bytes.fromhex(packed)))
