"""Which networks and tasks have no way out."""

from __future__ import annotations

from msgspec.structs import replace

from afterswarm.core.dataplane import closed
from afterswarm.core.dataplane.family import IPV4
from afterswarm.model.network import Network, NetworkSpec
from afterswarm.model.task import Attachment, Task

OPEN = Network(id="open00000000", spec=NetworkSpec(name="open"), subnet="10.0.1.0/24", gateways={"n1": "10.0.1.254"})
INNER = Network(
    id="inner0000000",
    spec=NetworkSpec(name="inner", internal=True),
    subnet="10.0.2.0/24",
    gateways={"n1": "10.0.2.254"},
)
INGRESS = replace(OPEN, id="ingress00000", spec=NetworkSpec(name="ingress", ingress=True))
NETWORKS = [OPEN, INNER, INGRESS]


def task(*networks: Network) -> Task:
    return Task(id="t", attachments=[Attachment(network_id=n.id, address=f"10.0.{n.id[1]}.7/24") for n in networks])


def test_internal_networks_are_closed_but_for_the_resolver() -> None:
    shape, elements = closed.rules(NETWORKS, "n1", [IPV4])
    assert list(elements["closed"]) == ['"aswinner00000"']
    assert list(elements["within"]) == ['"aswinner00000" . "aswinner00000"']
    assert list(elements["resolvers"]) == ['"aswinner00000" . 10.0.2.254']
    more, _ = closed.rules([*NETWORKS, replace(INNER, id="another")], "n1", [IPV4])
    assert more == shape, "networks that come and go are elements"
    assert closed.rules([OPEN, INGRESS], "n1", [IPV4]) == ([], {}), "no packet passes rules that are for nobody"
    alone, _ = closed.rules([OPEN, INGRESS], "n1", [IPV4], confined=["10.0.0.7"])
    assert alone == shape


def test_a_task_that_is_published_from_within_begins_nothing() -> None:
    def confined(*networks: Network) -> frozenset[str]:
        return closed.confined([task(*networks)], NETWORKS)

    assert confined(INNER, INGRESS) == {"10.0.n.7"}
    assert confined(INGRESS, INNER) == {"10.0.n.7"}
    assert confined(INNER) == frozenset(), "it is not in the ingress network"
    assert confined(INGRESS) == frozenset(), "nobody asked for it"
    assert confined(INNER, OPEN, INGRESS) == frozenset(), "its other network has a way out"
    assert confined(INNER, INGRESS, replace(OPEN, id="unknown")) == frozenset()
