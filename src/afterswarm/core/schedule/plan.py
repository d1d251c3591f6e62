"""Places every task that waits for a node.

All at once, under one key, since tasks compete for the same room. Tasks that have their node already (of global
services) come first, then those pinned by a volume, then the others, oldest first. A task that finds no node says why
in `err` and is looked at again whenever something changes that could matter. One whose service waits for another
(`core.dependencies`) is not placed before that is as it should be.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from msgspec.structs import replace

from afterswarm.core import dependencies
from afterswarm.core.schedule import filters, generic, spread, volumes
from afterswarm.core.schedule.filters import FILTERS, LASTING, PASSING, Context
from afterswarm.core.schedule.room import Room, rooms
from afterswarm.model.base import Change, Plan
from afterswarm.model.node import Node, NodeReport
from afterswarm.model.service import Service
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Report, Task, TaskState
from afterswarm.model.volume import Volume

ALL = "all"
BATCH = 200  # changes in one commit, which the store limits in size
ASSIGNED_MESSAGE = "scheduler assigned task to node"
CONFIRMED_MESSAGE = "scheduler confirmed task can run on preassigned node"


def keys_of(change: Change) -> Iterator[str]:
    """Whatever may let a waiting task go: a task, node, service or volume that changed, a container on its way."""
    match change.obj:
        case Task() | Node() | NodeReport() | Service() | Volume():
            yield ALL
        case Report(state=state) if state >= TaskState.STARTING:
            yield ALL
        case _:
            return


def plan(snap: Snapshot, _key: str) -> Plan:
    """Assign PENDING tasks to nodes. There is one key, `ALL`."""
    waiting = [t for t in snap.tasks.values() if t.state == TaskState.PENDING and t.desired <= TaskState.COMPLETE]
    waiting = [t for t in waiting if t.service_id in snap.services and snap.state_of(t) == TaskState.PENDING]
    if not waiting:
        return Plan()
    work = _Work(snap)

    def turn(task: Task) -> tuple[bool, bool, float, str, int, str]:
        return (not task.node_id, not work.ties(task).pins, task.created, task.service_id, task.slot, task.id)

    left: list[Task] = []
    for task in sorted(waiting, key=turn):
        if len(work.changes) >= BATCH:
            work.wake_at = snap.now
            return work.plan()
        if work.holds_back(task):
            continue
        if not (work.confirm(task) if task.node_id else work.place(task)):
            left.append(task)
    work.explain(left)  # now that nothing changes any more, so that the next plan says the same
    return work.plan()


class _Work:
    """Scratch paper of one plan: what was placed so far."""

    def __init__(self, snap: Snapshot) -> None:
        self.snap = snap
        self.changes: list[Change] = []
        self.wake_at = inf
        self._volumes = volumes.by_service(snap)
        self._recorded: set[tuple[str, int]] = set()  # service id and slot, whose volumes this plan put somewhere
        self._rooms = rooms(snap)
        driven = frozenset(s.id for s in snap.secrets.values() if s.spec.driver)
        encrypted = frozenset(n.id for n in snap.networks.values() if n.encrypted)
        self._context = Context(self._rooms, driven, encrypted)
        self._lasting: dict[tuple[str, int], list[Room]] = {}
        self._unmet: dict[tuple[str, int, int | None], str] = {}
        self._chosen: set[str] = set()

    def plan(self) -> Plan:
        count = sum(isinstance(c.new, Task) and c.new.state == TaskState.ASSIGNED for c in self.changes)
        why = f"placed {count} task{'s' if count > 1 else ''}" if count else ""
        return Plan(self.changes, wake_at=self.wake_at, reads=tuple(f"node/{n}" for n in sorted(self._chosen)), why=why)

    def holds_back(self, task: Task) -> bool:
        """Whether its service waits for another one; the task says so."""
        group = (task.service_id, task.spec_version, task.job_iteration)
        if group not in self._unmet:
            self._unmet[group] = dependencies.unmet(self.snap, task)
        why = self._unmet[group]
        if why and task.err != why:
            self.changes.append(Change(task, replace(task, err=why)))
        return bool(why)

    def confirm(self, task: Task) -> bool:
        """Of a task that has its node."""
        room = self._rooms.get(task.node_id)
        if room is None or filters.reason(FILTERS, task, room.node, self._context):
            return False
        self._assign(task, room, CONFIRMED_MESSAGE)
        return True

    def ties(self, task: Task) -> volumes.Ties:
        return volumes.ties(self.snap, self.snap.services[task.service_id], task, self._volumes)

    def place(self, task: Task) -> bool:
        if (task.service_id, task.slot) in self._recorded:  # the second of one slot: decide it from what is stored
            self.wake_at = self.snap.now
            return False
        tied = self.ties(task)
        for room in self._candidates(task, tied):
            if not filters.reason(PASSING, task, room.node, self._context):
                self._record(task, tied, room.node.id)  # first: an assignment without it would forget the data
                self._assign(task, room, ASSIGNED_MESSAGE)
                return True
        return False

    def explain(self, tasks: list[Task]) -> None:
        """Let each of these say why it waits, if it does not say so yet."""
        found: dict[tuple[str, int], str] = {}  # tasks of one service and version wait for the same reasons, mostly
        for task in tasks:
            if (task.service_id, task.slot) in self._recorded or (task.node_id and task.node_id not in self._rooms):
                continue
            tied = self.ties(task)
            if tied.pins:
                why = volumes.explain(tied, self._rooms, self._reason(task, tied.pins[0].node_id))
            elif task.node_id:
                why = filters.explain(filter(None, [self._reason(task, task.node_id)]))
            elif any((task.service_id, task.slot) in room.leaving for room in self._rooms.values()):
                why = self._reasons(task)
            else:
                group = (task.service_id, task.spec_version)
                if group not in found:
                    found[group] = self._reasons(task)
                why = found[group]
            err = f"no suitable node ({why})" if why else "no suitable node"
            if task.err != err:
                self.changes.append(Change(task, replace(task, err=err)))

    def _candidates(self, task: Task, tied: volumes.Ties) -> list[Room]:
        """Rooms that the task may have if there is room left, best first."""
        if tied.pins:
            if len({v.node_id for v in tied.pins}) > 1:
                return []
            room = self._rooms[tied.pins[0].node_id]
            return [] if filters.reason(LASTING, task, room.node, self._context) else [room]
        group = (task.service_id, task.spec_version)
        if group not in self._lasting:
            able = [r for r in self._rooms.values() if not filters.reason(LASTING, task, r.node, self._context)]
            self._lasting[group] = able
        return spread.by_worth(task, self._lasting[group], filters.placement(task), tied.strangeness)

    def _reasons(self, task: Task) -> str:
        return filters.explain(filter(None, (self._reason(task, node_id) for node_id in self._rooms)))

    def _reason(self, task: Task, node_id: str) -> str | None:
        return filters.reason(FILTERS, task, self._rooms[node_id].node, self._context)

    def _assign(self, task: Task, room: Room, message: str) -> None:
        new = replace(
            task,
            node_id=room.node.id,
            state=TaskState.ASSIGNED,
            since=self.snap.now,
            message=message,
            err="",
            generic_resources=generic.given(task, room) or [],
        )
        self.changes.append(Change(task, new))
        self._chosen.add(room.node.id)
        room.enter(new)

    def _record(self, task: Task, tied: volumes.Ties, node_id: str) -> None:
        service = self.snap.services[task.service_id]
        for old, new in volumes.placed(service, task, tied, node_id):
            self.changes.append(Change(old, new))
            known = self._volumes.setdefault(service.name, [])
            self._volumes[service.name] = [*(v for v in known if v.id != new.id), new]
            self._recorded.add((task.service_id, task.slot))
