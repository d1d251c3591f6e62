"""Overlay networks."""

from __future__ import annotations

from afterswarm.model.base import Obj, Part
from afterswarm.model.service import Driver

LABEL = "io.afterswarm.network"  # on an engine's networks that carry a part of ours; the value is our network's id
MTU = "com.docker.network.driver.mtu"
ENCRYPTED = "encrypted"
VXLANS = "com.docker.network.driver.overlay.vxlanid_list"
PREDEFINED = frozenset({"host", "bridge", "none"})  # every engine has them; stored by name, no address of ours


class IPAMConfig(Part, frozen=True):
    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    auxiliary_addresses: dict[str, str] = {}


class IPAM(Part, frozen=True, omit_defaults=False):
    driver: str = "default"
    config: list[IPAMConfig] = []
    options: dict[str, str] = {}


class NetworkSpec(Part, frozen=True):
    """Body of `POST /networks/create`, as Docker's command line sends it for `-d overlay`."""

    name: str = ""
    driver: str = "overlay"
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    enable_ipv4: bool | None = None
    enable_ipv6: bool | None = None
    scope: str = ""
    config_only: bool = False
    config_from: dict[str, str] | None = None
    ipam: IPAM | None = None


class Network(Obj, frozen=True):
    """`subnet`, `vni` and `gateways` are the allocator's, and for IPv6 `subnet6` and `gateway6`.

    Every host has a gateway address of its own in each network (key: node id, value: plain address). `gateway` is
    the one that Docker shows. `subnet` is "" until allocated. IPv6 addresses follow from IPv4's (`core.families`).
    """

    spec: NetworkSpec = NetworkSpec()
    subnet: str = ""  # "10.0.1.0/24"
    gateway: str = ""  # shown to the user; never given to anybody
    vni: int = 0
    gateways: dict[str, str] = {}
    subnet6: str = ""  # "fd12:3456:789a:1::/64"; "": IPv4 alone
    range6: str = ""  # the part of it that addresses are from, when the user chose one
    gateway6: str = ""  # shown to the user; never given to anybody
    pending_delete: bool = False
    driver_state: Driver | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def encrypted(self) -> bool:
        """Its packets travel between hosts through WireGuard only. The option's mere presence means yes."""
        return self.spec.options.get(ENCRYPTED, "false") != "false"

    @property
    def node_local(self) -> bool:
        """Each host has one of its own (macvlan, bridge, …), of which the swarm knows no addresses."""
        return self.spec.driver != "overlay"
