"""Writes what agents report, in batches, until the store has taken it.

A report stays here while the store cannot be reached; of two about one task the later state holds. Whether it says
anything new is judged against the view at the time of the write (`core.reports`).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from afterswarm.core.cluster import reports
from afterswarm.model.base import Change
from afterswarm.model.node import NodeReport
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Report
from afterswarm.ports import Clock, Conflict, Replica, Unavailable

GATHER = 0.02  # seconds; what comes within it goes into one commit
LARGEST = 50  # objects in one commit: etcd takes 128 operations
UNAVAILABLE = 0.3  # seconds until the next try
CATCH_UP = 2.0

log = logging.getLogger(__name__)


class Reporting:
    """`put` what came in; `run` writes it."""

    def __init__(self, replica: Replica, clock: Clock) -> None:
        self._replica = replica
        self._clock = clock
        self._tasks: dict[str, Report] = {}
        self._nodes: dict[str, NodeReport] = {}
        self._gone: dict[str, None] = {}  # tasks that are no more, but whose report is still there
        self._woken = asyncio.Event()

    def put(self, report: Report) -> None:
        before = self._tasks.pop(report.id, None)
        self._tasks[report.id] = reports.later(before, report) if before else report
        self._woken.set()

    def put_node(self, report: NodeReport) -> None:
        self._nodes[report.id] = report
        self._woken.set()

    def forget(self, task_id: str) -> None:
        """The task was deleted; a report of it that came in meanwhile must not stay behind."""
        self._gone[task_id] = None
        self._woken.set()

    async def run(self) -> None:
        while True:
            await self._woken.wait()
            await self._clock.sleep(GATHER)
            self._woken.clear()
            while self._tasks or self._nodes or self._gone:
                await self._turn()

    async def _turn(self) -> None:
        tasks = {i: self._tasks.pop(i) for i in list(self._tasks)[:LARGEST]}
        nodes, self._nodes = self._nodes, {}
        gone, self._gone = self._gone, {}
        try:
            await self._replica.commit(self._changes(self._replica.snapshot(), tasks, nodes, gone))
        except (Conflict, Unavailable) as error:
            for report in tasks.values():
                self._tasks[report.id] = reports.later(report, self._tasks.get(report.id, report))
            self._nodes = nodes | self._nodes
            self._gone |= gone
            await self._wait(error)
            return
        snap = self._replica.snapshot()
        for task_id in tasks:
            if task_id not in snap.tasks and task_id in snap.reports:
                self.forget(task_id)

    def _changes(
        self, snap: Snapshot, tasks: dict[str, Report], nodes: dict[str, NodeReport], gone: dict[str, None]
    ) -> list[Change]:
        changes: list[Change] = []
        for report in tasks.values():
            new = reports.accepted(snap, report)
            if new:
                changes.append(Change(snap.reports.get(report.id), new))
        for node in nodes.values():
            said = reports.accepted_node(snap, node)
            if said:
                changes.append(Change(snap.node_reports.get(node.id), said))
        orphans = (i for i in gone if i in snap.reports and i not in snap.tasks)
        changes.extend(Change(snap.reports[i], None) for i in orphans)
        return changes

    async def _wait(self, error: Conflict | Unavailable) -> None:
        if isinstance(error, Unavailable):
            log.warning("reports cannot be written, the store cannot be reached")
            await self._clock.sleep(UNAVAILABLE)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(CATCH_UP):
                await self._replica.reach(error.rev)
