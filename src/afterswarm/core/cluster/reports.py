"""Which of two reports about one task is the newer, and whether it is worth writing down."""

from __future__ import annotations

from msgspec.structs import replace

from afterswarm.model.node import NodeReport
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Report, TaskState


def accepted(snap: Snapshot, report: Report) -> Report | None:
    """The report as it should be stored, or `None` when there is nothing new in it.

    States only grow: what says less than is known came late. Within one state the time it was reached stays, so that
    an agent which finds its containers again after a restart does not rewrite history.
    """
    task = snap.tasks.get(report.id)
    if task is None or task.node_id != report.node_id or task.state == TaskState.ORPHANED:
        return None
    known = snap.reports.get(report.id)
    report = replace(report, service_id=task.service_id, rev=0, created=0.0, updated=0.0)
    if known is None:
        return report
    if report.state < known.state:
        return None
    if report.state == known.state:
        report = replace(report, since=known.since)
    return None if _same(report, known) else report


def later(first: Report, second: Report) -> Report:
    """Of two reports in the order they came, the one that holds."""
    return second if second.state >= first.state else first


def accepted_node(snap: Snapshot, report: NodeReport) -> NodeReport | None:
    """What a node says of itself, if it is a member and says something new."""
    if report.id not in snap.nodes:
        return None
    known = snap.node_reports.get(report.id)
    if known is not None and known.left:  # a greeting that was under way
        report = replace(report, left=True)
    return None if known is not None and _same(report, known) else report


def _same(new: Report | NodeReport, known: Report | NodeReport) -> bool:
    return replace(new, rev=known.rev, created=known.created, updated=known.updated) == known
