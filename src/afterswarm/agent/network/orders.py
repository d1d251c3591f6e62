"""What this host's manager wants of its network, as last heard, and what follows for this host alone."""

from __future__ import annotations

from msgspec.structs import replace

from afterswarm.core.dataplane import vxlan
from afterswarm.model.network import Network as Overlay
from afterswarm.model.session import Peer, Route, Wanted

SECTIONS = ("networks", "routes", "peers", "tasks", "guests", "data_path_port")


class Orders:
    """`wanted` has every section that was ever heard, as it was last said; `basis`: all routes of it are in there."""

    def __init__(self, node_id: str) -> None:
        self.wanted = Wanted()
        self.basis = 0
        self.ipv6 = True  # this host's kernel has it
        self._node_id = node_id

    def take(self, wanted: Wanted) -> set[str] | None:
        """The sections that are new; `None`: an older revision (of a manager that lags) than seen is not followed."""
        if wanted.rev < self.wanted.rev:
            return None
        new = {name: value for name in SECTIONS if (value := getattr(wanted, name)) is not None}
        if not self.ipv6 and wanted.routes is not None:
            new["routes"] = [_single(route) for route in wanted.routes]
        if "routes" in new:  # what has not changed stays the same object: whoever compares is soon done
            known = {route.service_id: route for route in self.routes}
            new["routes"] = [old if (old := known.get(r.service_id)) == r else r for r in new["routes"]]
        self.wanted = replace(self.wanted, rev=wanted.rev, **new)
        self.basis = max(self.basis, wanted.basis)
        return set(new)

    def begin_anew(self) -> None:
        """The swarm was made anew from a copy of it: a lower revision is not an older one now."""
        self.wanted = replace(self.wanted, rev=0)
        self.basis = 0

    @property
    def known(self) -> bool:
        """Whether a manager has spoken: until then, everything stays as it was found."""
        return self.wanted.routes is not None and self.wanted.networks is not None

    @property
    def networks(self) -> dict[str, Overlay]:
        """Those that this host can be in already, by id."""
        found = (n for n in self.wanted.networks or () if n.subnet and self._node_id in n.gateways)
        return {n.id: n if self.ipv6 else replace(n, subnet6="") for n in found}

    @property
    def routes(self) -> list[Route]:
        return self.wanted.routes or []

    @property
    def peers(self) -> list[Peer]:
        return self.wanted.peers or []

    @property
    def tunnel_port(self) -> int:
        return self.wanted.data_path_port or vxlan.PORT

    def gateways(self) -> list[str]:
        """This host's own addresses in its networks: where the resolver listens."""
        return sorted(network.gateways[self._node_id] for network in self.networks.values())

    def ingress_gateways(self) -> dict[str, str]:
        """Node id -> its address in the ingress network."""
        found = (n for n in self.wanted.networks or () if n.spec.ingress)
        return next((n.gateways for n in found), {})

    def network(self, network_id: str) -> Overlay | None:
        """One that this host can be in, or has one of its own of (macvlan, …)."""
        own = (n for n in self.wanted.networks or () if n.id == network_id and n.node_local)
        return self.networks.get(network_id) or next(own, None)


def _single(route: Route) -> Route:
    """As a host without IPv6 takes it."""
    return replace(route, vips6={}, targets=[replace(t, addresses6={}) for t in route.targets])
