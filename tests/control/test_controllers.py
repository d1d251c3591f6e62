"""Which keys a change touches, and that every controller gets along with every key."""

from __future__ import annotations

import pytest

from afterswarm.control.controllers import CONTROLLERS, Controller
from afterswarm.model.base import Change, Obj
from afterswarm.model.cluster import Cluster
from afterswarm.model.network import Network
from afterswarm.model.node import Leader, NodeReport, Suspicion
from afterswarm.model.task import Report
from afterswarm.model.volume import Volume
from afterswarm.sim import given as g

BY_NAME = {c.name: c for c in CONTROLLERS}
OF = g.service()
OBJECTS: list[Obj] = [
    OF,
    *g.task("t", OF),
    g.node("a"),
    NodeReport(id="a"),
    Suspicion(id="a"),
    Leader(id="leader"),
    Cluster(id="c"),
    Network(id="n"),
    Volume(id="v", node_id="a"),
]


def keys(name: str, obj: Obj) -> set[str]:
    return set(BY_NAME[name].keys_of(Change(None, obj)))


def test_what_agents_say_reaches_those_who_follow_tasks() -> None:
    report = Report(id="t", service_id="s")
    for name in ("restart", "update", "enforce", "everywhere", "reap", "replicated"):
        assert "s" in keys(name, report)


def test_a_node_touches_everything_on_it() -> None:
    for name in ("restart", "update", "enforce", "everywhere", "reap"):
        assert "node/a" in keys(name, g.node("a"))
        assert "node/a" in keys(name, NodeReport(id="a"))


def test_verdicts_follow_suspicions() -> None:
    for obj in (Suspicion(id="m1"), Leader(id="leader"), g.node("a"), NodeReport(id="a")):
        assert keys("liveness", obj)
    assert not keys("liveness", OF)


@pytest.mark.parametrize("controller", CONTROLLERS, ids=lambda c: c.name)
def test_every_key_has_a_plan(controller: Controller) -> None:
    for obj in OBJECTS:
        for change in (Change(None, obj), Change(obj, obj), Change(obj, None)):
            for key in controller.keys_of(change):
                controller.plan(g.swarm(), key)
                controller.plan(g.swarm(OBJECTS), key)
