"""Two decisions that exclude each other share a guard; those that do not should not stand in each other's way."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from afterswarm.core.cluster.guards import guards_of
from afterswarm.model.base import Change, Obj
from afterswarm.model.cluster import Cluster
from afterswarm.model.network import Network, NetworkSpec
from afterswarm.model.node import Leader, Node, NodeReport, NodeSpec, NodeState, Role, Suspicion
from afterswarm.model.secret import Config, ConfigSpec, Secret, SecretSpec
from afterswarm.model.service import (
    ConfigReference,
    ContainerSpec,
    Endpoint,
    EndpointSpec,
    NetworkAttachmentConfig,
    PortConfig,
    SecretReference,
    Service,
    ServiceSpec,
    TaskSpec,
    UpdateStatus,
    VirtualIP,
)
from afterswarm.model.task import Attachment, Report, Task, TaskState


def service(**fields: object) -> Service:
    container = ContainerSpec(
        image="nginx",
        secrets=[SecretReference(secret_id="pw")],
        configs=[ConfigReference(config_id="conf")],
    )
    template = TaskSpec(container_spec=container, networks=[NetworkAttachmentConfig(target="net")])
    return replace(Service(id="s", spec=ServiceSpec(name="web", task_template=template)), **fields)


def test_a_new_service_excludes_its_name_and_the_removal_of_what_it_uses() -> None:
    assert guards_of(Change(None, service())) == {
        "service/s",
        "name/service/web",
        "secret/pw",
        "config/conf",
        "network/net",
    }


def test_removing_what_a_service_uses_conflicts_with_creating_it() -> None:
    secret = Secret(id="pw", spec=SecretSpec(name="password"))
    config = Config(id="conf", spec=ConfigSpec(name="settings"))
    network = Network(id="net", spec=NetworkSpec(name="backend"))
    created = guards_of(Change(None, service()))
    for used in (secret, config, network):
        assert guards_of(Change(used, None)) & created, used


def test_an_update_that_keeps_its_references_leaves_them_alone() -> None:
    old = service()
    assert guards_of(Change(old, replace(old, update_status=UpdateStatus()))) == {"service/s"}


def test_an_update_guards_the_references_that_it_adds_or_drops() -> None:
    old = service()
    container = ContainerSpec(image="nginx", secrets=[SecretReference(secret_id="other")])
    new = replace(old, spec=ServiceSpec(name="web", task_template=TaskSpec(container_spec=container)))
    assert guards_of(Change(old, new)) == {"service/s", "secret/pw", "secret/other", "config/conf", "network/net"}


def test_ports_are_guarded_when_asked_for_and_when_given_and_not_when_freed() -> None:
    plain = service()
    port = PortConfig(target_port=80)
    asked = replace(plain, spec=replace(plain.spec, endpoint_spec=EndpointSpec(ports=[port])))
    given = replace(asked, endpoint=Endpoint(ports=[replace(port, published_port=30000)]))
    assert "ports" not in guards_of(Change(None, plain))
    assert "ports" in guards_of(Change(None, asked))
    assert "ports" in guards_of(Change(asked, given))
    assert "ports" not in guards_of(Change(given, None))


def test_a_virtual_address_guards_its_network() -> None:
    old = service()
    new = replace(old, endpoint=Endpoint(virtual_ips=[VirtualIP(network_id="n2", addr="10.0.1.2/24")]))
    assert guards_of(Change(old, new)) == {"service/s", "network/n2"}


def test_a_task_guards_its_service_and_the_networks_that_give_it_an_address() -> None:
    task = Task(id="t", service_id="s", slot=1)
    placed = replace(task, attachments=[Attachment(network_id="net", address="10.0.1.7/24")], state=TaskState.PENDING)
    assert guards_of(Change(None, task)) == {"service/s"}
    assert guards_of(Change(task, placed)) == {"service/s", "network/net"}
    assert guards_of(Change(placed, replace(placed, node_id="a", state=TaskState.ASSIGNED))) == {"service/s"}
    assert guards_of(Change(placed, None)) == {"service/s"}


def test_two_new_networks_exclude_each_other_because_their_subnets_could_overlap() -> None:
    one = guards_of(Change(None, Network(id="n1", spec=NetworkSpec(name="a"), subnet="10.0.1.0/24", vni=4097)))
    two = guards_of(Change(None, Network(id="n2", spec=NetworkSpec(name="b"), subnet="10.0.1.0/24", vni=4097)))
    assert one & two == {"networks"}


def test_a_gateway_address_does_not_disturb_other_networks() -> None:
    old = Network(id="n1", spec=NetworkSpec(name="a"), subnet="10.0.1.0/24")
    assert guards_of(Change(old, replace(old, gateways={"node": "10.0.1.2"}))) == {"network/n1"}


def test_two_demotions_exclude_each_other_and_verdicts_do_not() -> None:
    a, b = (Node(id=i, role=Role.MANAGER, spec=NodeSpec(role=Role.MANAGER)) for i in "ab")

    def demoted(node: Node) -> set[str]:
        return guards_of(Change(node, replace(node, spec=NodeSpec(role=Role.WORKER))))

    assert demoted(a) & demoted(b) == {"managers"}
    assert guards_of(Change(a, replace(a, state=NodeState.DOWN))) == {"node/a"}
    assert guards_of(Change(None, Node(id="w"))) == {"node/w"}
    assert "managers" in guards_of(Change(a, None))


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("service", lambda i, n: Service(id=i, spec=ServiceSpec(name=n))),
        ("network", lambda i, n: Network(id=i, spec=NetworkSpec(name=n))),
        ("secret", lambda i, n: Secret(id=i, spec=SecretSpec(name=n))),
        ("config", lambda i, n: Config(id=i, spec=ConfigSpec(name=n))),
    ],
)
def test_a_name_is_taken_once(kind: str, make) -> None:
    one, two = make("1", "x"), make("2", "x")
    assert guards_of(Change(None, one)) & guards_of(Change(None, two)) - {"networks"} == {f"name/{kind}/x"}
    assert f"name/{kind}/x" not in guards_of(Change(one, None))
    assert f"name/{kind}/y" in guards_of(Change(one, make("1", "y")))


@pytest.mark.parametrize("obj", [Report(id="t"), NodeReport(id="n"), Suspicion(id="n"), Leader(id="leader")])
def test_what_has_one_writer_has_no_guard(obj: Obj) -> None:
    assert guards_of(Change(None, obj)) == set()


def test_the_settings_of_the_swarm_are_one_thing() -> None:
    assert guards_of(Change(Cluster(id="c"), Cluster(id="c"))) == {"cluster"}
