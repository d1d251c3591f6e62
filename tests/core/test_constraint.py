from __future__ import annotations

import pytest

from afterswarm.core import constraint
from afterswarm.core.constraint import Constraint
from afterswarm.model.node import Description, Engine, Node, NodeReport, NodeSpec, Role
from afterswarm.model.refused import Refused
from afterswarm.model.service import Platform

NODE = Node(id="n1", spec=NodeSpec(labels={"zone": "East", "Zone": "west"}), role=Role.MANAGER)
REPORT = NodeReport(
    id="n1",
    address="10.77.0.1",
    description=Description(
        hostname="swarm-1",
        platform=Platform(os="linux", architecture="x86_64"),
        engine=Engine(labels={"disk": "ssd"}),
    ),
)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("node.role==manager", Constraint("node.role", equal=True, value="manager")),
        ("node.role != worker", Constraint("node.role", equal=False, value="worker")),
        ("  node.labels.a.b-c_d ==  x y ", Constraint("node.labels.a.b-c_d", equal=True, value="x y")),
        ("node.ip==10.0.0.0/8", Constraint("node.ip", equal=True, value="10.0.0.0/8")),
    ],
)
def test_reads(text: str, parsed: Constraint) -> None:
    assert constraint.parse(text) == parsed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("node.role=manager", "constraint expected one operator from ==, !="),
        ("", "constraint expected one operator from ==, !="),
        ("1node==x", "key '1node' is invalid"),
        ("==x", "key '' is invalid"),
        ("node.role==", "value '' is invalid"),
        ("node.role==a=b", "value 'a=b' is invalid"),
        ("node.role==manager>", "value 'manager>' is invalid"),
    ],
)
def test_refuses_in_swarmkits_words(text: str, words: str) -> None:
    with pytest.raises(Refused) as refused:
        constraint.parse(text)
    assert refused.value.status == 400
    assert refused.value.message == f"rpc error: code = InvalidArgument desc = {words}"


@pytest.mark.parametrize(
    "text",
    [
        "node.id==n1",
        "node.hostname==SWARM-1",
        "NODE.Role==Manager",
        "node.role!=worker",
        "node.platform.os==linux",
        "node.platform.arch==x86_64",
        "node.ip==10.77.0.1",
        "node.ip==10.77.0.0/24",
        "node.ip!=10.78.0.0/24",
        "node.labels.zone==east",
        "Node.Labels.Zone==west",
        "node.labels.nothing!=x",
        "engine.labels.disk==ssd",
    ],
)
def test_met(text: str) -> None:
    assert constraint.unmet([text], NODE, REPORT) is None


@pytest.mark.parametrize(
    "text",
    [
        "node.id==n2",
        "node.id!=n1",
        "node.role==worker",
        "node.ip==10.77.0.2",
        "node.ip!=10.77.0.0/24",
        "node.ip==nonsense",
        "node.ip!=nonsense",
        "node.labels.ZONE==east",  # a label's name is case-sensitive
        "node.labels.==east",
        "engine.labels.disk!=ssd",
        "node.colour==red",
        "not a constraint",
    ],
)
def test_unmet(text: str) -> None:
    assert constraint.unmet([text], NODE, REPORT) == text


def test_all_must_be_met_and_the_first_that_is_not_is_named() -> None:
    wants = ["node.role==manager", "node.id==n2", "node.id==n3"]
    assert constraint.unmet(wants, NODE, REPORT) == "node.id==n2"
    assert constraint.unmet([], NODE, None) is None


def test_a_node_that_has_said_nothing_has_no_hostname_and_no_address() -> None:
    assert constraint.unmet(["node.hostname==swarm-1"], NODE, None) is not None
    assert constraint.unmet(["node.hostname!=swarm-1"], NODE, None) is None
    assert constraint.unmet(["node.ip!=10.77.0.1"], NODE, None) is None
