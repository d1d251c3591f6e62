"""Reports only move forward, and only a task's own node is believed."""

from __future__ import annotations

from msgspec.structs import replace

from afterswarm.core.cluster.reports import accepted, accepted_node, later
from afterswarm.model.node import Description, Node, NodeReport
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Report, Task, TaskState

TASK = Task(id="t", service_id="s", node_id="n", state=TaskState.ASSIGNED)
RUNNING = Report(id="t", service_id="s", node_id="n", state=TaskState.RUNNING, since=5.0, container_id="c")


def test_the_first_report_is_stored_with_the_task_s_service() -> None:
    assert accepted(Snapshot.of([TASK]), replace(RUNNING, service_id="", rev=7)) == RUNNING


def test_states_only_grow() -> None:
    snap = Snapshot.of([TASK, replace(RUNNING, rev=3, created=1.0, updated=2.0)])
    assert accepted(snap, replace(RUNNING, state=TaskState.STARTING)) is None
    failed = replace(RUNNING, state=TaskState.FAILED, since=9.0)
    assert accepted(snap, failed) == failed


def test_the_same_again_is_nothing_new_but_another_container_is() -> None:
    snap = Snapshot.of([TASK, replace(RUNNING, rev=3, created=1.0, updated=2.0)])
    assert accepted(snap, RUNNING) is None
    assert accepted(snap, replace(RUNNING, since=99.0)) is None
    assert accepted(snap, replace(RUNNING, since=99.0, pid=7)) == replace(RUNNING, pid=7)


def test_who_may_speak_of_a_task() -> None:
    assert accepted(Snapshot.of([]), RUNNING) is None
    assert accepted(Snapshot.of([TASK]), replace(RUNNING, node_id="other")) is None
    assert accepted(Snapshot.of([replace(TASK, state=TaskState.ORPHANED)]), RUNNING) is None


def test_of_two_reports_the_later_state_holds() -> None:
    starting = replace(RUNNING, state=TaskState.STARTING)
    assert later(RUNNING, starting) == RUNNING
    assert later(starting, RUNNING) == RUNNING
    assert later(RUNNING, replace(RUNNING, pid=1)).pid == 1


def test_nodes() -> None:
    said = NodeReport(id="n", address="10.0.0.1", description=Description(hostname="h"))
    assert accepted_node(Snapshot.of([]), said) is None
    assert accepted_node(Snapshot.of([Node(id="n")]), said) == said
    known = replace(said, rev=4, created=1.0, updated=1.0)
    assert accepted_node(Snapshot.of([Node(id="n"), known]), said) is None
    assert accepted_node(Snapshot.of([Node(id="n"), known]), replace(said, address="10.0.0.2")) is not None
