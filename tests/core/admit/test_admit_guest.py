"""Who may come into an overlay network as a single container, and with which address."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from afterswarm.core.admit import guest as admit
from afterswarm.core.admit import network as networks
from afterswarm.core.cluster.guards import guards_of
from afterswarm.core.orchestrate import reap
from afterswarm.core.wanted import wanted
from afterswarm.model.base import Change, Obj
from afterswarm.model.guest import Guest, Said, Wish
from afterswarm.model.network import IPAM, IPAMConfig, Network, NetworkSpec
from afterswarm.model.node import Node, NodeReport, NodeState
from afterswarm.model.refused import Refused
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Attachment, Task, TaskState

OPEN = Network(
    id="open",
    spec=NetworkSpec(name="open", attachable=True),
    subnet="10.0.1.0/24",
    gateway="10.0.1.1",
    vni=4097,
    gateways={"n1": "10.0.1.254", "n2": "10.0.1.253"},
)
SHUT = replace(OPEN, id="shut", spec=NetworkSpec(name="closed"), subnet="10.0.2.0/24")
NODES = [Node(id=n, state=NodeState.READY) for n in ("n1", "n2")]
PEERS = [NodeReport(id=n.id, address=f"10.7.0.{n.id[1]}") for n in NODES]
PLACE = Attachment(network_id="open", address="10.0.1.2/24")
GUEST = Guest(id="g1", node_id="n1", attachment=PLACE, container_id="abc", name="solo", running=True)
TASK = Task(
    id="t", service_id="s", node_id="n2", state=TaskState.RUNNING, attachments=[replace(PLACE, address="10.0.1.3/24")]
)


def snap(*more: Obj, network: Network = OPEN) -> Snapshot:
    return Snapshot.of([network, SHUT, *NODES, *PEERS, *more], rev=7)


def refused(of: Snapshot, **wish: str) -> tuple[int, str]:
    with pytest.raises(Refused) as why:
        admit.admit(of, "n1", Wish(**wish))  # type: ignore[arg-type]
    return why.value.status, why.value.message


def test_each_gets_an_address_that_nobody_has() -> None:
    network, guest = admit.admit(snap(GUEST, TASK), "n1", Wish(network="open", name_servers=["9.9.9.9"]))
    assert guest
    assert (network, guest.node_id, guest.attachment.address) == (OPEN, "n1", "10.0.1.4/24")
    assert guest.name_servers == ["9.9.9.9"]
    assert guards_of(Change(None, guest)) == {"network/open"}
    assert guards_of(Change(guest, replace(guest, running=True))) == set()


def test_an_address_of_ones_choice() -> None:
    _, guest = admit.admit(snap(GUEST, TASK), "n1", Wish(network="open", address="10.0.1.77"))
    assert guest
    assert guest.attachment.address == "10.0.1.77/24"
    for taken in ("10.0.1.2", "10.0.1.3", "10.0.1.1", "10.0.1.254", "10.0.1.255", "10.0.9.9"):
        status, words = refused(snap(GUEST, TASK), network="open", address=taken)
        assert (status, words.endswith(f"Address already in use: {taken}")) == (403, True)
    assert refused(snap(), network="open", address="x")[0] == 400


def test_who_may_not() -> None:
    words = "Could not attach to network mine: rpc error: code = PermissionDenied desc = "
    assert refused(snap(), network="shut", named="mine") == (403, f"{words}network mine not manually attachable")
    assert refused(snap(), network="nope") == (404, "network nope not found")
    assert refused(snap(network=replace(OPEN, pending_delete=True)), network="open")[0] == 404
    small = replace(OPEN, subnet="10.0.1.0/30", gateway="10.0.1.1", gateways={"n1": "10.0.1.2"})
    status, words = refused(snap(network=small), network="open")
    assert status == 503
    assert "no address left in network open (10.0.1.0/30)" in words


@pytest.mark.parametrize("lacking", [{"subnet": ""}, {"vni": 0}, {"gateways": {"n2": "10.0.1.253"}}])
def test_a_network_that_is_not_allocated_yet_is_waited_for(lacking: dict[str, object]) -> None:
    assert admit.admit(snap(network=replace(OPEN, **lacking)), "n1", Wish(network="open"))[1] is None


def test_a_range_holds_for_guests_too() -> None:
    ipam = IPAM(config=[IPAMConfig(subnet="10.0.1.0/24", ip_range="10.0.1.128/25")])
    _, guest = admit.admit(snap(network=replace(OPEN, spec=replace(OPEN.spec, ipam=ipam))), "n1", Wish(network="open"))
    assert guest
    assert guest.attachment.address == "10.0.1.128/24"


def test_a_host_speaks_for_its_own_guests_only() -> None:
    renamed = replace(GUEST, name="other", running=False, node_id="n2", attachment=Attachment(aliases=["a"]))
    [change] = admit.reported(snap(GUEST), "n1", Said(changed=[renamed]))
    told = replace(GUEST, name="other", running=False, attachment=replace(PLACE, aliases=["a"]))
    assert change == Change(GUEST, told), "neither the address nor the node is the host's to say"
    assert admit.reported(snap(GUEST), "n1", Said(gone=["g1", "nope"])) == [Change(GUEST, None)]
    assert admit.reported(snap(GUEST), "n2", Said(changed=[renamed], gone=["g1"])) == []
    assert admit.reported(snap(GUEST), "n1", Said(changed=[GUEST])) == []


def test_a_network_with_guests_stays() -> None:
    with pytest.raises(Refused, match="network open is in use by task g1"):
        networks.remove(snap(GUEST), OPEN)
    gone = replace(OPEN, pending_delete=True)
    assert reap.plan(snap(GUEST, network=gone), "network/open").changes == []
    assert reap.plan(snap(network=gone), "network/open").changes == [Change(gone, None)]


def test_guests_of_a_node_that_was_removed_go() -> None:
    lost = replace(GUEST, id="g9", node_id="n9")
    assert reap.plan(snap(lost, GUEST), "node/n9").changes == [Change(lost, None)]


def test_what_hosts_are_told() -> None:
    aliased = replace(GUEST, attachment=replace(PLACE, aliases=["alias"]))
    here, there = (wanted(snap(aliased, TASK), node) for node in ("n1", "n2"))
    assert ([g.id for g in here.guests], there.guests) == (["g1"], [])
    [route] = there.routes
    assert (route.name, route.mode, route.aliases) == ("solo", "dnsrr", {"open": ["alias"]})
    assert [(t.node_id, t.addresses, t.ready) for t in route.targets] == [("n1", {"open": "10.0.1.2"}, True)]
    assert "open" in {n.id for n in here.networks}
    [route] = wanted(snap(replace(aliased, running=False), TASK), "n2").routes
    assert (route.name, route.aliases, route.targets[0].ready) == ("", {}, False)
    assert wanted(snap(aliased), "n2").routes == [], "of no concern to a host outside of the network"
