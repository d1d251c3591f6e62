"""Objects that a new swarm has from the start."""

from __future__ import annotations

from afterswarm import ids
from afterswarm.model.network import IPAM, IPAMConfig, Network, NetworkSpec

INGRESS = "ingress"


def ingress_network(subnet: str = "10.0.0.0/24") -> Network:
    """The network that published ports are routed over; the allocator gives it its addresses as to any other.
    It has IPv6 from the start, so that hosts answer published ports on their IPv6 addresses too.

    With `subnet` "" it gets the first free one of the cluster's pool: right for a pool of the user's own.
    """
    ipam = IPAM(config=[IPAMConfig(subnet=subnet)]) if subnet else None
    return Network(
        id=ids.derive("network", INGRESS, subnet),
        spec=NetworkSpec(name=INGRESS, ingress=True, scope="swarm", enable_ipv6=True, ipam=ipam),
    )
