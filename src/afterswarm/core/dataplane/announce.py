"""The frames by which a host tells its network that an address is here now: gratuitous ARP, unsolicited NA.

Format: RFC 826 and 5227 (a request and an answer, since hosts differ in which they believe); RFC 4861, section 7.2.6.
"""

from __future__ import annotations

import struct
from ipaddress import IPv6Address, ip_address

_EVERYBODY = b"\xff" * 6
_ARP, _IPV6 = 0x0806, 0x86DD
_ALL_NODES = IPv6Address("ff02::1")
_ICMPV6, _ADVERTISEMENT, _OVERRIDE, _LINK_ADDRESS = 58, 136, 0x20000000, 2


def frames(address: str, mac: bytes) -> list[bytes]:
    """Whole Ethernet frames, from the interface with this MAC address."""
    found = ip_address(address)
    if isinstance(found, IPv6Address):
        return [_advertisement(found, mac)]
    head = _EVERYBODY + mac + struct.pack("!HHHBB", _ARP, 1, 0x0800, 6, 4)
    request = head + struct.pack("!H", 1) + mac + found.packed + bytes(6) + found.packed
    answer = head + struct.pack("!H", 2) + mac + found.packed + _EVERYBODY + found.packed
    return [request, answer]


def _advertisement(address: IPv6Address, mac: bytes) -> bytes:
    body = struct.pack("!I", _OVERRIDE) + address.packed + struct.pack("!BB", _LINK_ADDRESS, 1) + mac
    ends = address.packed + _ALL_NODES.packed
    length = 4 + len(body)
    summed = _checksum(ends + struct.pack("!II", length, _ICMPV6) + struct.pack("!BBH", _ADVERTISEMENT, 0, 0) + body)
    head = struct.pack("!IHBB", 6 << 28, length, _ICMPV6, 255) + ends
    to = b"\x33\x33" + _ALL_NODES.packed[-4:]
    return to + mac + struct.pack("!H", _IPV6) + head + struct.pack("!BBH", _ADVERTISEMENT, 0, summed) + body


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
