"""Running tasks of replicated services on a node that is drained and lives: moved as an update would replace them.

By the service's update order and so many at a time as its parallelism allows, so that a service loses no more than it
does in an update. Docker stops them all at once (moby/moby#34139). What cannot wait is left to `enforce`: tasks that do
not run yet, jobs, and every task of a node that is down or gone.

A slot is under way while the old task and its successor live side by side. The old one is told to stop when the new one
runs (start-first) or has been prepared (stop-first; `restart` starts it then), or when it cannot be placed anywhere:
the node is to be empty in any case, and the reason is shown with the new task. A successor is of the present version,
so an update finds nothing left to do in that slot.
"""

from __future__ import annotations

from math import inf

import msgspec
from msgspec.structs import replace

from afterswarm.core.orchestrate import restart, slots, tasks, update
from afterswarm.model.base import Change, Plan
from afterswarm.model.service import Service
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Task, TaskState

WHY = "node is drained"


def plan(snap: Snapshot, key: str) -> Plan:
    """Begin and end moves. `key`: service id or `node/<id>`."""
    return tasks.over_services(snap, key, _plan)


class _Move(msgspec.Struct, frozen=True):
    """A slot that is to be somewhere else."""

    slot: slots.Slot
    here: list[Task]
    old: list[Task]
    new: list[Task]

    def alone(self, snap: Snapshot) -> bool:
        """Whether the task has no successor, and nothing else lives in its slot."""
        return sum(slots.alive(snap, t) for t in self.here) == 1


def _plan(snap: Snapshot, service: Service) -> Plan:
    if service.spec.mode.replicated is None or service.pending_delete:
        return Plan()
    settings = update.Settings.of(service)
    moves = _moves(snap, service)
    changes: list[Change] = []
    wake_at = inf
    for move in moves:
        best = max(move.old, key=lambda t: (not slots.outdated(snap, service, t), t.created, t.id))
        changes += [Change(t, replace(t, desired=TaskState.SHUTDOWN, message=WHY)) for t in move.old if t != best]
        if any(_there(snap, new, start_first=settings.start_first) for new in move.new):
            changes.append(Change(best, replace(best, desired=TaskState.SHUTDOWN, message=WHY)))
        elif settings.start_first and move.new:
            started, due = _start(snap, move)
            changes += started
            wake_at = min(wake_at, due)
    free = settings.parallelism - sum(bool(move.new) for move in moves)
    begun = 0
    for move in moves:
        if move.alone(snap) and begun < free:
            begun += 1
            changes.append(Change(None, _successor(snap, service, move, start_first=settings.start_first)))
    return Plan(changes=changes, wake_at=wake_at, why=f"{service.name}: {begun} moved, {WHY}" if begun else "")


def _moves(snap: Snapshot, service: Service) -> list[_Move]:
    found = []
    for slot, here in slots.by_slot(snap.tasks_of(service.id)).items():
        old = [t for t in here if slots.moves(snap, service, t)]
        new = [t for t in here if slots.alive(snap, t) and not slots.misplaced(snap, service, t)]
        if old:
            found.append(_Move(slot, here, old, [t for t in new if t not in old]))
    return found


def _there(snap: Snapshot, new: Task, *, start_first: bool) -> bool:
    """Whether the old task need not be kept for the new one."""
    state = snap.state_of(new)
    nowhere = bool(new.err) and state <= TaskState.PENDING
    return nowhere or state >= (TaskState.RUNNING if start_first else TaskState.READY)


def _start(snap: Snapshot, move: _Move) -> tuple[list[Change], float]:
    """Start prepared tasks beside the old one: not beside a third one that is still stopping."""
    prepared = [t for t in move.new if t.desired < TaskState.RUNNING]
    if any(not slots.wanted(t) and slots.may_run(snap, t) for t in move.here):
        return [], inf
    due = [t for t in prepared if t.start_after <= snap.now]
    later = min((t.start_after for t in prepared if t not in due), default=inf)
    return [Change(t, replace(t, desired=TaskState.RUNNING)) for t in due], later


def _successor(snap: Snapshot, service: Service, move: _Move, *, start_first: bool) -> Task:
    last = slots.newest(move.here)
    if last and last not in move.old and snap.state_of(last) in slots.ENDED_BY_ITSELF:
        return restart.successor(snap, service, last, move.here)  # it failed beside the old one: not again at once
    alone = all(t in move.old or slots.stopped(snap, t) for t in move.here)
    return tasks.new(snap, service, move.slot, move.here, at_once=start_first and alone)
