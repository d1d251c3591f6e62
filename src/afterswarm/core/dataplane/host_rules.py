"""The rules of a host: published ports, the way back of their answers, who is alive, and whose tunnels are heard.

A connection to a published port, on the host whose address the client used:

    prerouting/output (local address) -> the map `published` -> `mesh.py` chooses: DNAT to a task in the ingress network
    postrouting, if the task could answer around us: SNAT to this host's ingress gateway; else the client stays
    on the task's host, prerouting: note which host sent the frame, and mark the answers for it (`paths`)

`host` makes a `Ruleset` (`ruleset.py`): one table, of the family `inet`. Rules are fixed but for a few words; what
comes and goes with services is elements. Whatever is of one family of addresses (`family.py`) is made by the functions
here that take a `Family`, for each of `families`; who is alive is known once for both.

Priorities are ten before Docker's own chains (-100, 100). nft 1.0.6 wants numbers in output chains. Chains of type nat
all run at -100 (or 100), in the order of their numbers: what is to come after them must have a greater one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from ipaddress import ip_network

from afterswarm.core.dataplane import closed, mesh, paths, wireguard
from afterswarm.core.dataplane import family as of
from afterswarm.core.dataplane.family import BOTH, IPV4, IPV6, Family
from afterswarm.core.dataplane.ruleset import NOTHING, Part, Piece, Ruleset, chain, collection
from afterswarm.core.dataplane.vxlan import BRIDGE_PREFIX, PORT, bridge_name
from afterswarm.model.network import Network
from afterswarm.model.service import PortConfig
from afterswarm.model.session import Peer, Route

BEATS = 7947  # UDP

_FILTER = "type filter hook {} priority {}; policy accept"
_NAT = "type nat hook {} priority {}; policy accept"


def host(
    *,
    node_id: str,
    networks: Iterable[Network],
    routes: Iterable[Route],
    peers: Iterable[Peer],
    silent: Collection[str] = (),
    tunnel_port: int = PORT,
    confined: Collection[str] = (),
    families: Sequence[Family] = BOTH,
    before: Ruleset = NOTHING,
) -> Ruleset:
    """Without an ingress network, or a gateway of ours in it, nothing is published. `confined`: see `closed`.

    `silent` hosts are not alive to begin with; no more follows from it. What is in `before` is not made again.
    """
    networks = sorted((n for n in networks if n.subnet and node_id in n.gateways), key=lambda n: n.id)
    if not networks:
        return NOTHING
    peers = sorted(peers, key=lambda p: p.node_id)
    ingress = next((n for n in networks if n.spec.ingress), None)
    shape, elements = _tunnel(peers, tunnel_port)
    dual = any(of.subnet(n, IPV6) for n in networks)
    families = [f for f in families if f is IPV4 or dual]
    pieces = [closed.rules(networks, node_id, families, confined), *([_fence(networks)] if dual else [])]
    for made, filled in pieces:
        shape += made
        elements |= filled
    if ingress is None:
        return Ruleset(shape="".join(shape), parts={"": Part(elements=elements)})
    families = [family for family in families if of.gateway(ingress, node_id, family)]
    marks = {node: mesh.mark(paths.place(ingress, a)) for node, a in ingress.gateways.items() if node != node_id}
    for made, filled in (
        _beats(peers, marks),
        *(_family(ingress, networks, node_id, family) for family in families),
        paths.rules(ingress, node_id),
        _hooks(ingress, families),
    ):
        shape += made
        elements |= filled
    alive = [f"{marks[p.node_id]:#x}" for p in peers if p.node_id in marks and p.node_id not in silent]
    hosts = mesh.Hosts(
        ingress_id=ingress.id,
        node_id=node_id,
        marks=marks,
        returning=frozenset(p.node_id for p in peers if p.returns),
        addresses={p.node_id: tuple(sorted({p.address, p.data_path, *(p.ipv6 or ())} - {""})) for p in peers},
        families=tuple(families),
    )
    hosts = before.context if before.context == hosts else hosts  # compared once, then by identity
    return Ruleset(
        shape="".join(shape),
        parts={"": Part(elements=elements), **_routed(routes, hosts, before)},
        shared=tuple(name + family.suffix for family in families for name in ("around", "own")),
        initially={"alive": dict.fromkeys(sorted(alive), "")},
        context=hosts,
    )


def _routed(routes: Iterable[Route], hosts: mesh.Hosts, before: Ruleset) -> dict[str, Part]:
    """A part for each route with published ports. The allocator gives a port once; else, first come."""
    taken: set[mesh.Port] = set()
    found = {}
    for route in sorted(routes, key=lambda r: r.service_id):
        own: list[tuple[mesh.Port, int]] = []
        for port in route.ports:
            key = (port.protocol, port.published_port)
            if _is_ingress(port) and key not in taken:
                taken.add(key)
                own.append((key, port.target_port))
        if own:
            source, old = (hosts, route, own), before.parts.get(route.service_id)
            found[route.service_id] = old if old and old.source == source else mesh.part(route, own, hosts)
    return found


def _tunnel(peers: Sequence[Peer], port: int) -> Piece:
    """Packets of the tunnels are taken from the swarm's hosts only: who else sends them would be in every network."""
    ends = {peer.data_path or peer.address for peer in peers} - {""}
    shape = [
        collection("hosts", "type ipv4_addr"),
        chain(
            "tunnel",
            _FILTER.format("input", -5),
            f'iifname "{wireguard.DEVICE}" udp dport {port} accept',  # it knows by itself who sends there
            f'iifname "{wireguard.DEVICE}" drop',  # and that is all that anybody has to do there
            f"udp dport {port} ip saddr != @hosts drop",
        ),
    ]
    return shape, {"hosts": dict.fromkeys(sorted(ends), "")}


def _fence(networks: Sequence[Network]) -> Piece:
    """What engines see to in IPv4 alone unless they are told otherwise: into a network there is no way but its own and
    published ports, and what goes out of it leaves with the host's address."""
    dual = [n for n in networks if of.subnet(n, IPV6)]
    bridges = {n.id: f'"{bridge_name(n.id)}"' for n in dual}
    shape = [
        collection("own_bridge", "typeof meta iifname . meta oifname"),
        collection("leaving", f"type {IPV6.kind}; flags interval"),
        chain(
            "fence",
            _FILTER.format("forward", -5),
            f"meta nfproto {IPV4.protocol} accept",
            "ct state established,related accept",
            "iifname . oifname @own_bridge accept",
            f'oifname "{BRIDGE_PREFIX}*" ct status dnat accept',
            f'oifname "{BRIDGE_PREFIX}*" drop',
        ),
        chain("leave", _NAT.format("postrouting", 95), f'ip6 saddr @leaving oifname != "{BRIDGE_PREFIX}*" masquerade'),
    ]
    return shape, {
        "own_bridge": {f"{b} . {b}": "" for b in bridges.values()},
        "leaving": {of.subnet(n, IPV6): "" for n in dual if not n.spec.internal},
    }


def _beats(peers: Sequence[Peer], marks: dict[str, int]) -> Piece:
    """Each beat keeps its host among the living. Seals are not checked here: a forged one delays a verdict, no more."""
    shape = [
        collection("beats", "type ipv4_addr : mark", kind="map"),
        collection("alive", f"type mark; flags dynamic,timeout; timeout {mesh.ALIVE}ms; size 65535"),
        chain(
            "heard",
            _FILTER.format("input", -10),
            f"udp dport {BEATS} meta mark set ip saddr map @beats update @alive {{ meta mark }}",
        ),
        chain("refuse", "meta l4proto tcp reject with tcp reset", "reject"),
    ]
    known = {a: f"{marks[p.node_id]:#x}" for p in peers if p.node_id in marks for a in of.hosts(p, IPV4)}
    return shape, {"beats": known}


def _family(ingress: Network, networks: Sequence[Network], node_id: str, family: Family) -> Piece:
    """What chooses, and how the client looks to who is chosen."""
    suffix, word = family.suffix, family.word
    gateway = of.gateway(ingress, node_id, family)
    hide = f"snat {word} to {gateway}"
    gateways = [a for n in networks if (a := of.gateway(n, node_id, family))]
    inside = sorted({s for n in networks if (s := of.subnet(n, family))}, key=_number)
    shape = [
        mesh.shape(family),
        collection(f"gateways{suffix}", f"type {family.kind}"),
        collection(f"inside{suffix}", f"type {family.kind}; flags interval"),
        collection(f"around{suffix}", f"type {family.kind}"),
        collection(f"own{suffix}", f"type {family.kind} . {family.kind}"),
        chain(
            f"mesh{suffix}",
            # our resolver's, whatever is published
            f"{word} daddr @gateways{suffix} meta l4proto {{ tcp, udp }} th dport 53 return",
            # translated, [::1] never comes back; refused, a program that dials localhost goes on to 127.0.0.1
            *(["ip6 daddr ::1 return"] if family is IPV6 else []),
            f"meta l4proto . th dport vmap @published{suffix}",
        ),
        chain(
            f"return_path{suffix}",
            f"{word} daddr @around{suffix} {hide}",  # its host would not send the answer back through us
            f"{word} saddr @inside{suffix} {hide}",  # the task answers it directly, past our translation
            f"{word} saddr . {word} daddr @own{suffix} {hide}",  # likewise: the client is the task's own host
        ),
    ]
    filled = {f"gateways{suffix}": gateways, f"inside{suffix}": [family.loopback, *inside]}
    return shape, {name: dict.fromkeys(found, "") for name, found in filled.items()}


def _hooks(ingress: Network, families: Sequence[Family]) -> Piece:
    """Every packet of every connection passes a chain of type filter: they are few, and end early."""
    into = [f"meta nfproto {f.protocol} fib daddr type local jump mesh{f.suffix}" for f in families]
    bridge = bridge_name(ingress.id)
    out_of = [
        f'meta nfproto {f.protocol} oifname "{bridge}" ct status dnat jump return_path{f.suffix}' for f in families
    ]
    # of the mesh's choice nothing is left to be seen: routing rules, tunnels and others' chains may look at marks
    chosen = f"meta mark & {mesh.TAGGED:#x} == {mesh.TAG:#x} ct state new ct status dnat meta mark set 0"
    shape = [
        chain("prerouting", _NAT.format("prerouting", -110), *into),
        chain("output", _NAT.format("output", -110), *into),
        chain("postrouting", _NAT.format("postrouting", 90), *out_of),
        chain("entered", _FILTER.format("prerouting", -90), *paths.notes(ingress), chosen),
        chain("chosen_here", _FILTER.format("output", -90), chosen),
    ]
    return shape, {}


def _number(subnet: str) -> int:
    return int(ip_network(subnet).network_address)


def _is_ingress(port: PortConfig) -> bool:
    return port.publish_mode == "ingress" and port.published_port > 0 and port.protocol in ("tcp", "udp", "sctp")
