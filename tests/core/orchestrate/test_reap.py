"""Everything goes away at last, and nothing before."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from afterswarm.core.orchestrate import reap
from afterswarm.model.cluster import Cluster, Orchestration, SwarmSpec
from afterswarm.model.network import Network
from afterswarm.model.node import NodeReport, NodeState, Suspicion
from afterswarm.model.secret import Payload
from afterswarm.model.service import ConfigReference, ContainerSpec, NetworkAttachmentConfig
from afterswarm.model.task import Attachment, Report, TaskState
from afterswarm.model.volume import Volume
from afterswarm.sim import given as g


def left(*objects, key: str = "s") -> list[str]:
    after = g.settled(g.swarm(*objects), reap.plan, key)
    return sorted(obj.id for obj in g.everything(after))


@pytest.mark.parametrize(
    ("state", "node_state", "goes"),
    [
        (TaskState.RUNNING, NodeState.READY, False),
        (TaskState.SHUTDOWN, NodeState.READY, True),
        (TaskState.PENDING, NodeState.READY, True),
        (TaskState.RUNNING, NodeState.DOWN, True),
    ],
)
def test_what_was_to_be_removed_goes_when_it_has_stopped(
    state: TaskState,
    node_state: NodeState,
    goes: bool,  # noqa: FBT001
) -> None:
    of = g.service(0)
    node_id = "" if state == TaskState.PENDING else "a"
    assert (
        "t" not in left(of, g.node("a", node_state), g.task("t", of, 1, node_id, state, desired=TaskState.REMOVE))
    ) is goes


def test_its_report_goes_with_it() -> None:
    of = g.service(0)
    snap = g.swarm(of, g.node("a"), g.task("t", of, state=TaskState.SHUTDOWN, desired=TaskState.REMOVE))
    assert not g.settled(snap, reap.plan).reports
    assert left(Report(id="r", service_id="gone"), key="report/r") == []


@pytest.mark.parametrize(("gone_for", "orphaned"), [(3600.0, False), (reap.ORPHANED_AFTER, True)])
def test_tasks_of_a_node_that_is_down_for_a_day_are_orphaned(gone_for: float, orphaned: bool) -> None:  # noqa: FBT001
    of = g.service(1)
    node = replace(g.node("a", NodeState.DOWN), state_since=g.NOW - gone_for)
    old = g.task("old", of, 1, "a", desired=TaskState.SHUTDOWN)
    snap = g.swarm(of, node, g.node("b"), old, g.task("new", of, 1, "b", replaces="old"))
    plan = reap.plan(snap, "node/a")
    assert (plan.wake_at == g.NOW - gone_for + reap.ORPHANED_AFTER) is not orphaned
    assert (g.applied(snap, plan.changes).tasks["old"].state == TaskState.ORPHANED) is orphaned


@pytest.mark.parametrize(("limit", "kept"), [(None, 5), (5, 5), (2, 2), (0, 1), (-1, 8)])
def test_history_has_a_limit(limit: int | None, kept: int) -> None:
    of = g.service()
    cluster = Cluster(id="c", spec=SwarmSpec(orchestration=Orchestration(task_history_retention_limit=limit)))
    tasks = [
        g.task(f"t{n}", of, 1, "a", TaskState.FAILED, since=n, desired=TaskState.SHUTDOWN, replaces=f"t{n - 1}")
        for n in range(7)
    ]
    found = left(cluster, of, g.node("a"), *tasks, g.task("t7", of, 1, "a", replaces="t6"), key="cluster")
    names = sorted({n for n in found if n.startswith("t")})
    assert names == [f"t{n}" for n in range(8 - kept, 8)]


def test_a_removed_service_goes_after_its_tasks() -> None:
    of = g.service(1, pending_delete=True)
    snap = g.settled(g.swarm(of, g.node("a"), g.task("t", of)), reap.plan)
    assert snap.tasks["t"].desired == TaskState.REMOVE
    assert "s" in snap.services
    over = g.settled(g.swarm(of, g.node("a"), g.task("t", of, state=TaskState.SHUTDOWN)), reap.plan)
    assert reap.plan(over, "s").wake_at == over.now + reap.SHOWN
    assert {"s", "t"} < {o.id for o in g.everything(over)}
    gone = g.settled(replace(over, now=over.now + reap.SHOWN), reap.plan)
    assert [o.id for o in g.everything(gone)] == ["a"]


def test_a_removed_network_goes_after_its_last_container() -> None:
    of = g.service(1)
    network = Network(id="n", pending_delete=True)
    used = g.task("t", of, attachments=[Attachment(network_id="n", address="10.0.0.2/24")])
    assert "n" in left(network, of, g.node("a"), used, key="network/n")
    stopped = g.task(
        "t", of, state=TaskState.SHUTDOWN, desired=TaskState.SHUTDOWN, attachments=[Attachment(network_id="n")]
    )
    assert "n" not in left(network, of, g.node("a"), stopped)
    template = replace(of.spec.task_template, networks=[NetworkAttachmentConfig(target="n")])
    refers = replace(of, spec=replace(of.spec, task_template=template))
    assert "n" in left(network, refers, g.node("a"), stopped)
    assert "n" in left(replace(network, pending_delete=False), key="network/n")


def test_old_data_stays_while_a_service_could_come_back_to_it_or_a_container_sees_it() -> None:
    of = g.service(1)
    old = Payload(id="c", owner="c", data="eA==")
    template = replace(of.spec.task_template, container_spec=ContainerSpec(configs=[ConfigReference(config_id="c")]))
    uses = replace(of.spec, task_template=template)
    assert "c" in left(old, replace(of, spec=uses))
    assert "c" in left(old, replace(of, previous_spec=uses))
    assert "c" in left(old, of, g.node("a"), g.task("t", of, spec=template))
    assert "c" not in left(old, of, g.node("a"), g.task("t", of, spec=template, state=TaskState.SHUTDOWN))


def test_what_a_removed_node_leaves_goes() -> None:
    there = [NodeReport(id="a"), Suspicion(id="a"), Volume(id="v", node_id="a")]
    assert left(*there, key="node/a") == []
    assert left(g.node("a"), *there, key="node/a") == ["a", "a", "a", "v"]


def test_tasks_that_were_stopping_on_a_removed_node_are_orphaned() -> None:
    of = g.service()
    snap = g.settled(g.swarm(of, g.task("t", of, desired=TaskState.SHUTDOWN)), reap.plan, "node/a")
    assert snap.tasks["t"].state == TaskState.ORPHANED
