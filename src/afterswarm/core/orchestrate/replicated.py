"""Replicated services: as many slots in use as the service asks for replicas.

Only whole slots are added and removed here. What goes on inside a slot in use belongs to `restart`, `update` and
`enforce`; services that were removed belong to `reap`.
"""

from __future__ import annotations

from collections import Counter
from itertools import count, islice
from math import inf

from msgspec.structs import replace

from afterswarm.core.orchestrate import slots, tasks
from afterswarm.model.base import Change, Plan
from afterswarm.model.service import Service
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Task, TaskState

InUse = dict[int, list[Task]]  # the wanted tasks of each slot in use; of a finished one, its last task


def plan(snap: Snapshot, key: str) -> Plan:
    """Fill missing slots, and empty surplus ones with all that is left in them. `key`: service id."""
    return tasks.over_services(snap, key, _plan)


def _plan(snap: Snapshot, service: Service) -> Plan:
    mode = service.spec.mode.replicated
    if mode is None or service.pending_delete:
        return Plan()
    replicas = 1 if mode.replicas is None else mode.replicas
    found = {n: here for n, here in slots.by_slot(snap.tasks_of(service.id)).items() if isinstance(n, int)}
    in_use = _in_use(snap, found)
    kept = set(best_to_keep(snap, in_use)[:replicas])
    added = list(islice((n for n in count(1) if n not in in_use), max(replicas - len(in_use), 0)))
    emptied = [n for n in found if n not in kept and n not in added]
    removed = [t for n in emptied for t in found[n] if t.desired < TaskState.REMOVE]
    return Plan(
        changes=[Change(None, tasks.new(snap, service, n, found.get(n, []))) for n in added]
        + [Change(t, replace(t, desired=TaskState.REMOVE)) for t in removed],
        why=_why(service, replicas, len(added), len(in_use) - len(kept)),
    )


def _in_use(snap: Snapshot, found: dict[int, list[Task]]) -> InUse:
    in_use: InUse = {}
    for n, here in found.items():
        wanted = [t for t in here if slots.wanted(t)]
        if wanted:
            in_use[n] = wanted
        elif slots.finished(snap, here) and (last := slots.newest(here)):
            in_use[n] = [last]
    return in_use


def best_to_keep(snap: Snapshot, in_use: InUse) -> list[int]:
    """Slots, first to keep first: running ones, spread over nodes, then the lowest number."""
    copies: Counter[str] = Counter()

    def runs(n: int) -> bool:
        return any(snap.state_of(t) == TaskState.RUNNING for t in in_use[n])

    def nth_copy_on_its_node(n: int) -> float:
        node = next((t.node_id for t in in_use[n] if t.node_id), "")
        copies[node] += 1
        return copies[node] if node else inf

    running = sorted(n for n in in_use if runs(n))
    others = sorted(n for n in in_use if not runs(n))
    return [n for part in (running, others) for n in sorted(part, key=nth_copy_on_its_node)]


def _why(service: Service, replicas: int, added: int, emptied: int) -> str:
    done = [f"{number} {word}" for number, word in ((added, "added"), (emptied, "removed")) if number > 0]
    return f"{service.name}: {' and '.join(done)} for {replicas} replicas" if done else ""
