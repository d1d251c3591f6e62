"""The engine's own network behind an overlay network on one host: what to ask for, and whether one found will do."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import msgspec

from afterswarm.core import families
from afterswarm.core.dataplane.vxlan import bridge_name
from afterswarm.model.network import LABEL, Network
from afterswarm.model.network import MTU as OPTION

BRIDGE = "com.docker.network.bridge.name"


def body(network: Network, gateway: str, mtu: int) -> dict[str, Any]:
    """Of `POST /networks/create`. Same name and subnets on every host; the gateways are this host's own."""
    pools = [{"Subnet": network.subnet, "Gateway": gateway}]
    if network.subnet6:
        pools.append({"Subnet": network.subnet6, "Gateway": families.twin(network, gateway)})
    return {
        "Name": network.name,
        "CheckDuplicate": True,
        "Driver": "bridge",
        "Internal": network.spec.internal,
        "Attachable": network.spec.attachable,
        **({"EnableIPv6": True} if network.subnet6 else {}),
        "IPAM": {"Driver": "default", "Config": pools},
        "Options": {
            BRIDGE: bridge_name(network.id),
            OPTION: str(mtu),
            # outwards only; the engine's rule leaves alone what stays on the bridge
            "com.docker.network.bridge.enable_ip_masquerade": str(not network.spec.internal).lower(),
        },
        "Labels": {LABEL: network.id},
    }


def node_local(network: Network, configuration: dict[str, Any] | None = None) -> dict[str, Any]:
    """Of `POST /networks/create` for a network that every host has one of its own of (macvlan, bridge, …).

    `configuration` is this host's, where the network has one. What it says is spelled out: an engine that is told to
    look itself (`ConfigFrom`) takes no labels, and the network could not be known for ours.
    """
    spec = network.spec
    made: dict[str, Any] = {
        "Name": network.name,
        "CheckDuplicate": True,
        "Driver": spec.driver,
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Labels": {**spec.labels, LABEL: network.id},
    }
    if configuration is not None:
        ipam, options = configuration.get("IPAM") or {}, configuration.get("Options") or {}
        labels = {**(configuration.get("Labels") or {}), **made["Labels"]}
        ipv6 = bool(configuration.get("EnableIPv6"))
        return made | {"IPAM": ipam, "Options": options, "Labels": labels, "EnableIPv6": ipv6}
    pools = [msgspec.to_builtins(config) for config in spec.ipam.config if config.subnet] if spec.ipam else []
    ipam = {"Driver": spec.ipam.driver if spec.ipam else "default", "Config": pools}
    return made | {"Options": spec.options, "IPAM": ipam}


def fits(found: dict[str, Any], wanted: dict[str, Any], *, size: bool = True) -> bool:
    """Whether an engine's network is what `body` asks for, in all that matters to containers; its MTU unless `size`."""
    options = {key: value for key, value in wanted["Options"].items() if size or key != OPTION}
    return (
        found.get("Name") == wanted["Name"]
        and bool(found.get("Internal")) == wanted["Internal"]
        and all((found.get("Options") or {}).get(key) == value for key, value in options.items())
        and bool(found.get("EnableIPv6")) == bool(wanted.get("EnableIPv6"))
        and set(_pools(found)) == set(_pools(wanted))
        and (found.get("Labels") or {}).get(LABEL) == wanted["Labels"][LABEL]
    )


def in_the_way(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether one of our networks must go before the wanted one can be made: same name, bridge or addresses."""
    return (
        found.get("Name") == wanted["Name"]
        or (found.get("Options") or {}).get(BRIDGE) == wanted["Options"][BRIDGE]
        or any(a.version == b.version and a.overlaps(b) for a in _subnets(found) for b in _subnets(wanted))
    )


def _subnets(network: dict[str, Any]) -> list[Any]:
    return [ip_network(subnet) for subnet, _ in _pools(network) if subnet]


def _pools(network: dict[str, Any]) -> list[tuple[str, str]]:
    config = (network.get("IPAM") or {}).get("Config") or []
    return [(pool.get("Subnet", ""), pool.get("Gateway", "")) for pool in config]
