"""What networks, services and tasks need before a task can be placed.

A network gets a subnet, a VXLAN id, the gateway that is shown, and a gateway address for every node. A service gets
its published port numbers and one virtual address in each of its networks. A task gets an address in each of its
networks and becomes PENDING. Order matters: tasks wait for their service, services for their networks.

Keys: a network's id, a service's id, or `CLUSTER` for what concerns all networks (nodes, pools). A network's key also
serves the services that waited for it. Whoever gives an address moves the network's guard (`core.guards`), so of two
plans that give the same one, the second is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network
from math import inf

from msgspec.structs import replace

from afterswarm.core import families
from afterswarm.core.allocate import ports
from afterswarm.core.allocate.addresses import Pool, Subnets, Use, asked, in_the_way, in_use
from afterswarm.model.base import Change, Plan
from afterswarm.model.cluster import Cluster
from afterswarm.model.network import PREDEFINED, Network
from afterswarm.model.node import Node, NodeReport
from afterswarm.model.service import Endpoint, PortConfig, Service, TaskSpec, VirtualIP
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Attachment, Task, TaskState

CLUSTER = "cluster"
BATCH = 200  # changes in one commit, which the store limits in size
RETRY = 1.0  # seconds until an exhausted pool is looked at again
PENDING_MESSAGE = "pending task scheduling"


def keys_of(change: Change) -> Iterator[str]:
    """A network or service: itself. A node that comes, goes or can encrypt now: `CLUSTER`. A new task: its service."""
    match change.obj:
        case Network(id=key) | Service(id=key):
            yield key
        case Task(service_id=key, state=TaskState.NEW) if change.new is not None:
            yield key
        case Node() if change.old is None or change.new is None:
            yield CLUSTER
        case NodeReport(wireguard=key) if not isinstance(change.old, NodeReport) or change.old.wireguard != key:
            yield CLUSTER
        case Cluster():
            yield CLUSTER
        case _:
            return


def plan(snap: Snapshot, key: str) -> Plan:
    """Give this network or service, or all networks, what they lack. See the module for keys."""
    work = _Work(snap)
    if key == CLUSTER:
        for _, network in sorted(snap.networks.items()):
            work.network(network)
    elif key in snap.networks:
        work.network(snap.networks[key])
        if not work.changes:
            for service in waiting_for(snap, key):
                work.service(service)
    elif key in snap.services:
        work.service(snap.services[key])
    return Plan(work.changes, wake_at=work.wake_at, why="; ".join(work.did))


def waiting_for(snap: Snapshot, network_id: str) -> list[Service]:
    """Services that may be waiting for this network to be allocated."""
    return [
        service
        for _, service in sorted(snap.services.items())
        if network_id in networks_of(snap, service, service.spec.task_template)
        and (service.endpoint is None or any(t.state == TaskState.NEW for t in snap.tasks_of(service.id)))
    ]


def networks_of(snap: Snapshot, service: Service, template: TaskSpec) -> list[str]:
    """Ids of the overlay networks of a service, or of one of its tasks by the task's own template.

    The ingress network belongs to it when a port is published there.
    """
    found = [n.target for n in template.networks if n.target not in PREDEFINED]
    if needs_ingress(service) and not any(n.target in PREDEFINED for n in template.networks):
        found += [n.id for _, n in sorted(snap.networks.items()) if n.spec.ingress and not n.pending_delete]
    return list(dict.fromkeys(found))


def needs_ingress(service: Service) -> bool:
    endpoint = service.spec.endpoint_spec
    return endpoint is not None and any(p.publish_mode == "ingress" for p in endpoint.ports)


class _Lacking(Exception):
    """What cannot be given now, as `docker service ps` shows it. `wait`: it comes by itself, nothing need be said."""

    def __init__(self, why: str, *, wait: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.wait = wait


class _Work:
    """Scratch paper of one plan: what was given so far."""

    def __init__(self, snap: Snapshot) -> None:
        self.snap = snap
        self.changes: list[Change] = []
        self.did: list[str] = []
        self.wake_at = inf
        self._subnets: Subnets | None = None
        self._use: defaultdict[str, Use] | None = None
        self._drawn: set[ports.Number] = set()
        self._pools: dict[str, Pool] = {}

    def network(self, network: Network) -> None:
        if network.pending_delete or network.node_local:
            return
        if not network.subnet and in_the_way(self.snap, network):
            self.wake_at = self.snap.now + RETRY
            return
        new = network
        if not new.subnet:
            new = replace(new, subnet=asked(network).subnet or self.subnets.take())
        if not new.subnet:
            self.wake_at = self.snap.now + RETRY
            return
        if not new.vni:
            new = replace(new, vni=self.subnets.take_vni())
        if not new.gateway:
            new = replace(new, gateway=asked(network).gateway or first_address(new.subnet))
        if new.spec.enable_ipv6 and not new.subnet6:
            new = self._second_family(new)
        gateways = {node: new.gateways[node] for node in sorted(self.snap.nodes) if node in new.gateways}
        if gateways != new.gateways:
            new = replace(new, gateways=gateways)
        if missing := sorted(n for n in self.snap.nodes if n not in gateways and self._may_be_in(n, network)):
            pool = Pool(new, self.use[network.id])
            added = {node: address for node in missing if (address := pool.take_gateway())}
            new = replace(new, gateways=dict(sorted({**gateways, **added}.items())))
        if new != network:
            self.changes.append(Change(network, new))
            self.did.append(f"network {network.name} has {new.subnet} and {len(new.gateways)} gateways")

    def _may_be_in(self, node: str, network: Network) -> bool:
        """One that cannot encrypt gets no address: without, no daemon makes a link, whatever version it is of."""
        report = self.snap.node_reports.get(node)
        return not network.encrypted or bool(report and report.wireguard)

    def _second_family(self, network: Network) -> Network:
        """Once, with the first: containers that are there would have to be made anew."""
        chosen = families.asked(network)
        subnet = str(IPv6Network(chosen.subnet, strict=False)) if chosen.subnet else self.subnets.take6()
        gateway = chosen.gateway or str(IPv6Network(subnet)[1])
        inside = str(IPv6Network(chosen.ip_range, strict=False)) if chosen.ip_range else ""
        return replace(network, subnet6=subnet, range6=inside, gateway6=gateway)

    def service(self, service: Service) -> None:
        if service.pending_delete:
            return
        tasks = [
            t
            for t in self.snap.tasks_of(service.id)
            if t.state == TaskState.NEW and t.desired <= TaskState.COMPLETE and self.snap.state_of(t) == TaskState.NEW
        ]
        try:
            endpoint = Endpoint(ports=self._ports(service), virtual_ips=self._virtual_ips(service))
        except _Lacking as lacking:
            self._wait(tasks, lacking)
            return
        if endpoint != service.endpoint:
            self.changes.append(Change(service, replace(service, endpoint=endpoint)))
            self.did.append(f"service {service.name} has its addresses and ports")
        ready = 0
        for task in tasks:
            if len(self.changes) >= BATCH:
                self.wake_at = self.snap.now
                break
            try:
                attachments = self._attachments(service, task)
            except _Lacking as lacking:
                self._wait([task], lacking)
                continue
            pending = replace(
                task,
                state=TaskState.PENDING,
                since=self.snap.now,
                message=PENDING_MESSAGE,
                err="",
                attachments=attachments,
            )
            self.changes.append(Change(task, pending))
            ready += 1
        if ready:
            self.did.append(f"{ready} task{'s' if ready > 1 else ''} of {service.name} can be placed")

    @property
    def subnets(self) -> Subnets:
        self._subnets = self._subnets or Subnets(self.snap)
        return self._subnets

    @property
    def use(self) -> defaultdict[str, Use]:
        if self._use is None:
            self._use = in_use(self.snap)
        return self._use

    def _ports(self, service: Service) -> list[PortConfig]:
        given = ports.published(self.snap, service, self._drawn)
        if given is None:
            raise _Lacking(f"no free port left between {ports.FIRST} and {ports.LAST}")
        return given

    def _virtual_ips(self, service: Service) -> list[VirtualIP]:
        needed = networks_of(self.snap, service, service.spec.task_template)
        needed = [n for n in needed if not self._allocated(n).node_local]
        if service.spec.endpoint_spec and service.spec.endpoint_spec.mode == "dnsrr":
            return []
        had = {ip.network_id: ip for ip in (service.endpoint.virtual_ips if service.endpoint else [])}
        new = self._addresses(n for n in needed if n not in had)
        return [had.get(n) or VirtualIP(network_id=n, addr=new[n]) for n in needed]

    def _attachments(self, service: Service, task: Task) -> list[Attachment]:
        needed = networks_of(self.snap, service, task.spec)
        shared = [n for n in needed if not self._allocated(n).node_local]
        aliases = {n.target: n.aliases for n in task.spec.networks}
        had = {a.network_id: a for a in task.attachments}
        new = self._addresses(n for n in shared if n not in had)
        return [
            had.get(n) or Attachment(network_id=n, address=new.get(n, ""), aliases=aliases.get(n, [])) for n in needed
        ]

    def _allocated(self, network_id: str) -> Network:
        network = self.snap.networks.get(network_id)
        if network is None or network.pending_delete:
            raise _Lacking(f"network {network.name if network else network_id} not found")
        if not network.node_local and not (network.subnet and network.vni):
            if before := in_the_way(self.snap, network):
                raise _Lacking(f"network {network.name} has no subnet yet: {before.name} ({before.id}) still has it")
            if asked(network).subnet or network.subnet or self.subnets.take():
                raise _Lacking(f"network {network.name} has no subnet yet", wait=True)
            pools = self.snap.cluster.default_addr_pool if self.snap.cluster else []
            raise _Lacking(f"network {network.name} has no subnet: the address pool {', '.join(pools)} is exhausted")
        return network

    def _addresses(self, network_ids: Iterable[str]) -> dict[str, str]:
        """One address in each of these networks, or none in any: what is not used must not be missing for others."""
        pools = {n: self._pool(self._allocated(n)) for n in network_ids}
        for network_id, pool in pools.items():
            if pool.is_empty():
                network = self.snap.networks[network_id]
                raise _Lacking(f"no address left in network {network.name} ({network.subnet})")
        return {n: pool.take() for n, pool in pools.items()}

    def _pool(self, network: Network) -> Pool:
        if network.id not in self._pools:
            self._pools[network.id] = Pool(network, self.use[network.id])
        return self._pools[network.id]

    def _wait(self, tasks: list[Task], lacking: _Lacking) -> None:
        if lacking.wait:
            return
        self.wake_at = min(self.wake_at, self.snap.now + RETRY)
        unsaid = [Change(t, replace(t, err=lacking.why)) for t in tasks if t.err != lacking.why]
        self.changes += unsaid[:BATCH]


def first_address(subnet: str) -> str:
    """The address that Docker shows as a network's gateway unless told otherwise."""
    return str(next(IPv4Network(subnet).hosts()))
