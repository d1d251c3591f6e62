"""What names floating addresses, where a host would put one, and who may hold it."""

from __future__ import annotations

import pytest

from afterswarm.core.floating import place
from afterswarm.core.floating.place import Place
from afterswarm.model.cluster import Cluster, SwarmSpec
from afterswarm.model.floating import LABEL
from afterswarm.model.node import Availability, Description, Node, NodeReport, NodeSpec
from afterswarm.model.refused import Refused
from afterswarm.model.snapshot import Snapshot

INTERFACES = {"lo": ["127.0.0.1/8", "::1/128"], "eth0": ["192.0.2.1/24", "fe80::1/64"], "eth1": ["fd00::1/64"]}


def test_addresses_of_both_families_and_interfaces() -> None:
    text = "192.0.2.9/24, fd00::9/64@eth1,198.51.100.7/32@wan"
    assert place.parse(text) == [
        Place("192.0.2.9", "192.0.2.0/24"),
        Place("fd00::9", "fd00::/64", "eth1"),
        Place("198.51.100.7", "198.51.100.7/32", "wan"),
    ]
    assert [p.text for p in place.parse(text)] == ["192.0.2.9/24", "fd00::9/64@eth1", "198.51.100.7/32@wan"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("192.0.2.9", "with the prefix of the subnet"),
        ("web/24", "it is ADDRESS/PREFIX"),
        ("192.0.2.9/33", "it is ADDRESS/PREFIX"),
        ("192.0.2.0/24", "the subnet 192.0.2.0/24 itself"),
        ("192.0.2.255/24", "the subnet 192.0.2.0/24 itself"),
        ("127.0.0.9/8", "no host can answer others"),
        ("224.0.0.9/24", "no host can answer others"),
        ("fe80::9/64", "no host can answer others"),
        ("192.0.2.9/32", "it needs an interface, as 192.0.2.9/32@eth0"),
        ("192.0.2.9/24@", "'' is no name of an interface"),
        ("192.0.2.9/24@a b", "'a b' is no name of an interface"),
        ("192.0.2.9/24,192.0.2.9/25", "192.0.2.9 is named twice"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(Refused) as refused:
        place.parse(text)
    assert refused.value.status == 400
    assert why in refused.value.message


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("192.0.2.9/24", ("eth0", "")),
        ("fd00::9/64", ("eth1", "")),
        ("192.0.2.9/24@eth1", ("eth1", "")),
        ("192.0.2.9/24@eth7", ("", "no interface eth7 here")),
        ("203.0.113.9/24", ("", "no interface in 203.0.113.0/24 here")),
        ("192.0.2.1/24", ("", "this host has that address by itself")),
    ],
)
def test_the_interface_is_the_one_in_the_subnet(text: str, found: tuple[str, str]) -> None:
    assert place.device(place.one(text), INTERFACES) == found


def test_one_that_is_here_alone_in_its_prefix_floated_here() -> None:
    here = {"eth0": ["192.0.2.1/24", "192.0.2.9/32"], "lo": ["192.0.2.8/32"]}
    assert place.strays(["192.0.2.9", "192.0.2.8", "192.0.2.1"], here) == [("192.0.2.9", "eth0")]
    assert place.device(place.one("192.0.2.9/24"), here) == ("eth0", "")
    assert place.device(place.one("192.0.2.8/24"), here) == ("", "this host has that address by itself")


def snapshot(**spec: object) -> Snapshot:
    cluster = Cluster(id="c", spec=SwarmSpec(labels={LABEL: "192.0.2.9/24,192.0.2.1/24"}))
    node = Node(id="n1", spec=NodeSpec(**spec))  # type: ignore[arg-type]
    report = NodeReport(id="n1", address="192.0.2.1", description=Description(hostname="one"))
    return Snapshot(rev=1, now=0.0, clusters={"c": cluster}, nodes={"n1": node}, node_reports={"n1": report})


def test_who_may_hold_it() -> None:
    assert not place.floating(snapshot(), "n1").barred
    assert not place.floating(snapshot(), "n1").last
    assert place.floating(snapshot(availability=Availability.DRAIN), "n1").barred
    assert place.floating(snapshot(availability=Availability.PAUSE), "n1").last
    assert place.floating(snapshot(labels={LABEL: "never"}), "n1").barred
    assert place.floating(snapshot(), "n2").barred


def test_an_address_of_a_host_does_not_float() -> None:
    snap = snapshot()
    assert place.floating(snap, "n1").addresses == ["192.0.2.9/24"]
    with pytest.raises(Refused, match=r"192\.0\.2\.1 is the address of node one"):
        place.check({LABEL: "192.0.2.1/24"}, place.taken(snap))
