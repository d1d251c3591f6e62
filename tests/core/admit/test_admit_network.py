"""Overlay networks: what is wrong is said at once, and nothing goes while somebody needs it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from afterswarm.core.admit import network as admit
from afterswarm.model.base import Change, Obj
from afterswarm.model.network import IPAM, MTU, VXLANS, IPAMConfig, Network, NetworkSpec
from afterswarm.model.refused import Refused
from afterswarm.model.service import (
    EndpointSpec,
    NetworkAttachmentConfig,
    PortConfig,
    Service,
    ServiceSpec,
    TaskSpec,
)
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Attachment, Report, Task, TaskState


def snap(*objects: Obj) -> Snapshot:
    return Snapshot.of(objects, rev=7, now=1.0)


def spec(name: str = "back", **config: object) -> NetworkSpec:
    return NetworkSpec(name=name, ipam=IPAM(config=[IPAMConfig(**config)]) if config else None)  # type: ignore[arg-type]


def there(name: str, subnet: str = "", *, ingress: bool = False) -> Network:
    return Network(id=f"id-{name}", spec=NetworkSpec(name=name, ingress=ingress), subnet=subnet)


def attached(network: str) -> Service:
    template = TaskSpec(networks=[NetworkAttachmentConfig(target=network)])
    return Service(id="web", spec=ServiceSpec(name="web", task_template=template))


def refused(snapshot: Snapshot, wanted: NetworkSpec) -> Refused:
    with pytest.raises(Refused) as caught:
        admit.create(snapshot, wanted)
    return caught.value


def test_a_network_waits_for_its_addresses() -> None:
    network = admit.create(snap(), spec(subnet="10.5.0.0/24"))
    assert (network.subnet, network.vni, network.spec.scope) == ("", 0, "swarm")
    assert len(network.id) == 25


@pytest.mark.parametrize("name", ["bridge", "host", "none", "default"])
def test_predefined_names(name: str) -> None:
    assert refused(snap(), spec(name)).status == 403


def test_names_are_given_once() -> None:
    assert refused(snap(there("back")), spec("back")).message == "network with name back already exists"
    assert refused(snap(), spec(" ")).status == 400


def test_a_name_is_free_while_the_old_one_goes() -> None:
    going = replace(there("back"), pending_delete=True)
    assert admit.create(snap(going), spec("back")).name == "back"


@pytest.mark.parametrize(
    "config",
    [
        {"subnet": "10.0.0.0/33"},
        {"subnet": "nonsense"},
        {"subnet": "10.5.0.0/24", "gateway": "10.6.0.1"},
        {"subnet": "10.5.0.0/24", "gateway": "x"},
        {"subnet": "10.5.0.0/24", "ip_range": "10.6.0.0/28"},
        {"subnet": "10.5.0.0/24", "auxiliary_addresses": {"a": "10.6.0.1"}},
        {"gateway": "10.6.0.1"},
    ],
)
def test_wrong_addresses(config: dict[str, object]) -> None:
    assert refused(snap(), spec(**config)).status == 400


def test_right_addresses() -> None:
    admit.create(snap(), spec(subnet="10.5.0.0/24", gateway="10.5.0.1", ip_range="10.5.0.128/25"))
    admit.create(snap(), spec(subnet="fd00::/64"))


@pytest.mark.parametrize("subnet", ["10.5.0.0/16", "10.5.7.0/24", "10.5.7.128/25"])
def test_subnets_do_not_overlap(subnet: str) -> None:
    assert "Pool overlaps" in refused(snap(there("other", "10.5.7.0/24")), spec(subnet=subnet)).message
    asked = Network(id="n", spec=spec("other", subnet="10.5.7.0/24"))  # not allocated yet
    assert "Pool overlaps" in refused(snap(asked), spec(subnet=subnet)).message
    admit.create(snap(replace(asked, pending_delete=True)), spec(subnet=subnet))


def test_one_ingress_network_and_nobody_joins_it() -> None:
    wanted = NetworkSpec(name="mesh", ingress=True)
    assert admit.create(snap(), wanted).spec.ingress
    assert refused(snap(there("ingress", ingress=True)), wanted).status == 409
    assert refused(snap(), replace(wanted, attachable=True)).status == 400


def test_networks_of_other_drivers_are_each_hosts_own() -> None:
    wanted = NetworkSpec(name="m", driver="macvlan", scope="swarm", config_from={"Network": "conf"})
    made = admit.create(snap(), wanted)
    assert (made.node_local, made.spec, made.subnet, made.vni) == (True, wanted, "", 0)
    assert "configuration" in refused(snap(), replace(wanted, driver="overlay")).message
    assert "of one host" in refused(snap(), replace(wanted, config_from=None, config_only=True)).message
    assert refused(snap(), replace(wanted, driver="host")).status == 403
    assert refused(snap(), replace(wanted, ingress=True)).status == 400
    assert refused(snap(there("m")), wanted).status == 409
    subnet = NetworkSpec(name="x", ipam=IPAM(config=[IPAMConfig(subnet="10.5.0.0/24")]))
    local = Network(id="l", spec=replace(wanted, name="l", ipam=subnet.ipam))
    assert admit.create(snap(local), subnet), "what hosts do by themselves is in nobody's way"


def test_a_vxlan_id_and_an_mtu_of_ones_choice() -> None:
    wanted = NetworkSpec(name="n", options={VXLANS: "5000", MTU: "9000"})
    assert admit.create(snap(), wanted).vni == 5000
    there_already = snap(Network(id="other", spec=NetworkSpec(name="other"), vni=5000))
    assert "5000 is in use" in refused(there_already, wanted).message
    for option, wrong in ((VXLANS, "x"), (VXLANS, "0"), (VXLANS, "16777216"), (MTU, "x"), (MTU, "10"), (MTU, "99999")):
        assert refused(snap(), replace(wanted, options={option: wrong})).status == 400


def test_labels_of_dockers_own() -> None:
    assert refused(snap(), NetworkSpec(name="n", labels={"com.docker.swarm.predefined": "true"})).status == 403


def test_one_subnet() -> None:
    two = IPAM(config=[IPAMConfig(subnet="10.5.0.0/24"), IPAMConfig(subnet="10.6.0.0/24")])
    assert refused(snap(), NetworkSpec(name="n", ipam=two)).status == 501


@pytest.mark.parametrize("target", ["id-back", "back"])
def test_a_network_that_a_service_uses_stays(target: str) -> None:
    network, service = there("back"), attached(target)
    with pytest.raises(Refused, match="network id-back is in use by service web") as caught:
        admit.remove(snap(network, service), network)
    assert caught.value.status == 400
    assert admit.remove(snap(network, replace(service, pending_delete=True)), network) == Change(network, None)


def test_a_network_waits_for_its_last_task() -> None:
    network = there("back")
    task = Task(id="t", attachments=[Attachment(network_id="id-back", address="10.0.1.5/24")])
    assert admit.remove(snap(network, task), network) == Change(network, replace(network, pending_delete=True))
    stopped = Report(id="t", state=TaskState.SHUTDOWN)
    assert admit.remove(snap(network, task, stopped), network) == Change(network, None)


def test_the_ingress_network_is_used_by_whoever_publishes_through_it() -> None:
    network = there("ingress", ingress=True)
    endpoint = EndpointSpec(ports=[PortConfig(target_port=80)])
    service = Service(id="web", spec=ServiceSpec(name="web", endpoint_spec=endpoint))
    with pytest.raises(Refused, match="ingress network cannot be removed because service web depends on it"):
        admit.remove(snap(network, service), network)
    host = Service(
        id="web",
        spec=ServiceSpec(
            name="web", endpoint_spec=EndpointSpec(ports=[PortConfig(target_port=80, publish_mode="host")])
        ),
    )
    assert admit.remove(snap(network, host), network) == Change(network, None)


def test_encryption_that_is_asked_not_to_be_is_fine():
    assert not admit.create(snap(), NetworkSpec(name="n", options={"encrypted": "false"})).encrypted
    assert admit.create(snap(), NetworkSpec(name="n", options={"encrypted": ""})).encrypted


def dual(subnet: str = "", **config: object) -> NetworkSpec:
    pools = [IPAMConfig(subnet=subnet, **config)] if subnet else []  # type: ignore[arg-type]
    return NetworkSpec(name="six", enable_ipv6=True, ipam=IPAM(config=pools))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (dual("fd00:1::/64", gateway="fd00:2::1"), "subnet fd00:1::/64 does not contain gateway fd00:2::1"),
        (dual("fd00:1::/64", ip_range="fd00:2::/80"), "does not contain range fd00:2::/80"),
        (dual("fd00:1::/121"), "fd00:1::/121 has fewer addresses than the IPv4 subnet: /120 is the smallest"),
        (dual("fd00:1::/64", ip_range="fd00:1::100/121"), "fewer addresses"),
        (dual("fd00:7::/80"), "Pool overlaps with other one"),
        (NetworkSpec(name="six", enable_ipv4=False, enable_ipv6=True), "IPv4 cannot be disabled in a Swarm scoped"),
    ],
)
def test_ipv6_pools_are_checked_as_those_of_ipv4(wanted: NetworkSpec, words: str) -> None:
    other = Network(id="o", spec=NetworkSpec(name="o", enable_ipv6=True), subnet="10.9.0.0/24", subnet6="fd00:7::/64")
    assert words in refused(snap(other), wanted).message


def test_ipv6_pools_of_a_network_without_ipv6_are_nobodys() -> None:
    there = Network(id="o", spec=spec("o", subnet="fd00:7::/64"), subnet="10.9.0.0/24")
    assert admit.create(snap(there), dual("fd00:7::/64")).spec.enable_ipv6
