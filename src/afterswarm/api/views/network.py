"""Overlay networks as Docker's JSON: in `/networks`, and in the attachments of a task."""

from __future__ import annotations

from ipaddress import ip_network

from afterswarm.api import lookup
from afterswarm.api.views import render
from afterswarm.core.admit.guest import guests_of
from afterswarm.core.admit.network import services_using
from afterswarm.core.dataplane.bridge import BRIDGE
from afterswarm.core.dataplane.vxlan import BRIDGE_PREFIX
from afterswarm.model.network import LABEL, VXLANS, Network
from afterswarm.model.service import PortConfig, Service
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Task, TaskState
from afterswarm.ports import Json


def rendered(network: Network) -> Json:
    spec = network.spec
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": render.time(network.created),
        "Scope": "swarm",
        "Driver": spec.driver,
        "EnableIPv4": True,
        "EnableIPv6": bool(spec.enable_ipv6),
        "IPAM": {
            "Driver": spec.ipam.driver if spec.ipam else "default",
            "Options": (spec.ipam.options if spec.ipam else None) or None,
            "Config": _pools(network),
        },
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Ingress": spec.ingress,
        "ConfigFrom": {"Network": (spec.config_from or {}).get("Network", "")},
        "ConfigOnly": False,
        "Containers": None,
        "Options": _options(network),
        "Labels": spec.labels,
    }


def inspected(snap: Snapshot, network: Network, containers: Json, *, verbose: bool) -> Json:
    """With what is attached: `containers` of this host, hosts that take part, and, if asked for, services."""
    shown = {**rendered(network), "Containers": containers, "Peers": _peers(snap, network)}
    if verbose:
        shown["Services"] = {s.name: _service(snap, network, s) for s in services_using(snap, network)}
    return shown


def attached(network: Network) -> Json:
    """The network as an attachment of a task shows it; Prometheus' discovery reads it."""
    spec = network.spec
    shown: Json = {
        "Name": network.name,
        "Labels": spec.labels,
        "DriverConfiguration": {"Name": spec.driver, **({"Options": spec.options} if spec.options else {})},
        "IPAMOptions": {"Driver": {"Name": spec.ipam.driver if spec.ipam else "default"}},
        "Scope": "swarm",
    }
    for name, value in (("Ingress", spec.ingress), ("Attachable", spec.attachable), ("Internal", spec.internal)):
        if value:
            shown[name] = True
    if spec.ipam and spec.ipam.config:
        shown["IPAMOptions"]["Configs"] = [render.plain(c) for c in spec.ipam.config]
    return {
        **render.base(network),
        "Spec": shown,
        "DriverState": {"Name": spec.driver, "Options": _options(network)},
        "IPAMOptions": {"Driver": {"Name": "default"}, "Configs": _pools(network)},
    }


def of_engine(network: Json) -> Json:
    """What a worker's engine shows of an overlay network, as the overlay network that it is part of."""
    network_id = (network.get("Labels") or {}).get(LABEL)
    if not network_id:
        return network
    shown = {**network, "Id": network_id, "Scope": "swarm", "Labels": {}}
    if not (network.get("Options") or {}).get(BRIDGE, "").startswith(BRIDGE_PREFIX):
        return shown  # this host's own one of a network that each has one of
    return shown | {"Driver": "overlay", "Options": {}}


def _pools(network: Network) -> list[Json]:
    asked = [render.plain(c) for c in network.spec.ipam.config if c.subnet] if network.spec.ipam else []
    if not network.subnet:
        return asked
    pools = [(network.subnet, network.gateway), *([(network.subnet6, network.gateway6)] if network.subnet6 else [])]
    shown = []
    for subnet, gateway in pools:
        same = next((pool for pool in asked if _same(pool["Subnet"], subnet)), {})
        shown.append({**same, "Subnet": subnet, **({"Gateway": gateway} if gateway else {})})
    return shown


def _same(asked: str, given: str) -> bool:
    """IPv6 addresses can be written in several ways."""
    return ip_network(asked, strict=False) == ip_network(given, strict=False)


def _options(network: Network) -> dict[str, str]:
    options = dict(network.spec.options)
    if network.vni:
        options[VXLANS] = str(network.vni)
    return options


def _members(snap: Snapshot, network: Network) -> list[Task]:
    return [
        task
        for key in sorted(snap.tasks)
        if snap.state_of(task := snap.tasks[key]) == TaskState.RUNNING
        and any(a.network_id == network.id for a in task.attachments)
    ]


def _address(snap: Snapshot, node_id: str) -> str:
    report = snap.node_reports.get(node_id)
    return (report.data_path or report.address) if report else ""


def _peers(snap: Snapshot, network: Network) -> list[Json]:
    """Hosts with tasks or guests in it; of the ingress network, all hosts."""
    guests = {guest.node_id for guest in guests_of(snap, network.id) if guest.running}
    here = {task.node_id for task in _members(snap, network)} | guests
    hosts = set(snap.nodes) if network.spec.ingress else here
    return [{"Name": key[:12], "IP": _address(snap, key)} for key in sorted(hosts) if _address(snap, key)]


def _service(snap: Snapshot, network: Network, service: Service) -> Json:
    ips = service.endpoint.virtual_ips if service.endpoint else []
    ports = service.endpoint.ports if service.endpoint and network.spec.ingress else []
    return {
        "VIP": next((ip.addr.partition("/")[0] for ip in ips if ip.network_id == network.id), ""),
        "Ports": [_port(p) for p in ports],
        "LocalLBIndex": 0,
        "Tasks": [
            {
                "Name": lookup.task_name(snap, task),
                "EndpointID": "",
                "EndpointIP": next(a.address.partition("/")[0] for a in task.attachments if a.network_id == network.id),
                "Info": {"Host IP": _address(snap, task.node_id)},
            }
            for task in _members(snap, network)
            if task.service_id == service.id
        ],
    }


def _port(port: PortConfig) -> str:
    return f"Target: {port.target_port}, Publish: {port.published_port}"
