"""How a host chooses among the tasks of a published port: a few rules for all, and maps with an element for each task.

    published   protocol . port        -> chain by the number of endpoints, pick_3_17: slot 0, 1 or 2, in turn
    slots       protocol . port . slot -> mark: our tag, the endpoint's host, the slot
    endpoints   protocol . port . mark -> address . port

A packet's mark carries the choice through the chains, and is empty again before the packet is routed on. `try` takes
what the mark says if its host is this one or among the `alive`: those whose beats have come within `ALIVE`, which
packets of theirs keep there, without any program of ours. Else `again_3` tries others by chance, then all in order,
and in the end any: to be wrong about who is alive may cost a second, never a connection.

Rules count for all ports that lead to them, and two ports whose connections come in turn must not each get the same
half of their endpoints: so there are several chains (`_COUNTERS`) for each number, chosen by port.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from zlib import crc32

import msgspec

from afterswarm.core.dataplane.family import IPV6, Family, address
from afterswarm.core.dataplane.ruleset import Part, chain, collection
from afterswarm.core.dataplane.targets import choose, rotate
from afterswarm.model.session import Route

ALIVE = 350  # milliseconds without a beat; they come ten times a second
TAG, TAGGED = 0xA0000000, 0xF0000000
HOST, SLOT = 0x0FFFC000, 0x00003FFF  # bits of a mark: the host's place in the ingress network, the slot
OWN = TAG | HOST  # this host, and whoever is not known to be another
_SHIFT = 14
_MOST_HOSTS, MOST = HOST >> _SHIFT, SLOT + 1
_COUNTERS = 32
_TRIES = 7  # by chance; with two of three hosts dead, 4 % of connections then take the first in order
_IN_ORDER = 32

Port = tuple[str, int]  # protocol, number


class Hosts(msgspec.Struct, frozen=True):
    """What the rules for a route need to know of the hosts, this one (`node_id`) included."""

    ingress_id: str
    node_id: str
    marks: Mapping[str, int]  # node id -> mark, of other hosts in the ingress network
    returning: frozenset[str]  # nodes that send answers back the way that the question came
    addresses: Mapping[str, tuple[str, ...]]  # of each node
    families: tuple[Family, ...]


def mark(place: int) -> int:
    """Of a host by its place in the ingress network. 16,382 have one of their own."""
    return TAG | (1 + (place - 1) % (_MOST_HOSTS - 1)) << _SHIFT


def shape(family: Family) -> str:
    """The maps and chains of one family. `published`, `refuse` and `alive` are there."""
    suffix = family.suffix
    key = "type inet_proto . inet_service"
    port = "meta l4proto . th dport"
    endpoint = f"dnat {family.word} to {port} . meta mark map @endpoints{suffix}"
    in_order = (rule for slot in range(_IN_ORDER) for rule in (f"meta mark set {slot}", f"jump try{suffix}"))
    return "".join(
        [
            collection(f"slots{suffix}", f"{key} . mark : mark", kind="map"),
            collection(f"endpoints{suffix}", f"{key} . mark : {family.kind} . inet_service", kind="map"),
            chain(
                f"try{suffix}",
                f"meta mark set {port} . meta mark map @slots{suffix}",
                f"meta mark & {TAG | HOST:#x} == {OWN:#x} {endpoint}",
                f"meta mark & {TAG | HOST:#x} @alive {endpoint}",
            ),
            chain(f"in_order{suffix}", *in_order),
            chain(f"any{suffix}", f"meta mark set {port} . meta mark map @slots{suffix}", endpoint),
            chain(f"only{suffix}", "meta mark set 0", f"goto any{suffix}"),
            collection(f"published{suffix}", f"{key} : verdict", kind="map"),
        ]
    )


def part(route: Route, ports: Sequence[tuple[Port, int]], hosts: Hosts) -> Part:
    """`ports`: those that are this route's own, with the ports of its tasks."""
    elements: dict[str, dict[str, str]] = {}
    chains: dict[str, Sequence[str]] = {}
    for family in hosts.families:
        ends = _ends(route, hosts, family)
        for port, target_port in ports:
            if not _anywhere(route, port, family):
                continue
            way_in, verdict = _ways(route, port, len(ends), family)
            chains |= way_in
            key = f"{port[0]} . {port[1]}"
            _add(elements, "slots", family, {f"{key} . {slot}": f"{mark:#x}" for slot, (mark, _) in enumerate(ends)})
            _add(elements, "endpoints", family, {f"{key} . {mark:#x}": f"{end} . {target_port}" for mark, end in ends})
            _add(elements, "published", family, {key: f"goto {verdict}"})
        _add(elements, "around", family, _around(route, hosts, family))
        _add(elements, "own", family, _own(route, hosts, family))
    return Part(elements=elements, chains=chains, source=(hosts, route, list(ports)))


def _anywhere(route: Route, port: Port, family: Family) -> bool:
    """Whether hosts answer it in this family: of a port that has its places, each is of one."""
    places = route.published_on.get(f"{port[0]}/{port[1]}", ())
    return not places or any((":" in place) == (family is IPV6) for place in places)


def _add(elements: dict[str, dict[str, str]], name: str, family: Family, found: Mapping[str, str]) -> None:
    if found:
        elements.setdefault(name + family.suffix, {}).update(found)


def _ends(route: Route, hosts: Hosts, family: Family) -> list[tuple[int, str]]:
    """Mark and address of each endpoint, by slot."""
    there = rotate(choose(route.targets, hosts.ingress_id, ()), hosts.node_id)
    found = [(hosts.marks.get(t.node_id, OWN), a) for t in there if (a := address(t, hosts.ingress_id, family))]
    return [(mark | slot, end) for slot, (mark, end) in enumerate(found[:MOST])]


def _ways(route: Route, port: Port, count: int, family: Family) -> tuple[dict[str, Sequence[str]], str]:
    """The chains for one of so many endpoints, each after those it leads to, and which of them to begin with."""
    protocol, number = port
    suffix, name = family.suffix, f"{protocol}/{number}"
    chains: dict[str, Sequence[str]] = {}
    first = f"only{suffix}" if count else "refuse"
    if count > 1:
        first, again = f"pick{suffix}_{count}_{crc32(name.encode()) % _COUNTERS}", f"again{suffix}_{count}"
        by_chance = f"meta mark set numgen random mod {count}"
        more = [rule for _ in range(_TRIES) for rule in (by_chance, f"jump try{suffix}")]
        chains[again] = [*more, f"jump in_order{suffix}", by_chance, f"goto any{suffix}"]
        chains[first] = [f"meta mark set numgen inc mod {count}", f"jump try{suffix}", f"goto {again}"]
    places, interfaces = route.published_on.get(name, ()), route.published_through.get(name, ())
    if places or interfaces:
        way_in = f"at{suffix}_{protocol}_{number}"
        here = ", ".join(place for place in places if (":" in place) == (family is IPV6))
        rules = [f'iifname "{interface}" goto {first}' for interface in interfaces]
        chains[way_in] = [*rules, f"{family.word} daddr != {{ {here} }} return", f"goto {first}"] if here else rules
        first = way_in
    return chains, first


def _around(route: Route, hosts: Hosts, family: Family) -> dict[str, str]:
    """Tasks whose answers would not come back through us, by address."""
    there = [t for t in route.targets if t.node_id != hosts.node_id]
    past = [t for t in there if route.masquerade or t.node_id not in hosts.returning]
    return {a: "" for t in past if (a := address(t, hosts.ingress_id, family))}


def _own(route: Route, hosts: Hosts, family: Family) -> dict[str, str]:
    """Each task on another host with the addresses of that host, which would be answered directly."""
    return {
        f"{client} . {a}": ""
        for t in route.targets
        if t.node_id != hosts.node_id and (a := address(t, hosts.ingress_id, family))
        for client in hosts.addresses.get(t.node_id, ())
        if (":" in client) == (family is IPV6)
    }
