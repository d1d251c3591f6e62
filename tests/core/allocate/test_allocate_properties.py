"""Whatever there is, and wherever a plan is cut short: nothing is given twice, and it ends.

A swarm is drawn, then planned key by key in a drawn order, each plan applied up to a drawn point, as if the manager had
gone in between; new tasks come and old ones go meanwhile.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from afterswarm.core import allocate, families
from afterswarm.core.admit.defaults import ingress_network
from afterswarm.core.allocate.plan import CLUSTER
from afterswarm.model.base import Change, Obj
from afterswarm.model.cluster import Cluster
from afterswarm.model.network import IPAM, IPAMConfig, Network, NetworkSpec
from afterswarm.model.node import Node
from afterswarm.model.service import (
    EndpointSpec,
    NetworkAttachmentConfig,
    PortConfig,
    Service,
    ServiceSpec,
    TaskSpec,
)
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Report, Task, TaskState

Objects = dict[tuple[type[Obj], str], Obj]

NETWORKS = ["a", "b", "c"]
PORTS = st.lists(
    st.builds(
        PortConfig,
        target_port=st.sampled_from([80, 443]),
        publish_mode=st.sampled_from(["ingress", "host"]),
        protocol=st.sampled_from(["tcp", "udp"]),
    ),
    max_size=3,
)


@st.composite
def swarms(draw: st.DrawFn) -> list[Obj]:
    size = draw(st.sampled_from([27, 28, 29]))
    objects: list[Obj] = [Cluster(id="c", default_addr_pool=["10.1.0.0/24"], subnet_size=size), ingress_network("")]
    objects += [Node(id=f"n{n}") for n in range(draw(st.integers(0, 3)))]
    for name in NETWORKS:
        ipam = IPAM(config=[IPAMConfig(subnet="10.1.0.64/27")]) if name == "c" and draw(st.booleans()) else None
        objects.append(Network(id=name, spec=NetworkSpec(name=name, ipam=ipam, enable_ipv6=draw(st.booleans()))))
    for name in ("s", "t", "u"):
        targets = draw(st.lists(st.sampled_from([*NETWORKS, "host", "gone"]), unique=True, max_size=2))
        template = TaskSpec(networks=[NetworkAttachmentConfig(target=t) for t in targets])
        endpoint = EndpointSpec(mode=draw(st.sampled_from(["", "dnsrr"])), ports=draw(PORTS))
        spec = ServiceSpec(name=name, task_template=template, endpoint_spec=endpoint)
        objects.append(Service(id=name, spec=spec, pending_delete=draw(st.integers(0, 4)) == 0))
        objects += [_task(name, template, n) for n in range(draw(st.integers(0, 8)))]
    return objects


def _task(service_id: str, template: TaskSpec, n: int) -> Task:
    return Task(id=f"{service_id}{n}", service_id=service_id, slot=n + 1, spec=template)


def of(objects: Objects) -> Snapshot:
    return Snapshot.of(objects.values(), rev=1, now=1.0)


def apply(objects: Objects, changes: list[Change]) -> None:
    for change in changes:
        assert change.new is not None
        assert change.old is not None
        assert objects[type(change.new), change.new.id] == change.old
        objects[type(change.new), change.new.id] = change.new


def check(snap: Snapshot) -> None:
    """What holds at every moment."""
    subnets = [IPv4Network(n.subnet) for n in snap.networks.values() if n.subnet]
    assert not any(one.overlaps(other) for one, other in combinations(subnets, 2))
    dual = [n for n in snap.networks.values() if n.subnet6]
    assert not any(
        IPv6Network(one.subnet6).overlaps(IPv6Network(other.subnet6)) for one, other in combinations(dual, 2)
    )
    assert all(bool(n.subnet6) == bool(n.subnet and n.spec.enable_ipv6) for n in snap.networks.values())
    for n in dual:
        assert all(IPv6Address(families.twin(n, a)) in IPv6Network(n.subnet6) for a in n.gateways.values())
        assert n.gateway6 not in {families.twin(n, a) for a in n.gateways.values()}
    vnis = [n.vni for n in snap.networks.values() if n.vni]
    assert len(vnis) == len(set(vnis))
    assert all(vni >= 4096 for vni in vnis)
    numbers = [
        (p.protocol, p.published_port)
        for s in snap.services.values()
        for p in (s.endpoint.ports if s.endpoint else [])
        if p.published_port
    ]
    assert len(numbers) == len(set(numbers))
    for network in snap.networks.values():
        held = [
            a.address
            for t in snap.tasks.values()
            if snap.state_of(t) <= TaskState.RUNNING
            for a in t.attachments
            if a.network_id == network.id
        ]
        virtual = [
            ip.addr
            for s in snap.services.values()
            if s.endpoint
            for ip in s.endpoint.virtual_ips
            if ip.network_id == network.id
        ]
        plain = [a.partition("/")[0] for a in virtual + held] + list(network.gateways.values())
        assert len(plain) == len(set(plain))
        assert network.gateway not in plain
        assert all(IPv4Network(f"{a}/32").subnet_of(IPv4Network(network.subnet)) for a in plain)
    for task in snap.tasks.values():
        if task.state == TaskState.PENDING:
            wanted = {n.target for n in task.spec.networks} - {"host"}
            assert wanted <= {a.network_id for a in task.attachments}
            assert not task.err


def settle(objects: Objects) -> None:
    for _ in range(50):
        changed = False
        for key in (CLUSTER, *sorted(of(objects).networks), *sorted(of(objects).services)):
            planned = allocate.plan(of(objects), key).changes
            apply(objects, planned)
            check(of(objects))
            changed = changed or bool(planned)
        if not changed:
            return
    raise AssertionError("still changing after 50 rounds")


@settings(max_examples=150, deadline=None)
@given(swarms(), st.data())
def test_nothing_is_given_twice_however_often_it_is_cut_short(swarm: list[Obj], data: st.DataObject) -> None:
    objects: Objects = {(type(o), o.id): o for o in swarm}
    keys = [CLUSTER, *of(objects).networks, *of(objects).services]
    for step in range(data.draw(st.integers(0, 12))):
        planned = allocate.plan(of(objects), data.draw(st.sampled_from(keys))).changes
        apply(objects, planned[: data.draw(st.integers(0, len(planned)))])
        check(of(objects))
        tasks = sorted(of(objects).tasks)
        if not tasks:
            continue
        task = of(objects).tasks[data.draw(st.sampled_from(tasks))]
        match data.draw(st.sampled_from(["nothing", "stops", "goes", "comes", "node comes", "node goes"])):
            case "stops" if task.state == TaskState.PENDING:
                objects[Report, task.id] = Report(id=task.id, state=TaskState.FAILED)
            case "goes":
                del objects[Task, task.id]
                objects.pop((Report, task.id), None)
            case "comes":
                new = _task(task.service_id, task.spec, 100 + step)
                objects[Task, new.id] = new
            case "node comes":
                objects[Node, f"m{step}"] = Node(id=f"m{step}")
            case "node goes":
                objects.pop((Node, "n0"), None)
            case _:
                pass
        check(of(objects))
    settle(objects)


@settings(max_examples=100, deadline=None)
@given(swarms())
def test_one_more_round_changes_nothing(swarm: list[Obj]) -> None:
    objects: Objects = {(type(o), o.id): o for o in swarm}
    settle(objects)
    snap = of(objects)
    assert not any(allocate.plan(snap, k).changes for k in (CLUSTER, *snap.networks, *snap.services))
    for task in snap.tasks.values():
        service = snap.services[task.service_id]
        assert task.state == TaskState.PENDING or task.err or service.pending_delete, "each one goes on or says why"


@settings(max_examples=100, deadline=None)
@given(swarms(), st.data())
def test_the_order_of_objects_does_not_matter(swarm: list[Obj], data: st.DataObject) -> None:
    objects: Objects = {(type(o), o.id): o for o in swarm}
    for _ in range(data.draw(st.integers(0, 3))):
        for key in (CLUSTER, *of(objects).services):
            apply(objects, allocate.plan(of(objects), key).changes)
    shuffled = data.draw(st.permutations(list(objects.values())))
    for key in (CLUSTER, *sorted(of(objects).networks), *sorted(of(objects).services)):
        assert allocate.plan(of(objects), key) == allocate.plan(Snapshot.of(shuffled, rev=1, now=1.0), key)


@settings(max_examples=50, deadline=None)
@given(swarms())
def test_nothing_leaks(swarm: list[Obj]) -> None:
    """Addresses of everything that went are there again: as many tasks as before find one."""
    objects: Objects = {(type(o), o.id): o for o in swarm}
    settle(objects)
    before = Counter(t.service_id for t in of(objects).tasks.values() if t.state == TaskState.PENDING)
    for _ in range(10):
        for task in list(of(objects).tasks.values()):
            del objects[Task, task.id]
            fresh = replace(task, state=TaskState.NEW, attachments=[], err="", message="")
            objects[Task, task.id] = fresh
        settle(objects)
    assert Counter(t.service_id for t in of(objects).tasks.values() if t.state == TaskState.PENDING) == before
