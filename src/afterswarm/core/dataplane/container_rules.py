"""The rules in the namespace of a container: the virtual addresses of every service in its networks.

A chain for each address chooses among the tasks, in turn; targets on silent hosts are left out before they come here
(`targets`), since beats are not heard in there. `container` makes a `Ruleset` (`ruleset.py`), one table of the family
`inet`; whatever is of one family of addresses is made by the functions that take a `Family`, for each of `families`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import AddressValueError, IPv4Address
from typing import NamedTuple
from zlib import crc32

import msgspec

from afterswarm.core.dataplane import family as of
from afterswarm.core.dataplane.family import BOTH, IPV4, Family
from afterswarm.core.dataplane.ruleset import Part, Ruleset, chain, collection
from afterswarm.core.dataplane.targets import choose, rotate
from afterswarm.core.families import twin
from afterswarm.model.network import Network
from afterswarm.model.session import Route

_STARTS = 8
_NAT = "type nat hook {} priority {}; policy accept"


class Names(msgspec.Struct, frozen=True):
    """For a container that asks other nameservers: the gateway where ours listens, and the address to ask it from."""

    gateway: str
    address: str
    servers: tuple[str, ...]


class Place(NamedTuple):
    """What the choice among a service's tasks depends on, besides the service."""

    networks: tuple[str, ...]
    families: tuple[Family, ...]
    silent: frozenset[str]
    start: int  # containers that open one connection each should not all meet the first task


Memo = dict[Place, dict[str, Part]]  # by service


def container(
    *,
    task_id: str,
    attached: Mapping[str, str],
    networks: Iterable[Network],
    routes: Iterable[Route],
    silent: Collection[str] = (),
    source: str = "",
    names: Names | None = None,
    source6: str = "",
    memo: Memo | None = None,
) -> Ruleset:
    """Every service's address in the networks of one task's container.

    `attached` are its addresses by network id. Nobody asks for virtual addresses in the ingress network. `source` and
    `source6` are what it speaks from to everybody else: a server of datagrams that listens on all its addresses would
    answer from that one, so published datagrams are brought there, and answers are known by it. A container that was
    made for other networks asks the nameservers of these; `names` leads such questions to us. What is in `memo` is not
    made again: most of it is the same for all containers of a host.
    """
    networks = list(networks)
    families = [f for f in BOTH if f is IPV4 or any(of.subnet(n, f) for n in networks if n.id in attached)]
    mine = sorted(n.id for n in networks if n.id in attached and not n.spec.ingress)
    place = Place(tuple(mine), tuple(families), frozenset(silent), crc32(task_id.encode()) % _STARTS)
    made = memo.get(place, {}) if memo else {}
    parts: dict[str, Part] = {}
    for route in sorted(routes, key=lambda r: r.service_id):
        if route.mode == "vip" and any(network_id in route.vips for network_id in mine):
            old = made.get(route.service_id)
            parts[route.service_id] = old if old is not None and old.source == route else _part(route, place)
    if memo is not None:
        memo[place] = parts
    shape = [
        # Every first packet is of `ct state new`. To ask for it has the kernel track connections, which it else does
        # only if some rule translates an address; and chains of type nat are asked about tracked connections only.
        chain("refuse", "ct state new meta l4proto tcp reject with tcp reset", "reject"),
        *(collection(f"vips{f.suffix}", f"type {f.kind} : verdict", kind="map") for f in families),
        chain(
            "output",
            _NAT.format("output", -110),
            *(f"{f.word} daddr vmap @vips{f.suffix}" for f in families),
            *_asked(names),
        ),
        *_answered(names),
    ]
    entered = [(attached[n.id], twin(n, attached[n.id])) for n in networks if n.id in attached and n.spec.ingress]
    if source or source6:
        answered = [
            f"{f.word} daddr {address} meta l4proto udp dnat {f.word} to {speaks}"
            for f, speaks, addresses in zip(BOTH, (source, source6), zip(*entered, strict=True), strict=False)
            for address in addresses
            if speaks and address not in ("", speaks)
        ]
        shape.append(chain("prerouting", _NAT.format("prerouting", -110), *answered))
    return Ruleset(shape="".join(shape), parts=parts)


def _part(route: Route, place: Place) -> Part:
    elements: dict[str, dict[str, str]] = {}
    chains: dict[str, Sequence[str]] = {}
    for network_id in place.networks:
        for family in place.families:
            if vip := of.virtual(route, network_id, family):
                chosen = rotate(choose(route.targets, network_id, place.silent), str(place.start))
                ends = [a for t in chosen if (a := of.address(t, network_id, family))]
                verdict, chain_of_it = _virtual(vip, ends, family)
                elements.setdefault(f"vips{family.suffix}", {})[vip] = verdict
                chains |= chain_of_it
    return Part(elements=elements, chains=chains, source=route)


def _virtual(vip: str, ends: Sequence[str], family: Family) -> tuple[str, dict[str, Sequence[str]]]:
    """Round robin; without any task a refusal at once, rather than a client that waits."""
    if not ends:
        return "goto refuse", {}
    name = "vip_" + vip.replace(".", "_").replace(":", "_")
    ring = ", ".join(f"{i} : {address}" for i, address in enumerate(ends))
    rule = f"dnat {family.word} to numgen inc mod {len(ends)} map {{ {ring} }}"
    return f"goto {name}", {name: [rule]}


def _asked(names: Names | None) -> list[str]:
    servers = [] if names is None else [s for s in names.servers if not _loopback(s)]
    if names is None or not servers:
        return []
    ring = f"ip daddr {{ {', '.join(sorted(set(servers), key=IPv4Address))} }}"
    return [f"{ring} meta l4proto {{ tcp, udp }} th dport 53 dnat ip to {names.gateway}"]


def _answered(names: Names | None) -> list[str]:
    """The source was chosen for the way to the other nameserver; ours knows its askers by their address."""
    if names is None or not _asked(names):
        return []
    back = f"ip daddr {names.gateway} ip saddr != {names.address} meta l4proto {{ tcp, udp }} th dport 53"
    return [chain("postrouting", _NAT.format("postrouting", 90), f"{back} snat ip to {names.address}")]


def _loopback(server: str) -> bool:
    """Also what is no IPv4 address: the engine asks such servers itself."""
    try:
        return IPv4Address(server).is_loopback
    except AddressValueError:
        return True
