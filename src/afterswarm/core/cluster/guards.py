"""Which guards a write moves: so that a commit is checked against what was read, not only against what it writes.

A guard is a key of its own in the store. A commit is refused when one of its guards moved after the revision that it
was planned from, and moves them all itself: of two writers that decided from the same picture, one loses and looks
again. Each guard stands for one question that a decision asks of many objects:

    service/<id>            the service and all its tasks (slots, desired states)
    node/<id>               the node (its state, availability, role)
    managers                which nodes are managers
    network/<id>            the network, and every address given out in it
    networks                the subnets and VXLAN ids of all networks
    ports                   the ports that services publish
    cluster-volume/<id>     the cluster volume
    secret/<id>, config/<id>  the object, and which services use which version of it
    name/<kind>/<name>      who has the name
    cluster                 the settings of the swarm

What only frees something (an address, a name, a port) moves no guard for it: nobody decides wrongly by still thinking
it taken. Reports, node reports and suspicions have one writer each and move none. Guards stay behind when their
object goes, since a late writer must still be refused; when many have come together, all are forgotten at once and
whoever planned before that has to look again (`ports.Store.sweep`).
"""

from __future__ import annotations

from collections.abc import Iterator

from afterswarm.core import payloads
from afterswarm.model.base import Change
from afterswarm.model.cluster import Cluster
from afterswarm.model.guest import Guest
from afterswarm.model.network import Network
from afterswarm.model.node import Node, Role
from afterswarm.model.secret import Config, Payload, Secret
from afterswarm.model.service import PortConfig, Service
from afterswarm.model.task import Task
from afterswarm.model.volume import ClusterVolume


def guards_of(change: Change) -> set[str]:
    """The guards that this change validates and moves."""
    return set(_guards(change))


def _guards(change: Change) -> Iterator[str]:
    old, new = change.old, change.new
    match change.obj:
        case Service(id=service_id):
            yield f"service/{service_id}"
            yield from _service(
                old if isinstance(old, Service) else None,
                new if isinstance(new, Service) else None,
            )
        case Task(service_id=service_id):
            yield f"service/{service_id}"
            yield from _network_guards(_addresses(new) - _addresses(old))
        case Guest():
            yield from _network_guards(_addresses(new) - _addresses(old))
        case Network(id=network_id):
            yield f"network/{network_id}"
            if new is not None and _pools(old) != _pools(new):
                yield "networks"
        case Node(id=node_id):
            yield f"node/{node_id}"
            if _manager(old) != _manager(new):
                yield "managers"
        case Secret(id=secret_id):
            yield f"secret/{secret_id}"
        case Config(id=config_id):
            yield f"config/{config_id}"
        case Payload(owner=owner, sealed=sealed):
            yield f"secret/{owner}" if sealed else f"config/{owner}"
        case Cluster():
            yield "cluster"
        case ClusterVolume(id=volume_id):
            yield f"cluster-volume/{volume_id}"
        case _:
            return
    yield from _name(change)


def _name(change: Change) -> Iterator[str]:
    """The name that is taken, if it is new. Names of nodes need not be unique."""
    old, new = change.old, change.new
    if isinstance(new, Service | Network | Secret | Config | ClusterVolume):
        had = old.name if isinstance(old, Service | Network | Secret | Config | ClusterVolume) else None
        if new.name != had:
            yield f"name/{type(new).__name__.lower()}/{new.name}"


def _service(old: Service | None, new: Service | None) -> Iterator[str]:
    yield from sorted({guard for guard, _ in _references(old) ^ _references(new)})
    yield from _network_guards(_virtual_ips(new) - _virtual_ips(old))
    if _ports(new) - _ports(old):
        yield "ports"


def _references(service: Service | None) -> set[tuple[str, int]]:
    """What a service uses, as guard and version: whoever removes or replaces one of these looks for users."""
    if service is None:
        return set()
    template = service.spec.task_template
    container = template.container_spec
    found = {(f"network/{n.target}", 0) for n in (*template.networks, *service.spec.networks)}
    found |= {(f"secret/{owner}", version) for owner, version in payloads.secrets(container)}
    return found | {(f"config/{owner}", version) for owner, version in payloads.configs(container)}


def _ports(service: Service | None) -> set[PortConfig]:
    """Ports asked for and ports given."""
    if service is None:
        return set()
    asked = service.spec.endpoint_spec.ports if service.spec.endpoint_spec else []
    given = service.endpoint.ports if service.endpoint else []
    return {*asked, *given}


def _virtual_ips(service: Service | None) -> set[tuple[str, str]]:
    if service is None or service.endpoint is None:
        return set()
    return {(ip.network_id, ip.addr) for ip in service.endpoint.virtual_ips}


def _addresses(holder: object) -> set[tuple[str, str]]:
    attachments = holder.attachments if isinstance(holder, Task) else []
    attachments = [holder.attachment] if isinstance(holder, Guest) else attachments
    return {(a.network_id, a.address) for a in attachments}


def _network_guards(addresses: set[tuple[str, str]]) -> Iterator[str]:
    return (f"network/{network_id}" for network_id, _ in sorted(addresses))


def _pools(network: object) -> tuple[str, str, int] | None:
    return (network.subnet, network.subnet6, network.vni) if isinstance(network, Network) else None


def _manager(node: object) -> tuple[bool, bool] | None:
    """Whether the node is a manager, and whether it should be. Like `None` for a worker that is created or goes."""
    if not isinstance(node, Node):
        return (False, False)
    return (node.role == Role.MANAGER, node.spec.role == Role.MANAGER)
