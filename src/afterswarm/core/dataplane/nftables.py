"""The nft rulesets of a host (published ports) and of a container (virtual addresses), as text.

Each is one transaction that replaces our one table, `ip afterswarm`. Host and containers never share a namespace, so
they may share its name. One chain per published port and per virtual address holds the choice among targets: how one
is picked may change there without touching what leads to it.

A connection to a published port, on the host whose address the client used:

    prerouting/output (local address) -> published map -> chain tcp_8080 -> DNAT to a target in the ingress network
    postrouting, if the target could answer around us: SNAT to this host's ingress gateway; else the client stays
    on the target's host, prerouting: note which host sent the frame, and mark the answers for it (`paths`)

Priorities are ten before Docker's own chains (-100, 100). nft 1.0.6 wants numbers in output chains.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Network

import msgspec

from afterswarm.core.dataplane.paths import MARK, MASK, entries, zone
from afterswarm.core.dataplane.targets import choose, rotate
from afterswarm.core.dataplane.vxlan import BRIDGE_PREFIX, PORT, bridge_name
from afterswarm.model.network import Network
from afterswarm.model.service import PortConfig
from afterswarm.model.session import Peer, Route, Target

TABLE = "ip afterswarm"
NOTHING = f"table {TABLE}\ndelete table {TABLE}\n"
"""Takes our table away; the first line makes sure that there is one."""


def host(
    *,
    node_id: str,
    networks: Iterable[Network],
    routes: Iterable[Route],
    peers: Iterable[Peer],
    silent: Collection[str] = (),
    tunnel_port: int = PORT,
) -> str:
    """The ruleset of this host. Without an ingress network, or a gateway of ours in it, nothing is published."""
    routes = list(routes)
    peers = list(peers)
    networks = sorted((n for n in networks if n.subnet and node_id in n.gateways), key=lambda n: n.id)
    ingress = next((n for n in networks if n.spec.ingress), None)
    if ingress is None:
        return _table(_tunnel(peers, tunnel_port)) if networks else NOTHING
    gateway = ingress.gateways[node_id]
    bridge = bridge_name(ingress.id)
    published = _published(routes)
    places = {port: there for route in routes for port, there in route.published_on.items()}
    known = {peer.node_id: peer for peer in peers}
    remote = [(t, r) for r in routes for t in r.targets if t.node_id != node_id and ingress.id in t.addresses]
    around = {t.addresses[ingress.id] for t, r in remote if not _returns(known.get(t.node_id), r)}
    own = {f"{address} . {t.addresses[ingress.id]}" for t, _ in remote for address in _of(known.get(t.node_id))}
    chains = {}
    for (protocol, port), (target_port, targets) in published.items():
        chosen = rotate(choose(targets, ingress.id, silent), node_id)
        pick = _pick([t.addresses[ingress.id] for t in chosen], protocol, target_port)
        only = places.get(f"{protocol}/{port}")
        chains[f"{protocol}_{port}"] = [f"ip daddr != {{ {', '.join(only)} }} return", pick] if only else [pick]
    verdicts = [f"{protocol} . {port} : goto {protocol}_{port}" for protocol, port in published]
    who = entries(ingress, node_id)
    inside = sorted({n.subnet for n in networks}, key=IPv4Network)
    body = [
        *_tunnel(peers, tunnel_port),
        _set("gateways", "type ipv4_addr", [n.gateways[node_id] for n in networks]),
        _set("inside", "type ipv4_addr; flags interval", ["127.0.0.0/8", *inside]),
        _set("around", "type ipv4_addr", sorted(around, key=IPv4Address)),
        _set("own", "type ipv4_addr . ipv4_addr", sorted(own)),
        _set("entry", "type ether_addr : mark", [f"{mac} : {mark:#x}" for mac, mark in who.items()], kind="map"),
        _set("zones", "typeof ether saddr : ct zone", [f"{mac} : {zone(m)}" for mac, m in who.items()], kind="map"),
        *_chains(chains),
        _set("published", "type inet_proto . inet_service : verdict", verdicts, kind="map"),
        _chain(
            "mesh",
            "ip daddr @gateways meta l4proto { tcp, udp } th dport 53 return",  # our resolver's, whatever is published
            "meta l4proto . th dport vmap @published",
        ),
        _chain("prerouting", "type nat hook prerouting priority -110; policy accept", "fib daddr type local jump mesh"),
        _chain("output", "type nat hook output priority -110; policy accept", "fib daddr type local jump mesh"),
        _chain(
            "postrouting",
            "type nat hook postrouting priority 90; policy accept",
            f'oifname "{bridge}" ct status dnat jump return_path',
        ),
        _chain(
            "return_path",
            f"ip daddr @around snat to {gateway}",  # its host would not send the answer back through us
            f"ip saddr @inside snat to {gateway}",  # the target answers it directly, past our translation
            f"ip saddr . ip daddr @own snat to {gateway}",  # likewise: the client is the target's own host
        ),
        _chain(  # before connections are looked up, at -200
            "apart",
            "type filter hook prerouting priority -300; policy accept",
            f'iifname "{bridge}" ct original zone set ether saddr map @zones',
        ),
        _chain(
            "came_by",
            "type filter hook prerouting priority -150; policy accept",
            f'iifname "{bridge}" ct direction original ct mark set ether saddr map @entry',
            f'iifname "{BRIDGE_PREFIX}*" ct direction reply ct mark and {MASK:#x} == {MARK:#x} meta mark set ct mark',
        ),
        _chain(  # we route between two hosts of one bridge: a container must not learn a way past us from it
            "redirects",
            "type filter hook output priority 0; policy accept",
            f'oifname "{bridge}" icmp type redirect drop',
        ),
        _chain(  # 127.0.0.1:port needs route_localnet on this bridge; nobody on it may use that to reach our loopback
            "loopback",
            "type filter hook prerouting priority -310; policy accept",
            f'iifname "{bridge}" ip daddr 127.0.0.0/8 drop',
        ),
    ]
    return _table(body)


class Names(msgspec.Struct, frozen=True):
    """For a container that asks other nameservers: the gateway where ours listens, and the address to ask it from."""

    gateway: str
    address: str
    servers: tuple[str, ...]


def container(
    *,
    task_id: str,
    attached: Mapping[str, str],
    networks: Iterable[Network],
    routes: Iterable[Route],
    silent: Collection[str] = (),
    source: str = "",
    names: Names | None = None,
) -> str:
    """The ruleset in the namespace of one task's container: every service's address in its networks.

    `attached` are its addresses by network id. Nobody asks for virtual addresses in the ingress network. `source` is
    the address that it speaks from to everybody else: a server of datagrams that listens on all its addresses would
    answer from that one, so published datagrams are brought there, and answers are known by it. A container that was
    made for other networks asks the nameservers of these; `names` leads such questions to us.
    """
    networks = list(networks)
    entered = [attached[n.id] for n in networks if n.id in attached and n.spec.ingress]
    mine = sorted(n.id for n in networks if n.id in attached and not n.spec.ingress)
    picks: dict[str, str] = {}
    for route in sorted(routes, key=lambda r: r.service_id):
        for network_id in mine:
            vip = route.vips.get(network_id)
            if vip and route.mode == "vip":
                chosen = rotate(choose(route.targets, network_id, silent), task_id)
                picks[vip] = _pick([t.addresses[network_id] for t in chosen])
    picks = dict(sorted(picks.items()))
    chains = {vip: "vip_" + vip.replace(".", "_") for vip in picks}
    body = [
        *_chains({chains[vip]: [pick] for vip, pick in picks.items()}),
        _set("vips", "type ipv4_addr : verdict", [f"{vip} : goto {name}" for vip, name in chains.items()], kind="map"),
        _chain("output", "type nat hook output priority -110; policy accept", "ip daddr vmap @vips", *_asked(names)),
        *_answered(names),
    ]
    if source:
        answered = [f"ip daddr {address} meta l4proto udp dnat to {source}" for address in entered if address != source]
        body.append(_chain("prerouting", "type nat hook prerouting priority -110; policy accept", *answered))
    return _table(body)


def _asked(names: Names | None) -> list[str]:
    servers = [] if names is None else [s for s in names.servers if not _loopback(s)]
    if names is None or not servers:
        return []
    ring = f"ip daddr {{ {', '.join(sorted(set(servers), key=IPv4Address))} }}"
    return [f"{ring} meta l4proto {{ tcp, udp }} th dport 53 dnat to {names.gateway}"]


def _answered(names: Names | None) -> list[str]:
    """The source was chosen for the way to the other nameserver; ours knows its askers by their address."""
    if names is None or not _asked(names):
        return []
    back = f"ip daddr {names.gateway} ip saddr != {names.address} meta l4proto {{ tcp, udp }} th dport 53"
    head = "type nat hook postrouting priority 90; policy accept"
    return [_chain("postrouting", head, f"{back} snat to {names.address}")]


def _loopback(server: str) -> bool:
    """Also what is no IPv4 address: the engine asks such servers itself."""
    try:
        return IPv4Address(server).is_loopback
    except AddressValueError:
        return True


def _published(routes: Iterable[Route]) -> Mapping[tuple[str, int], tuple[int, Sequence[Target]]]:
    """Protocol and published port -> target port and targets. The allocator gives a port once; else, first come."""
    found: dict[tuple[str, int], tuple[int, Sequence[Target]]] = {}
    for route in sorted(routes, key=lambda r: r.service_id):
        for port in route.ports:
            if _is_ingress(port):
                found.setdefault((port.protocol, port.published_port), (port.target_port, route.targets))
    return dict(sorted(found.items()))


def _tunnel(peers: Iterable[Peer], port: int) -> list[str]:
    """Packets of the tunnels are taken from the swarm's hosts only: who else sends them would be in every network."""
    ends = {peer.data_path or peer.address for peer in peers} - {""}
    return [
        _set("hosts", "type ipv4_addr", sorted(ends, key=IPv4Address)),
        _chain(
            "tunnel", "type filter hook input priority -5; policy accept", f"udp dport {port} ip saddr != @hosts drop"
        ),
    ]


def _returns(peer: Peer | None, route: Route) -> bool:
    """Whether the target's host sends answers back the way that the question came, and the service is content."""
    return peer is not None and peer.returns and not route.masquerade


def _of(peer: Peer | None) -> set[str]:
    """The addresses of a host, as far as the swarm knows them."""
    return {peer.address, peer.data_path} - {""} if peer else set()


def _is_ingress(port: PortConfig) -> bool:
    return port.publish_mode == "ingress" and port.published_port > 0 and port.protocol in ("tcp", "udp", "sctp")


def _pick(addresses: Sequence[str], protocol: str = "", port: int = 0) -> str:
    """Round robin; without any address a refusal at once, rather than a client that waits."""
    if not addresses:
        return "goto refuse"
    ring = ", ".join(f"{i} : {address}" for i, address in enumerate(addresses))
    choice = f"dnat to numgen inc mod {len(addresses)} map {{ {ring} }}"
    return f"meta l4proto {protocol} {choice} : {port}" if protocol else choice


def _chains(chains: Mapping[str, Sequence[str]]) -> list[str]:
    refuse = _chain("refuse", "meta l4proto tcp reject with tcp reset", "reject")
    return [refuse, *(_chain(name, *rules) for name, rules in chains.items())]


def _chain(name: str, *rules: str) -> str:
    return f"\tchain {name} {{\n" + "".join(f"\t\t{rule}\n" for rule in rules) + "\t}\n"


def _set(name: str, head: str, elements: Sequence[str], *, kind: str = "set") -> str:
    body = f"\t\telements = {{ {', '.join(elements)} }}\n" if elements else ""
    return f"\t{kind} {name} {{\n\t\t{head}\n{body}\t}}\n"


def _table(body: Iterable[str]) -> str:
    return f"{NOTHING}table {TABLE} {{\n{''.join(body)}}}\n"
