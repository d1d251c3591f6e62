"""What one container is answered, from what `zone` made.

This runs in the resolver's process, which is to stay small: plain dictionaries as JSON has them, and no msgspec.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, NamedTuple

A, PTR, AAAA, SRV, ANY = 1, 12, 28, 33, 255  # RFC 1035, RFC 3596, RFC 2782
_FOUR, _SIX = ".in-addr.arpa", ".ip6.arpa"
_PROTOCOLS = ("_tcp", "_udp", "_sctp")

Json = dict[str, Any]


class Record(NamedTuple):
    """`name` "": the name that was asked for. `port` is of an SRV record alone."""

    kind: int
    value: str
    name: str = ""
    port: int = 0


class Answer(NamedTuple):
    """No records: the name exists but has none of this kind; not `exists`: NXDOMAIN. `extra` spares a question."""

    records: tuple[Record, ...] = ()
    extra: tuple[Record, ...] = ()
    exists: bool = True


class Asker(NamedTuple):
    """Who asks: its networks, the nameservers that it was given, whether others than us may be asked at all."""

    networks: tuple[str, ...]
    nameservers: tuple[str, ...] = ()
    outside: bool = True


class Book:
    """The zone as it was last handed over, section by section."""

    def __init__(self) -> None:
        self._networks: dict[str, Json] = {}
        self._askers: dict[str, Json] = {}
        self._subnets: list[tuple[Any, str]] = []

    def take(
        self, networks: dict[str, Json | None], askers: dict[str, Json] | None, keep: Iterable[str] | None
    ) -> None:
        """Networks that are new or other than before; `None` is gone, and so is what is not in `keep`."""
        kept = self._networks if keep is None else {k: self._networks[k] for k in keep if k in self._networks}
        merged = {**kept, **networks}
        self._networks = {key: merged[key] for key in sorted(merged) if merged[key] is not None}  # type: ignore[misc]
        self._subnets = [(ip_network(s), key) for key, n in self._networks.items() for s in n.get("subnets", ())]
        if askers is not None:
            self._askers = askers

    def asker(self, address: str) -> Asker | None:
        """Who has this address: a container of this host, somebody else in one of its networks, a stranger (`None`)."""
        known = self._askers.get(address)
        if known is not None:
            return Asker(tuple(known["networks"]), tuple(known.get("nameservers", ())), known.get("outside", True))
        networks = tuple(self._around(ip_address(address)))
        if not networks:
            return None
        return Asker(networks, outside=any(not self._networks[n].get("internal") for n in networks))

    def answer(self, asker: Asker, name: str, kind: int) -> Answer | None:
        """`None`: nothing is known of this name."""
        name = name.lower().removesuffix(".")
        if name.endswith((_FOUR, _SIX)):
            return self._reverse(asker, name, kind)
        for called, network_name in _readings(name):
            for network_id in asker.networks:
                section = self._networks.get(network_id)
                if section is None or (network_name and section["name"].lower() != network_name):
                    continue
                found = _in(section, called, kind)
                if found is not None:
                    return found
        return None

    def _around(self, address: IPv4Address | IPv6Address) -> Iterator[str]:
        return (key for subnet, key in self._subnets if address in subnet)

    def _reverse(self, asker: Asker, name: str, kind: int) -> Answer | None:
        address = _address(name)
        if address is None:
            return None
        for network_id in asker.networks:
            section = self._networks.get(network_id, {})
            owner = section.get("owners", {}).get(str(address))
            if owner is not None:
                return Answer((Record(PTR, f"{owner}.{section['name']}"),) if kind in (PTR, ANY) else ())
        # nobody upstream knows our addresses
        return Answer(exists=False) if next(self._around(address), None) is not None else None


def _readings(name: str) -> Iterator[tuple[str, str]]:
    """`a.b.c` is that name anywhere, `a.b` in network c, or `a` in network b.c."""
    yield name, ""
    at = name.rfind(".")
    while at > 0:
        yield name[:at], name[at + 1 :]
        at = name.rfind(".", 0, at)


def _in(section: Json, name: str, kind: int) -> Answer | None:
    names = section.get("names", {})
    addresses = names.get(name)
    if addresses is not None:
        return Answer(tuple(r for r in map(_record, addresses) if kind in (r.kind, ANY)))
    label, _, owner = name.partition("._")
    protocol, _, owner = owner.partition(".")
    if not label.startswith("_") or f"_{protocol}" not in _PROTOCOLS or owner not in names:
        return None
    offered = section.get("ports", {}).get(name)
    if offered is None:
        return Answer(exists=False)
    if kind not in (SRV, ANY):
        return Answer()
    records = tuple(Record(SRV, target, port=port) for port, target, _ in offered)
    extra = {_record(address, target): None for _, target, addresses in offered for address in addresses}
    return Answer(records, tuple(extra))


def _record(address: str, name: str = "") -> Record:
    return Record(AAAA if ":" in address else A, address, name)


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        if name.endswith(_FOUR):
            return IPv4Address(".".join(reversed(name.removesuffix(_FOUR).split("."))))
        digits = "".join(reversed(name.removesuffix(_SIX).split(".")))
        return IPv6Address(int(digits, 16)) if len(digits) == 32 else None
    except ValueError:
        return None
