"""IPv6 beside IPv4: who has one address has the other, and each place in a network has exactly one of each."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Network

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from afterswarm.core import allocate, families, wanted
from afterswarm.core.admit import guest as admit
from afterswarm.model.cluster import Cluster
from afterswarm.model.guest import Wish
from afterswarm.model.network import IPAM, IPAMConfig, Network, NetworkSpec
from afterswarm.model.node import Node, NodeReport
from afterswarm.model.refused import Refused
from afterswarm.model.service import Endpoint, Service, ServiceSpec, VirtualIP
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Attachment, Task, TaskState

NETWORK = Network(
    id="n",
    spec=NetworkSpec(name="n", attachable=True),
    subnet="10.0.1.0/24",
    gateway="10.0.1.1",
    vni=4097,
    gateways={"a": "10.0.1.254"},
    subnet6="fd00:1::/64",
    gateway6="fd00:1::1",
)
RANGED = replace(NETWORK, range6="fd00:1::5:0/112")


@given(st.integers(0, 255), st.sampled_from([NETWORK, RANGED]))
def test_there_and_back(number: int, network: Network) -> None:
    address = str(IPv4Network(network.subnet)[number])
    second = families.twin(network, address)
    assert IPv6Address(second) in IPv6Network(network.range6 or network.subnet6)
    assert families.place(network, second) == address


def test_addresses_are_told_in_the_form_that_they_came_in() -> None:
    assert families.both(NETWORK, "10.0.1.7/24") == ["10.0.1.7/24", "fd00:1::7/64"]
    assert families.both(RANGED, "10.0.1.7") == ["10.0.1.7", "fd00:1::5:7"]
    assert families.both(replace(NETWORK, subnet6=""), "10.0.1.7") == ["10.0.1.7"]
    assert families.both(NETWORK, "") == []


def test_what_is_outside_has_no_place() -> None:
    for address in ("fd00:1::100", "fd00:2::7", "10.0.1.7", "nonsense"):
        assert families.place(NETWORK, address) == ""


def test_a_cluster_draws_its_pool_once_and_for_itself() -> None:
    pool = families.pool("c1")
    assert pool == families.pool("c1") != families.pool("c2")
    assert pool.subnet_of(IPv6Network("fd00::/8"))
    assert pool.prefixlen == 48


def test_hosts_are_told_the_second_addresses_of_what_can_have_them() -> None:
    single = replace(NETWORK, id="s", subnet6="", subnet="10.0.2.0/24")
    here = [Attachment(network_id="n", address="10.0.1.7/24"), Attachment(network_id="s", address="10.0.2.7/24")]
    tasks = [
        Task(id=f"t{node}", service_id="w", node_id=node, state=TaskState.ASSIGNED, attachments=here)
        for node in ("a", "old")
    ]
    endpoint = Endpoint(virtual_ips=[VirtualIP(network_id="n", addr="10.0.1.2/24")])
    service = Service(id="w", spec=ServiceSpec(name="w"), endpoint=endpoint)
    reports = [NodeReport(id="a", ipv6=[]), NodeReport(id="old")]
    found = wanted.route(Snapshot.of([NETWORK, single, service, *tasks, *reports]), service)
    assert found.vips6 == {"n": "fd00:1::2"}
    assert {t.node_id: t.addresses6 for t in found.targets} == {"a": {"n": "fd00:1::7"}, "old": {}}


def test_what_the_user_keeps_in_either_family_is_given_to_nobody() -> None:
    pools = [IPAMConfig(subnet="10.7.0.0/29"), IPAMConfig(subnet="fd00:7::/64", auxiliary_addresses={"x": "fd00:7::2"})]
    wanted = Network(id="n", spec=NetworkSpec(name="n", attachable=True, enable_ipv6=True, ipam=IPAM(config=pools)))
    objects = [Cluster(id="c"), Node(id="a"), wanted]
    [change] = allocate.plan(Snapshot.of(objects, rev=1), "n").changes
    made = change.new
    assert isinstance(made, Network)
    assert (made.subnet6, made.gateway6, made.gateways) == ("fd00:7::/64", "fd00:7::1", {"a": "10.7.0.6"})
    _, guest = admit.admit(Snapshot.of([*objects[:2], made], rev=2), "a", Wish(network="n"))
    assert guest
    assert guest.attachment.address == "10.7.0.3/29"


def test_a_guest_may_ask_in_either_family() -> None:
    snap = Snapshot.of([Node(id="a"), NETWORK], rev=1)

    def ask(**wish: str) -> str:
        try:
            _, guest = admit.admit(snap, "a", Wish(network="n", **wish))
        except Refused as refused:
            return refused.message
        return guest.attachment.address if guest else ""

    assert ask(address6="fd00:1::9") == ask(address="10.0.1.9", address6="fd00:1::9") == "10.0.1.9/24"
    assert "goes with 10.0.1.9" in ask(address="10.0.1.8", address6="fd00:1::9")
    assert "none of the first 256 addresses" in ask(address6="fd00:1::1:9")
    assert "Address already in use: fd00:1::1" in ask(address6="fd00:1::1")
