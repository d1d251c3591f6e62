"""Which overlay networks may be created and removed. Docker's words.

Subnets and VXLAN ids are given by `core.allocate`; here only what the user asked for is checked, so that a wrong
request fails at once and not silently later.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from msgspec.structs import replace

from afterswarm import ids
from afterswarm.core.admit.guest import guests_of
from afterswarm.model.base import Change
from afterswarm.model.network import MTU, PREDEFINED, VXLANS, Network, NetworkSpec
from afterswarm.model.refused import Refused
from afterswarm.model.service import Service
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import TaskState

PREDEFINED_LABEL = "com.docker.swarm.predefined"
MTU_LEAST, MTU_MOST = 576, 65535 - 50
_Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network
_INVALID = "rpc error: code = InvalidArgument desc = "
_PRECONDITION = "rpc error: code = FailedPrecondition desc = "


def create(snap: Snapshot, spec: NetworkSpec) -> Network:
    """A new network; its subnet is allocated afterwards."""
    if not spec.name.strip():
        raise Refused(400, f"{_INVALID}name must be provided")
    if PREDEFINED_LABEL in spec.labels:
        why = f"label {PREDEFINED_LABEL} is for internally created predefined networks and cannot be applied by users"
        raise Refused(403, f"rpc error: code = PermissionDenied desc = {why}")
    if spec.name in {*PREDEFINED, "default"}:
        raise Refused(403, f"operation is not permitted on predefined {spec.name} network")
    if spec.config_only:
        raise Refused(400, "configuration-only networks are of one host: leave out --scope swarm and --driver overlay")
    if spec.driver != "overlay":
        return _node_local(snap, spec)
    if (spec.config_from or {}).get("Network"):
        raise Refused(400, f"{_INVALID}an overlay network cannot be made from a configuration")
    if spec.enable_ipv4 is False:
        raise Refused(400, f"{_INVALID}IPv4 cannot be disabled in a Swarm scoped network")
    check_name_free(snap, spec.name)
    if spec.ingress:
        _check_ingress(snap, spec)
    _check_addresses(snap, spec)
    mtu = spec.options.get(MTU, "1500")
    if not mtu.isascii() or not mtu.isdigit() or not MTU_LEAST <= int(mtu) <= MTU_MOST:
        raise Refused(400, f"{_INVALID}invalid MTU {mtu}: a number from {MTU_LEAST} to {MTU_MOST}")
    return Network(id=_new_id(snap, spec), spec=replace(spec, scope="swarm"), vni=_vni(snap, spec))


def _node_local(snap: Snapshot, spec: NetworkSpec) -> Network:
    """One that each host makes by itself when it is needed there, by the configuration of this name that it has."""
    if spec.ingress:
        raise Refused(400, f"{_INVALID}invalid driver for the ingress network: {spec.driver}")
    if spec.driver in {"host", "null", "none"}:
        raise Refused(403, f'only one instance of "{spec.driver}" network is allowed')
    check_name_free(snap, spec.name)
    return Network(id=_new_id(snap, spec), spec=replace(spec, scope="swarm"))


def _new_id(snap: Snapshot, spec: NetworkSpec) -> str:
    return ids.derive("network", spec.name, snap.rev, snap.now)


def _vni(snap: Snapshot, spec: NetworkSpec) -> int:
    """The VXLAN id that the user chose; 0 when it is the allocator's to choose."""
    text = spec.options.get(VXLANS, "")
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 1 << 24:
        raise Refused(400, f'{_INVALID}invalid vxlan id value "{text}" passed')
    if any(network.vni == int(text) for network in snap.networks.values()):
        raise Refused(400, f"{_INVALID}vxlan id {text} is in use by another network")
    return int(text)


def check_name_free(snap: Snapshot, name: str) -> None:
    if any(n.name == name and not n.pending_delete for n in snap.networks.values()):
        raise Refused(409, f"network with name {name} already exists")


def remove(snap: Snapshot, network: Network) -> Change:
    """At once when no task holds an address in it, else as soon as the last one has stopped."""
    users = services_using(snap, network)
    if users and network.spec.ingress:
        why = f"ingress network cannot be removed because service {users[0].id} depends on it"
        raise Refused(400, _PRECONDITION + why)
    if users:
        raise Refused(400, f"{_PRECONDITION}network {network.id} is in use by service {users[0].id}")
    guests = guests_of(snap, network.id)
    if guests:
        held = f"network {network.id} is in use by task {guests[0].id}"
        raise Refused(400, f"{_PRECONDITION}{held}" + (f" (container {guests[0].name})" if guests[0].name else ""))
    if any(_holds(snap, network)):
        return Change(network, replace(network, pending_delete=True))
    return Change(network, None)


def is_used(snap: Snapshot, network: Network) -> bool:
    """Whether a service or a single container is in it."""
    return bool(services_using(snap, network) or guests_of(snap, network.id))


def services_using(snap: Snapshot, network: Network) -> list[Service]:
    """Services that are attached to it, or publish ports through it, by id. Those being removed do not count."""
    return sorted((s for s in snap.services.values() if not s.pending_delete and _uses(s, network)), key=lambda s: s.id)


def _uses(service: Service, network: Network) -> bool:
    if network.spec.ingress:
        endpoint = service.spec.endpoint_spec
        return endpoint is not None and any(p.publish_mode == "ingress" for p in endpoint.ports)
    spec = service.spec
    return any(a.target in (network.id, network.name) for a in (*spec.task_template.networks, *spec.networks))


def _holds(snap: Snapshot, network: Network) -> Iterator[str]:
    for task in snap.tasks.values():
        if snap.state_of(task) <= TaskState.RUNNING and any(a.network_id == network.id for a in task.attachments):
            yield task.id


def _check_ingress(snap: Snapshot, spec: NetworkSpec) -> None:
    if spec.attachable:
        raise Refused(400, f"{_INVALID}ingress network cannot be attachable")
    there = next((n for n in snap.networks.values() if n.spec.ingress and not n.pending_delete), None)
    if there:
        why = f"ingress network ({there.id}) is already present"
        raise Refused(409, f"rpc error: code = AlreadyExists desc = {why}")


def _check_addresses(snap: Snapshot, spec: NetworkSpec) -> None:
    """Of IPv6 only where it is asked for; else its subnets are accepted as Docker does, and given to nobody."""
    mine: dict[int, _Subnet] = {}
    ranges: dict[int, _Subnet] = {}
    for config in spec.ipam.config if spec.ipam else []:
        if not config.subnet:
            if config.gateway or config.ip_range:
                raise Refused(400, f"{_INVALID}ipam configuration: subnet is required with a gateway or an IP range")
            continue
        subnet = _subnet(config.subnet, "invalid subnet")
        if subnet.version == 6 and not spec.enable_ipv6:
            continue
        if config.gateway:
            _address_in(subnet, config.gateway, "gateway")
        ranges[subnet.version] = inside = _subnet(config.ip_range, "invalid range") if config.ip_range else subnet
        if not _within(inside, subnet):
            why = f"subnet {config.subnet} does not contain range {config.ip_range}"
            raise Refused(400, f"{_INVALID}ipam configuration: {why}")
        for address in config.auxiliary_addresses.values():
            _address_in(subnet, address, "auxiliary address")
        if subnet.version in mine:
            words = (
                f"an overlay network of several IPv{subnet.version} subnets is not supported: make one larger subnet"
            )
            raise Refused(501, words)
        mine[subnet.version] = subnet
    if 6 in ranges:
        _check_room(snap, mine.get(4), ranges[6])
    # A network that is being removed keeps its subnet until its last container has ended: the new one waits for it.
    there = [n for n in snap.networks.values() if not n.pending_delete and not n.node_local]
    taken = [subnet for network in there for subnet in _subnets_of(network)]
    for subnet in mine.values():
        if any(_overlap(subnet, other) for other in taken):
            why = "invalid pool request: Pool overlaps with other one on this address space"
            raise Refused(400, _INVALID + why)


def _check_room(snap: Snapshot, first: _Subnet | None, second: _Subnet) -> None:
    """Every IPv4 address needs one that goes with it (see `core.families`)."""
    cluster = snap.cluster
    bits = 32 - first.prefixlen if first else 32 - (cluster.subnet_size if cluster else 24)
    if second.prefixlen > 128 - bits:
        why = f"{second} has fewer addresses than the IPv4 subnet: /{128 - bits} is the smallest"
        raise Refused(400, f"{_INVALID}ipam configuration: {why}")


def _subnets_of(network: Network) -> Iterator[_Subnet]:
    asked = [c.subnet for c in network.spec.ipam.config] if network.spec.ipam else []
    for text in {network.subnet, network.subnet6, *asked} - {""}:
        subnet = ipaddress.ip_network(text, strict=False)
        if subnet.version == 4 or network.spec.enable_ipv6:
            yield subnet


def _overlap(one: _Subnet, other: _Subnet) -> bool:
    return one.version == other.version and one.overlaps(other)


def _subnet(text: str, complaint: str) -> _Subnet:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise Refused(400, f"{_INVALID}ipam configuration: {complaint} {text}") from error


def _within(inner: _Subnet, outer: _Subnet) -> bool:
    if isinstance(inner, ipaddress.IPv4Network):
        return isinstance(outer, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, ipaddress.IPv6Network) and inner.subnet_of(outer)


def _address_in(subnet: _Subnet, text: str, what: str) -> None:
    try:
        inside = ipaddress.ip_address(text) in subnet
    except ValueError:
        raise Refused(400, f"{_INVALID}ipam configuration: invalid {what} {text}") from None
    if not inside:
        raise Refused(400, f"{_INVALID}ipam configuration: subnet {subnet} does not contain {what} {text}")
