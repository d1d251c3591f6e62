"""Addresses, subnets and ports: given once, kept, and taken back when nobody has them."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network
from math import inf

from msgspec.structs import replace

from afterswarm.core import allocate
from afterswarm.core.admit.defaults import ingress_network
from afterswarm.core.allocate.plan import BATCH, CLUSTER, RETRY
from afterswarm.core.cluster.guards import guards_of
from afterswarm.model.base import Change, Obj, Plan
from afterswarm.model.cluster import Cluster
from afterswarm.model.network import IPAM, IPAMConfig, Network, NetworkSpec
from afterswarm.model.node import Node, NodeReport
from afterswarm.model.service import (
    Endpoint,
    EndpointSpec,
    NetworkAttachmentConfig,
    PortConfig,
    Service,
    ServiceSpec,
    TaskSpec,
    VirtualIP,
)
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Attachment, Report, Task, TaskState

CLUSTER_OBJECT = Cluster(id="cluster")
NODES = [Node(id="n1"), Node(id="n2"), Node(id="n3")]


class World:
    """Objects, and plans applied to them."""

    def __init__(self, *objects: Obj) -> None:
        self.objects = {(type(o), o.id): o for o in objects}

    def put(self, *objects: Obj) -> None:
        self.objects |= {(type(o), o.id): o for o in objects}

    def drop(self, obj: Obj) -> None:
        del self.objects[type(obj), obj.id]

    def snapshot(self) -> Snapshot:
        return Snapshot.of(self.objects.values(), rev=7, now=1000.0)

    def turn(self, key: str) -> Plan:
        planned = allocate.plan(self.snapshot(), key)
        self.apply(planned.changes)
        return planned

    def settle(self) -> None:
        """Plan every key until nothing is left to do."""
        for _ in range(20):
            snap = self.snapshot()
            changed = [self.turn(k).changes for k in (CLUSTER, *snap.networks, *snap.services)]
            if not any(changed):
                return
        raise AssertionError("still changing")

    def apply(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if change.old is not None:
                assert self.objects[type(change.old), change.old.id] == change.old
            if change.new is None:
                self.drop(change.obj)
            else:
                self.put(change.new)

    def network(self, network_id: str) -> Network:
        found = self.objects[Network, network_id]
        assert isinstance(found, Network)
        return found

    def service(self, service_id: str) -> Service:
        found = self.objects[Service, service_id]
        assert isinstance(found, Service)
        return found

    def task(self, task_id: str) -> Task:
        found = self.objects[Task, task_id]
        assert isinstance(found, Task)
        return found


def network(network_id: str, **ipam: str) -> Network:
    config = IPAM(config=[IPAMConfig(**ipam)]) if ipam else None
    return Network(id=network_id, spec=NetworkSpec(name=f"{network_id}-name", ipam=config))


def service(service_id: str, *networks: str, ports: Iterable[PortConfig] = (), mode: str = "") -> Service:
    template = TaskSpec(networks=[NetworkAttachmentConfig(target=n, aliases=[f"alias-{n}"]) for n in networks])
    endpoint = EndpointSpec(mode=mode, ports=list(ports))
    return Service(id=service_id, spec=ServiceSpec(name=service_id, task_template=template, endpoint_spec=endpoint))


def task(of: Service, slot: int, **fields: object) -> Task:
    made = Task(id=f"{of.id}-{slot}", service_id=of.id, slot=slot, spec=of.spec.task_template)
    return replace(made, **fields)


def plain(address: str) -> str:
    return address.partition("/")[0]


# ---- networks --------------------------------------------------------------------------------------------------


def test_a_network_gets_a_subnet_a_vni_and_a_gateway_for_every_node() -> None:
    world = World(CLUSTER_OBJECT, *NODES, network("a"), network("b"))
    planned = world.turn(CLUSTER)
    a, b = world.network("a"), world.network("b")
    assert (a.subnet, a.gateway, a.vni) == ("10.0.0.0/24", "10.0.0.1", 4096)
    assert (b.subnet, b.gateway, b.vni) == ("10.0.1.0/24", "10.0.1.1", 4097)
    assert a.gateways == {"n1": "10.0.0.254", "n2": "10.0.0.253", "n3": "10.0.0.252"}
    assert {"networks", "network/a"} <= {g for c in planned.changes for g in guards_of(c)}
    assert not world.turn(CLUSTER).changes


def test_a_subnet_comes_free_when_the_network_of_before_is_gone() -> None:
    old = replace(network("a", subnet="10.5.0.0/24"), subnet="10.5.0.0/24", pending_delete=True)
    new, web = network("b", subnet="10.5.0.0/16"), service("web", "b")
    world = World(CLUSTER_OBJECT, *NODES, old, new, web, task(web, 1))
    assert world.turn("b").wake_at < inf
    assert world.network("b").subnet == ""
    world.turn("web")
    assert world.task("web-1").err == "network b-name has no subnet yet: a-name (a) still has it"
    del world.objects[Network, "a"]
    world.settle()
    assert world.network("b").subnet == "10.5.0.0/16"
    assert world.task("web-1").err == ""


def test_the_ingress_network_has_the_subnet_that_docker_gives_it() -> None:
    ingress = ingress_network()
    world = World(CLUSTER_OBJECT, *NODES, network("a"), ingress)
    world.settle()
    assert ingress.name == "ingress"
    assert ingress.spec.ingress
    assert world.network(ingress.id).subnet == "10.0.0.0/24"
    assert world.network("a").subnet == "10.0.1.0/24"


def test_the_users_own_subnet_gateway_and_range_are_honoured() -> None:
    asked = network("a", subnet="192.168.7.0/24", gateway="192.168.7.9", ip_range="192.168.7.64/26")
    config = replace(asked.spec.ipam.config[0], auxiliary_addresses={"printer": "192.168.7.65"})
    asked = replace(asked, spec=replace(asked.spec, ipam=IPAM(config=[config])))
    world = World(CLUSTER_OBJECT, *NODES, asked, network("b"), service("s", "a"))
    world.put(*[task(world.service("s"), n) for n in range(1, 4)])
    world.settle()
    assert world.network("a").subnet == "192.168.7.0/24"
    assert world.network("a").gateway == "192.168.7.9"
    given = {plain(world.task(f"s-{n}").attachments[0].address) for n in range(1, 4)}
    assert given == {"192.168.7.66", "192.168.7.67", "192.168.7.68"}
    assert world.service("s").endpoint.virtual_ips == [VirtualIP(network_id="a", addr="192.168.7.64/24")]
    assert world.network("b").subnet == "10.0.0.0/24"


def test_a_pool_does_not_overlap_what_users_asked_for_nor_a_hosts_own_network() -> None:
    asked = network("z", subnet="10.0.0.0/23")
    host = NodeReport(id="n1", address="10.0.2.17", data_path="10.0.3.17")
    world = World(CLUSTER_OBJECT, *NODES, host, network("a"), asked)
    world.settle()
    assert world.network("a").subnet == "10.0.4.0/24"


def test_a_subnet_given_back_is_the_last_to_be_given_again() -> None:
    world = World(replace(CLUSTER_OBJECT, default_addr_pool=["10.9.0.0/22"]), network("a"), network("b"))
    world.settle()
    world.drop(world.network("a"))
    world.put(network("c"))
    world.settle()
    assert world.network("c").subnet == "10.9.2.0/24"
    world.put(network("d"), network("e"))
    world.settle()
    assert world.network("d").subnet == "10.9.3.0/24"
    assert world.network("e").subnet == "10.9.0.0/24"


def test_without_a_subnet_the_tasks_say_why_and_it_is_tried_again() -> None:
    cluster = replace(CLUSTER_OBJECT, default_addr_pool=["10.9.0.0/24"])
    world = World(cluster, *NODES, network("a"), network("b"), service("s", "b"))
    world.put(task(world.service("s"), 1))
    world.settle()
    assert world.network("a").subnet == "10.9.0.0/24"
    assert world.network("b").subnet == ""
    assert world.task("s-1").state == TaskState.NEW
    assert world.task("s-1").err == "network b-name has no subnet: the address pool 10.9.0.0/24 is exhausted"
    assert world.turn("b").wake_at == 1000.0 + RETRY
    world.drop(world.network("a"))
    world.settle()
    assert world.task("s-1").state == TaskState.PENDING
    assert world.task("s-1").err == ""


def test_nodes_that_come_get_a_gateway_and_those_that_go_give_theirs_back() -> None:
    world = World(CLUSTER_OBJECT, *NODES, network("a"))
    world.settle()
    world.drop(NODES[0])
    world.put(Node(id="n4"))
    world.settle()
    assert world.network("a").gateways == {"n2": "10.0.0.253", "n3": "10.0.0.252", "n4": "10.0.0.254"}


def test_a_node_that_cannot_encrypt_has_no_place_in_an_encrypted_network() -> None:
    sealed = Network(id="a", spec=NetworkSpec(name="a", options={"encrypted": ""}))
    said = [NodeReport(id=f"n{n}", wireguard=key) for n, key in ((1, "k1"), (2, ""))]  # of n3 nothing is known
    world = World(CLUSTER_OBJECT, *NODES, *said, sealed)
    world.settle()
    assert list(world.network("a").gateways) == ["n1"]
    able = replace(said[1], wireguard="k2")
    assert list(allocate.keys_of(Change(said[1], able))) == [CLUSTER]
    assert list(allocate.keys_of(Change(able, replace(able, address="10.0.0.1")))) == []
    world.put(able)
    world.settle()
    assert list(world.network("a").gateways) == ["n1", "n2"]


def test_a_network_that_is_being_removed_is_left_alone() -> None:
    world = World(CLUSTER_OBJECT, *NODES, replace(network("a"), pending_delete=True))
    assert not world.turn(CLUSTER).changes


# ---- services and tasks ----------------------------------------------------------------------------------------


def test_a_task_waits_for_its_service_which_waits_for_its_networks() -> None:
    world = World(CLUSTER_OBJECT, *NODES, network("a"), service("s", "a"))
    world.put(task(world.service("s"), 1))
    assert not world.turn("s").changes, "its network has no addresses yet, and nothing need be said of it"
    world.turn("a")
    planned = world.turn("a")
    assert [type(c.new) for c in planned.changes] == [Service, Task]
    assert world.service("s").endpoint.virtual_ips == [VirtualIP(network_id="a", addr="10.0.0.2/24")]
    done = world.task("s-1")
    assert done.state == TaskState.PENDING
    assert done.message == "pending task scheduling"
    assert done.since == 1000.0
    assert done.attachments == [Attachment(network_id="a", address="10.0.0.3/24", aliases=["alias-a"])]


def test_published_ports_bring_the_ingress_network() -> None:
    ingress = ingress_network()
    published = service("s", "a", ports=[PortConfig(target_port=80, published_port=8080)])
    world = World(CLUSTER_OBJECT, *NODES, ingress, network("a"), published)
    world.put(task(published, 1))
    world.settle()
    assert [ip.network_id for ip in world.service("s").endpoint.virtual_ips] == ["a", ingress.id]
    assert [a.network_id for a in world.task("s-1").attachments] == ["a", ingress.id]
    in_host_mode = service("h", ports=[PortConfig(target_port=80, publish_mode="host")])
    world.put(in_host_mode, task(in_host_mode, 1))
    world.settle()
    assert world.service("h").endpoint == Endpoint(ports=in_host_mode.spec.endpoint_spec.ports)
    assert world.task("h-1").attachments == []


def test_dnsrr_has_no_virtual_address() -> None:
    world = World(CLUSTER_OBJECT, *NODES, network("a"), service("s", "a", mode="dnsrr"))
    world.put(task(world.service("s"), 1))
    world.settle()
    assert world.service("s").endpoint == Endpoint()
    assert world.task("s-1").attachments[0].address == "10.0.0.2/24"


def test_networks_of_the_engine_itself_need_no_address() -> None:
    on_host = service("s", "host", ports=[PortConfig(target_port=80, published_port=80)])
    world = World(CLUSTER_OBJECT, *NODES, ingress_network(), on_host)
    world.put(task(on_host, 1))
    world.settle()
    assert world.task("s-1").state == TaskState.PENDING
    assert world.task("s-1").attachments == []


def test_a_change_of_networks_moves_the_virtual_addresses_and_keeps_those_that_stay() -> None:
    world = World(CLUSTER_OBJECT, *NODES, network("a"), network("b"), network("c"), service("s", "a", "b"))
    world.settle()
    before = {ip.network_id: ip.addr for ip in world.service("s").endpoint.virtual_ips}
    world.put(replace(world.service("s"), spec=service("s", "b", "c").spec))
    world.settle()
    after = {ip.network_id: ip.addr for ip in world.service("s").endpoint.virtual_ips}
    assert set(after) == {"b", "c"}
    assert after["b"] == before["b"]


def test_a_network_that_is_gone_is_named() -> None:
    world = World(CLUSTER_OBJECT, *NODES, service("s", "lost"))
    world.put(task(world.service("s"), 1))
    world.settle()
    assert world.task("s-1").state == TaskState.NEW
    assert world.task("s-1").err == "network lost not found"


def test_a_task_that_was_replaced_before_it_had_a_node_keeps_no_address() -> None:
    """An update of a service that is being updated leaves such tasks, and nobody ends them."""
    world = World(CLUSTER_OBJECT, Node(id="n1"), network("a", subnet="10.5.0.0/29"), service("s", "a"))
    world.put(*[task(world.service("s"), n) for n in range(1, 5)])
    world.settle()
    first = world.task("s-1")
    world.put(replace(first, desired=TaskState.SHUTDOWN))
    world.settle()
    assert world.task("s-4").state == TaskState.PENDING
    assert [a.address for a in world.task("s-4").attachments] == [a.address for a in first.attachments]


def test_an_exhausted_network_says_so_until_an_address_is_free() -> None:
    world = World(CLUSTER_OBJECT, Node(id="n1"), network("a", subnet="10.5.0.0/29"), service("s", "a"))
    world.put(*[task(world.service("s"), n) for n in range(1, 5)])
    world.settle()  # 6 addresses: the gateway shown, that of the node, the service's, and three more
    assert [world.task(f"s-{n}").state for n in range(1, 5)] == [64, 64, 64, 0]
    assert world.task("s-4").err == "no address left in network a-name (10.5.0.0/29)"
    planned = world.turn("s")
    assert not planned.changes, "nothing new to say"
    assert planned.wake_at == 1000.0 + RETRY
    freed = world.task("s-2").attachments
    world.drop(world.task("s-2"))
    world.settle()
    assert [a.address for a in world.task("s-4").attachments] == [a.address for a in freed]


def test_history_holds_an_address_only_as_long_as_there_is_another() -> None:
    world = World(CLUSTER_OBJECT, Node(id="n1"), network("a", subnet="10.5.0.0/29"), service("s", "a"))
    world.put(*[task(world.service("s"), n) for n in range(1, 4)])
    world.settle()
    world.put(Report(id="s-1", state=TaskState.FAILED), task(world.service("s"), 4))
    world.settle()
    assert world.task("s-4").attachments == world.task("s-1").attachments


def test_an_orphan_keeps_its_address() -> None:
    world = World(CLUSTER_OBJECT, Node(id="n1"), network("a", subnet="10.5.0.0/29"), service("s", "a"))
    world.put(*[task(world.service("s"), n) for n in range(1, 4)])
    world.settle()
    world.put(replace(world.task("s-1"), node_id="n1", state=TaskState.ORPHANED), task(world.service("s"), 4))
    world.settle()
    assert world.task("s-4").state == TaskState.NEW
    world.put(replace(world.task("s-1"), node_id="removed"))
    world.settle()
    assert world.task("s-4").attachments == world.task("s-1").attachments


def test_tasks_that_are_not_wanted_any_more_are_left_alone() -> None:
    world = World(CLUSTER_OBJECT, *NODES, network("a"), service("s", "a"))
    world.put(task(world.service("s"), 1, desired=TaskState.SHUTDOWN), task(world.service("s"), 2))
    world.put(replace(service("t", "a"), pending_delete=True))
    world.settle()
    assert world.task("s-1").state == TaskState.NEW
    assert world.task("s-2").state == TaskState.PENDING
    assert world.service("t").endpoint is None


def test_many_tasks_are_done_in_parts() -> None:
    world = World(CLUSTER_OBJECT, network("a", subnet="10.5.0.0/16"), service("s", "a"))
    world.put(*[task(world.service("s"), n) for n in range(1, BATCH + 100)])
    world.turn("a")
    first = world.turn("s")
    assert len(first.changes) == BATCH
    assert first.wake_at == 1000.0
    second = world.turn("s")
    assert len(second.changes) == 100
    assert second.wake_at == inf


# ---- ports -----------------------------------------------------------------------------------------------------


def test_ports_without_a_number_get_one_that_nobody_has() -> None:
    ingress = ingress_network()
    taken = service("t", ports=[PortConfig(target_port=1, published_port=30000)])
    drawn = service("s", ports=[PortConfig(target_port=80), PortConfig(target_port=443), PortConfig(protocol="udp")])
    world = World(CLUSTER_OBJECT, *NODES, ingress, taken, drawn)
    world.settle()
    assert [p.published_port for p in world.service("s").endpoint.ports] == [30001, 30002, 30000]
    assert world.service("t").endpoint.ports == taken.spec.endpoint_spec.ports


def test_a_drawn_port_is_kept_across_updates() -> None:
    one, other = PortConfig(target_port=80), PortConfig(target_port=443)
    world = World(CLUSTER_OBJECT, *NODES, ingress_network(), service("s", ports=[one]))
    world.settle()
    number = world.service("s").endpoint.ports[0].published_port
    world.put(replace(world.service("s"), spec=service("s", ports=[other, one]).spec))
    world.settle()
    assert [p.published_port for p in world.service("s").endpoint.ports] == [number + 1, number]


def test_ports_run_out() -> None:
    many = [PortConfig(target_port=80, published_port=n) for n in range(30000, 32768)]
    drawn = service("s", ports=[PortConfig(target_port=80)])
    world = World(CLUSTER_OBJECT, *NODES, ingress_network(), service("t", ports=many), drawn)
    world.put(task(drawn, 1))
    world.settle()
    assert world.service("s").endpoint is None
    assert world.task("s-1").err == "no free port left between 30000 and 32767"


# ---- keys ------------------------------------------------------------------------------------------------------


def test_keys() -> None:
    node, report = Node(id="n"), Report(id="t", service_id="s")
    new = Task(id="t", service_id="s")
    assert list(allocate.keys_of(Change(None, network("a")))) == ["a"]
    assert list(allocate.keys_of(Change(None, service("s")))) == ["s"]
    assert list(allocate.keys_of(Change(None, new))) == ["s"]
    assert list(allocate.keys_of(Change(new, replace(new, state=TaskState.PENDING)))) == []
    assert list(allocate.keys_of(Change(new, None))) == []
    assert list(allocate.keys_of(Change(None, node))) == [CLUSTER]
    assert list(allocate.keys_of(Change(node, None))) == [CLUSTER]
    assert list(allocate.keys_of(Change(node, replace(node, message="x")))) == []
    assert list(allocate.keys_of(Change(None, report))) == []
    assert not allocate.plan(Snapshot(), "gone").changes


def test_every_change_of_an_address_moves_the_guard_of_its_network() -> None:
    world = World(CLUSTER_OBJECT, *NODES, network("a"), service("s", "a"))
    world.put(task(world.service("s"), 1))
    world.turn("a")
    planned = world.turn("s")
    assert len(planned.changes) == 2
    assert all("network/a" in guards_of(change) for change in planned.changes)
    assert IPv4Network(world.network("a").subnet).num_addresses == 256
