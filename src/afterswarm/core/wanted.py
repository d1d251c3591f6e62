"""What one host should be doing: its tasks, and everything that its routing needs to know of the others.

Only what a node needs is sent to it: secrets of its own tasks, networks that its tasks are in, routes of services it
shares a network with. Ports published in ingress mode are answered by every host, so their services go to all.

`route`, `placement`, `peers` are computed once and shared between sessions by `control.dispatch`; `wanted` puts them
together for one node and is the definition of what is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from afterswarm.core import families, payloads, publishing
from afterswarm.core.dns import named_ports
from afterswarm.core.floating import place
from afterswarm.core.host import container_config
from afterswarm.core.options import traffic
from afterswarm.core.payloads import Used
from afterswarm.core.trust.certificate import role_of
from afterswarm.model.floating import Floating
from afterswarm.model.guest import Guest
from afterswarm.model.network import Network
from afterswarm.model.node import Description, NodeState, Role
from afterswarm.model.service import Service
from afterswarm.model.session import Peer, Route, Target
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Task, TaskState

SHORT = 12  # characters of a container's id that are a name of it
_MAY_RUN = frozenset({TaskState.RUNNING, TaskState.COMPLETE})  # desired states in which a running task takes traffic


class Placement(msgspec.Struct, frozen=True):
    """What one node has to do itself. The rest is sorted and belongs to tasks that may still run."""

    tasks: list[Task] = []
    secrets: tuple[Used, ...] = ()
    configs: tuple[Used, ...] = ()
    auths: tuple[str, ...] = ()  # services with credentials for their registry
    network_ids: frozenset[str] = frozenset()  # of its own tasks and guests
    guests: list[Guest] = []


class Parts(msgspec.Struct, frozen=True):
    """Everything of a `Wanted` that needs no key: secrets and configs are named, not filled in."""

    role: Role
    tasks: list[Task]
    secrets: tuple[Used, ...]
    configs: tuple[Used, ...]
    auths: tuple[str, ...]
    networks: list[Network]
    routes: list[Route]
    guests: list[Guest]
    peers: list[Peer]
    floating: Floating


def wanted(snap: Snapshot, node_id: str) -> Parts:
    """What this node must have at the snapshot's revision."""
    own = placement(snap, node_id)
    services = sorted(snap.services.values(), key=lambda s: s.id)
    return Parts(
        role=role(snap, node_id),
        tasks=own.tasks,
        secrets=own.secrets,
        configs=own.configs,
        auths=own.auths,
        networks=networks(snap, own.network_ids),
        routes=[route(snap, s) for s in services if concerns(s, networks_of(snap, s), own.network_ids)]
        + [guest_route(snap, g) for _, g in sorted(snap.guests.items()) if g.attachment.network_id in own.network_ids],
        guests=own.guests,
        peers=peers(snap),
        floating=place.floating(snap, node_id),
    )


def role(snap: Snapshot, node_id: str) -> Role:
    """The role that the node's certificate should name; a worker's when the node is no more."""
    node = snap.nodes.get(node_id)
    return role_of(node) if node else Role.WORKER


def placement(snap: Snapshot, node_id: str) -> Placement:
    """The node's tasks and what they refer to.

    An orphaned task is not among them, however it was last reported: its slot has been given away, so a container of
    it that is still there is to be stopped.
    """
    tasks = [t for t in snap.tasks_on(node_id) if TaskState.ASSIGNED <= t.state < TaskState.REMOVE]
    secrets: set[Used] = set()
    configs: set[Used] = set()
    network_ids: set[str] = set()
    auths: set[str] = set()
    for task in tasks:
        if snap.state_of(task) > TaskState.RUNNING:
            continue
        network_ids.update(a.network_id for a in task.attachments)
        container = task.spec.container_spec
        if container and task.desired <= TaskState.COMPLETE:
            secrets.update(payloads.secrets(container))
            configs.update(payloads.configs(container))
            service = snap.services.get(task.service_id)
            if service and service.pull_auth:
                auths.add(service.id)
    guests = [guest for _, guest in sorted(snap.guests.items()) if guest.node_id == node_id]
    network_ids.update(guest.attachment.network_id for guest in guests)
    return Placement(
        tasks=tasks,
        guests=guests,
        secrets=tuple(sorted(used for used in secrets if payloads.find(snap, used))),
        configs=tuple(sorted(used for used in configs if payloads.find(snap, used))),
        auths=tuple(sorted(auths)),
        network_ids=frozenset(network_ids),
    )


def networks(snap: Snapshot, ids: Iterable[str]) -> list[Network]:
    """These networks and the ingress one, as far as they have been allocated, by id."""
    chosen = set(ids)
    return [
        network
        for _, network in sorted(snap.networks.items())
        if (network.subnet or network.node_local) and (network.id in chosen or network.spec.ingress)
    ]


def networks_of(snap: Snapshot, service: Service) -> frozenset[str]:
    """Every network that the service or one of its tasks is in."""
    ids = {n.target for n in service.spec.task_template.networks}
    if service.endpoint:
        ids.update(v.network_id for v in service.endpoint.virtual_ips)
    for task in snap.tasks_of(service.id):
        ids.update(a.network_id for a in task.attachments)
    return frozenset(ids)


def concerns(service: Service, service_networks: frozenset[str], node_networks: frozenset[str]) -> bool:
    """Whether a node whose tasks are in `node_networks` needs the route of this service."""
    return publishes(service) or not node_networks.isdisjoint(service_networks)


def publishes(service: Service) -> bool:
    """Whether every host answers a port of this service."""
    return service.endpoint is not None and any(p.publish_mode == "ingress" for p in service.endpoint.ports)


def route(snap: Snapshot, service: Service) -> Route:
    """How every host reaches the service. One that was removed keeps its tasks' addresses only, until they stop."""
    endpoint = service.endpoint
    targets = [t for t in (_target(snap, service, task) for task in snap.tasks_of(service.id)) if t]
    spec = service.spec.endpoint_spec
    mode = (spec.mode if spec else "") or "vip"
    if endpoint is None or service.pending_delete:
        return Route(service_id=service.id, name=service.name, mode=mode, targets=targets)
    vips = {v.network_id: _plain(v.addr) for v in endpoint.virtual_ips if v.addr}
    return Route(
        service_id=service.id,
        name=service.name,
        mode=mode,
        vips=vips,
        vips6=families.twins(snap.networks, vips),
        aliases={n.target: n.aliases for n in service.spec.task_template.networks if n.aliases},
        ports=[p for p in endpoint.ports if p.publish_mode == "ingress"],
        named_ports=named_ports.named(service),
        published_on=publishing.of_mesh(service),
        published_through=publishing.through(service),
        masquerade=traffic.masquerades(service.spec.labels),
        drain=traffic.drain(service.spec.labels),
        targets=targets,
    )


def guest_route(snap: Snapshot, guest: Guest) -> Route:
    """How other hosts reach a guest. While it does not run it has no name."""
    node = snap.nodes.get(guest.node_id)
    here = guest.attachment
    name = guest.name if guest.running else ""
    addresses = {here.network_id: _plain(here.address)}
    target = Target(
        task_id=guest.id,
        node_id=guest.node_id,
        name=name,
        addresses=addresses,
        addresses6=_second(snap, guest.node_id, addresses),
        ready=guest.running and node is not None and node.state != NodeState.DOWN,
    )
    aliases = {here.network_id: here.aliases} if name and here.aliases else {}
    return Route(service_id=guest.id, name=name, mode="dnsrr", aliases=aliases, targets=[target], guest=True)


def peers(snap: Snapshot) -> list[Peer]:
    """All nodes that have said where they are, by id."""
    found: list[Peer] = []
    for node_id, node in sorted(snap.nodes.items()):
        report = snap.node_reports.get(node_id)
        if report is None or not report.address:
            continue
        found.append(
            Peer(
                node_id=node_id,
                hostname=report.description.hostname,
                address=report.address,
                port=report.port,
                data_path=report.data_path or report.address,
                manager=node.role == Role.MANAGER,
                up=node.state != NodeState.DOWN,
                returns=report.returns,
                wireguard=report.wireguard,
                mtu=report.mtu,
                ipv6=report.ipv6,
            )
        )
    return found


def _target(snap: Snapshot, service: Service, task: Task) -> Target | None:
    state = snap.state_of(task)
    if not task.node_id or not TaskState.ASSIGNED <= state <= TaskState.RUNNING:
        return None
    node = snap.nodes.get(task.node_id)
    running = state == TaskState.RUNNING and node is not None and node.state != NodeState.DOWN
    may_run = task.desired in _MAY_RUN and not service.pending_delete
    addresses = {a.network_id: _plain(a.address) for a in task.attachments if a.address}
    return Target(
        task_id=task.id,
        node_id=task.node_id,
        name=f"{service.name}.{task.place}.{task.id}",
        slot=task.slot,
        addresses=addresses,
        addresses6=_second(snap, task.node_id, addresses),
        hostnames=_hostnames(snap, task),
        ready=running and may_run,
        draining=running and not may_run,
    )


def _second(snap: Snapshot, node_id: str, addresses: Mapping[str, str]) -> dict[str, str]:
    """The IPv6 addresses of what runs on this node, whose kernel may have none."""
    report = snap.node_reports.get(node_id)
    return families.twins(snap.networks, addresses) if report and report.ipv6 is not None else {}


def _hostnames(snap: Snapshot, task: Task) -> list[str]:
    """The names that a container has beside the task's: its own, and the beginning of its id."""
    report, node = snap.reports.get(task.id), snap.node_reports.get(task.node_id)
    found = [report.container_id[:SHORT]] if report and report.container_id else []
    if task.spec.container_spec and task.spec.container_spec.hostname:
        said = node.description if node else Description()
        place = container_config.Place(node_id=task.node_id, hostname=said.hostname, platform=said.platform)
        found.append(container_config.hostname(task, place))
    return [name for name in found if name]


def _plain(address: str) -> str:
    return address.partition("/")[0]
