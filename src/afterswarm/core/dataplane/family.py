"""IPv4 and IPv6 as rules spell them, and where each stands in what a manager says.

Rules for both are in one table of the `inet` family, since who is alive is known to both. What must be of one kind
(maps of addresses, and chains that use them) is made once for each family, and has its `suffix` in its name.
"""

from __future__ import annotations

import msgspec

from afterswarm.core import families
from afterswarm.model.network import Network
from afterswarm.model.session import Peer, Route, Target


class Family(msgspec.Struct, frozen=True):
    word: str  # "ip saddr …", "dnat ip to …"
    kind: str  # of addresses in sets and maps
    protocol: str  # of `meta nfproto`
    suffix: str = ""  # of what there is once for each family
    loopback: str = ""


IPV4 = Family(word="ip", kind="ipv4_addr", protocol="ipv4", loopback="127.0.0.0/8")
IPV6 = Family(word="ip6", kind="ipv6_addr", protocol="ipv6", suffix="6", loopback="::1/128")


BOTH = (IPV4, IPV6)


def subnet(network: Network, family: Family) -> str:
    return network.subnet if family is IPV4 else network.subnet6


def gateway(network: Network, node_id: str, family: Family) -> str:
    """The address of a node's bridge; "" when it has none of this family there."""
    own = network.gateways.get(node_id, "")
    return own if family is IPV4 else families.twin(network, own)


def address(target: Target, network_id: str, family: Family) -> str:
    return (target.addresses if family is IPV4 else target.addresses6).get(network_id, "")


def virtual(route: Route, network_id: str, family: Family) -> str:
    return (route.vips if family is IPV4 else route.vips6).get(network_id, "")


def hosts(peer: Peer | None, family: Family) -> set[str]:
    """The addresses of a host, as far as the swarm knows them."""
    known = (peer.address, peer.data_path, *(peer.ipv6 or ())) if peer else ()
    return {a for a in known if a and (":" in a) == (family is IPV6)}
