"""Which subnets, VXLAN ids and addresses are free.

Both classes are scratch paper of one plan: what they gave is taken for the rest of that plan and remembered no longer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from itertools import chain

import msgspec

from afterswarm.core import families
from afterswarm.model.cluster import Cluster
from afterswarm.model.network import IPAMConfig, Network
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Task, TaskState

FIRST_VNI = 4096
LAST_VNI = 2**24 - 1


class Subnets:
    """Subnets and VXLAN ids of all networks of the cluster."""

    def __init__(self, snap: Snapshot) -> None:
        cluster = snap.cluster or Cluster(id="")
        self._pools = [IPv4Network(pool) for pool in cluster.default_addr_pool]
        self._size = cluster.subnet_size
        self._given = [subnet for network in snap.networks.values() for subnet in _subnets(network)]
        # A subnet with a host's own address in it would cut that host off from the others.
        self._hosts = list(_hosts(snap))
        self._pool6 = families.pool(cluster.id)
        self._given6 = [subnet for network in snap.networks.values() for subnet in _subnets6(network)]
        self._vnis = {network.vni for network in snap.networks.values() if network.vni}

    def take(self) -> str:
        """A free subnet, "" when there is none. One that was given back lately comes last: hosts may still have it."""
        for pool in self._pools:
            step = 2 ** (32 - self._size)
            first = int(pool.network_address)
            count = pool.num_addresses // step
            inside = [int(s.broadcast_address) for s in self._given if s.overlaps(pool)]
            start = min((max(inside) - first) // step + 1, count) if inside else 0
            for n in (*range(start, count), *range(start)):
                subnet = IPv4Network((first + n * step, self._size))
                if self._free(subnet):
                    self._given.append(subnet)
                    return str(subnet)
        return ""

    def take6(self) -> str:
        """Likewise of IPv6; there are always more."""
        first, step = int(self._pool6.network_address), 2 ** (128 - families.SUBNET_SIZE)
        count = self._pool6.num_addresses // step
        inside = [int(s.broadcast_address) for s in self._given6 if s.overlaps(self._pool6)]
        start = min((max(inside) - first) // step + 1, count) if inside else 0
        for n in (*range(start, count), *range(start)):
            subnet = IPv6Network((first + n * step, families.SUBNET_SIZE))
            if not any(map(subnet.overlaps, self._given6)):
                self._given6.append(subnet)
                return str(subnet)
        return ""

    def take_vni(self) -> int:
        vni = max(self._vnis, default=FIRST_VNI - 1) + 1
        if not FIRST_VNI <= vni <= LAST_VNI:
            vni = next(n for n in range(FIRST_VNI, LAST_VNI) if n not in self._vnis)
        self._vnis.add(vni)
        return vni

    def _free(self, subnet: IPv4Network) -> bool:
        low, high = int(subnet.network_address), int(subnet.broadcast_address)
        return not any(low <= host <= high for host in self._hosts) and not any(map(subnet.overlaps, self._given))


class Use(msgspec.Struct):
    """The addresses of one network that services, tasks and guests have."""

    held: set[int] = msgspec.field(default_factory=set)  # may be on a wire
    stopped: set[int] = msgspec.field(default_factory=set)  # of tasks that are known to have stopped


class Pool:
    """The addresses of one network, which has a subnet."""

    def __init__(self, network: Network, use: Use) -> None:
        config = asked(network)
        subnet = IPv4Network(network.subnet)
        low, high = int(subnet.network_address), int(subnet.broadcast_address)
        tasks = IPv4Network(config.ip_range, strict=False) if config.ip_range else subnet
        self._size = subnet.prefixlen
        self._all = range(low + 1, high)
        self._range = range(int(tasks.network_address), int(tasks.broadcast_address) + 1)
        reserved = (network.gateway, config.gateway, *network.gateways.values(), *config.auxiliary_addresses.values())
        second = families.asked(network)
        reserved6 = (network.gateway6, second.gateway, *second.auxiliary_addresses.values())
        reserved += tuple(families.place(network, address) for address in reserved6 if address and network.subnet6)
        self._taken = {low, high, *use.held, *(number(address) for address in reserved if address)}
        self._stopped = use.stopped - self._taken
        self._last = max((n for n in use.held if n in self._range), default=self._range.start - 1)
        self._exhausted = False

    def take(self) -> str:
        """An address in CIDR form, "" when there is none.

        The next one after the highest in use. Those of stopped tasks that are still in the history come last.
        """
        n = self._next()
        if n is None:
            return ""
        self._give(n)
        self._last = n
        return f"{IPv4Address(n)}/{self._size}"

    def take_this(self, address: str) -> str:
        """The address in CIDR form, "" when somebody has it or it is not one of the subnet's."""
        n = number(address)
        if n not in self._all or n in self._taken:
            return ""
        self._give(n)
        return f"{IPv4Address(n)}/{self._size}"

    def is_empty(self) -> bool:
        """Whether `take` would find none."""
        return self._next() is None

    def _next(self) -> int | None:
        if self._exhausted:
            return None
        low, high = self._range.start, self._range.stop
        n = next((n for n in chain(range(self._last + 1, high), range(low, high)) if self._free(n)), None)
        n = min(self._stopped & set(self._range), default=None) if n is None else n
        self._exhausted = n is None
        return n

    def take_gateway(self) -> str:
        """A plain address from the end of the subnet, "" when there is none."""
        n = next((n for n in reversed(self._all) if self._free(n)), None)
        if n is None:
            return ""
        self._give(n)
        return str(IPv4Address(n))

    def _free(self, n: int) -> bool:
        return n not in self._taken and n not in self._stopped

    def _give(self, n: int) -> None:
        self._taken.add(n)
        self._stopped.discard(n)


def asked(network: Network) -> IPAMConfig:
    """The user's own choice of IPv4 addresses; empty when there is none."""
    configs = network.spec.ipam.config if network.spec.ipam else []
    return next((c for c in configs if c.subnet and isinstance(ip_network(c.subnet, strict=False), IPv4Network)), _NONE)


def in_the_way(snap: Snapshot, network: Network) -> Network | None:
    """One that is being removed and still has the subnet which this one is to have."""
    subnet, subnet6 = asked(network).subnet, families.asked(network).subnet if network.spec.enable_ipv6 else ""
    going = [other for _, other in sorted(snap.networks.items()) if other.pending_delete]
    if subnet:
        wanted = IPv4Network(subnet, strict=False)
        if other := next((other for other in going if any(map(wanted.overlaps, _subnets(other)))), None):
            return other
    if subnet6:
        wanted6 = IPv6Network(subnet6, strict=False)
        return next((other for other in going if any(map(wanted6.overlaps, _subnets6(other)))), None)
    return None


def number(address: str) -> int:
    """Of "10.0.1.7" and "10.0.1.7/24" alike."""
    return int.from_bytes(bytes(map(int, address.partition("/")[0].split("."))))


def in_use(snap: Snapshot) -> defaultdict[str, Use]:
    """By network id."""
    found: defaultdict[str, Use] = defaultdict(Use)
    for service in snap.services.values():
        for ip in service.endpoint.virtual_ips if service.endpoint else []:
            found[ip.network_id].held.add(number(ip.addr))
    for task in snap.tasks.values():
        for attachment in (a for a in task.attachments if a.address):
            use = found[attachment.network_id]
            (use.stopped if _has_stopped(snap, task) else use.held).add(number(attachment.address))
    for guest in snap.guests.values():
        found[guest.attachment.network_id].held.add(number(guest.attachment.address))
    return found


def _has_stopped(snap: Snapshot, task: Task) -> bool:
    """An orphan has not: its container may still run on a host that nobody hears. One that was replaced before it got
    to a host never began."""
    report = snap.reports.get(task.id)
    if report is not None and report.state > TaskState.RUNNING:
        return True
    if task.desired > TaskState.COMPLETE and snap.state_of(task) < TaskState.ASSIGNED:
        return True
    return task.state == TaskState.ORPHANED and task.node_id not in snap.nodes


def _subnets(network: Network) -> Iterator[IPv4Network]:
    for text in {network.subnet, asked(network).subnet} - {""}:
        yield IPv4Network(text, strict=False)


def _subnets6(network: Network) -> Iterator[IPv6Network]:
    chosen = families.asked(network).subnet if network.spec.enable_ipv6 else ""
    for text in {network.subnet6, chosen} - {""}:
        yield IPv6Network(text, strict=False)


def _hosts(snap: Snapshot) -> Iterator[int]:
    for report in snap.node_reports.values():
        for address in {report.address, report.data_path}:
            with suppress(ValueError):
                yield int(IPv4Address(address))


_NONE = IPAMConfig()
