"""What follows a task that ended by itself, and when a prepared task may start.

- A wanted task that is over (COMPLETE, FAILED, REJECTED) is told to shut down. When nothing else lives in its slot and
  its restart policy says so, another one follows: prepared at once (desired READY), started after the delay.
- A prepared task is started (desired RUNNING, or COMPLETE for a job) when its time has come, nothing else lives in its
  slot, and whatever was there before has stopped, or is on a node that is down while the new one has been given
  another.
- Of two tasks of the same version that live in one slot, the better one stays.

The delay is the policy's for the first three restarts in a row, as with Docker, and then doubles up to 16 times; a
run of a minute counts as calm and starts that anew. Which restarts there were is kept in the tasks themselves
(`Task.restarts`), so a new leader counts on. Of a job, only tasks of the present execution
count, and one that completed stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from msgspec.structs import replace

from afterswarm.core.orchestrate import slots, tasks
from afterswarm.model.base import Change, Plan
from afterswarm.model.service import SECOND, Service
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Task, TaskState

STUCK = 60.0  # seconds after its stop grace period when a task that does not stop is no longer waited for, as in Docker


def plan(snap: Snapshot, key: str) -> Plan:
    """Replace what ended, start what is due. `key`: service id or `node/<id>`."""
    return tasks.over_services(snap, key, _plan)


def successor(snap: Snapshot, service: Service, ended: Task, here: Sequence[Task]) -> Task:
    """The task that follows `ended`, which is over, in the slot of the tasks `here`."""
    # One that failed while it was only prepared had not used up its own delay yet.
    when = max(slots.reached(snap, ended), min(ended.start_after, snap.now))
    times, places = [], []
    if not slots.outdated(snap, service, ended):
        failed = snap.state_of(ended) != TaskState.COMPLETE
        times, places = [*ended.restarts, when], [*ended.failed_on, ended.node_id if failed else ""]
    policy = slots.policy_of(ended)
    base = slots.base_delay(policy)
    wait = slots.backed_off(base, slots.in_a_row(times, base))
    kept = max(policy.max_attempts or 0, slots.REMEMBERED)
    return tasks.new(
        snap,
        service,
        slots.slot_of(ended),
        here,
        start_after=when + wait if wait else 0.0,
        restarts=times[-kept:],
        failed_on=places[-kept:],
    )


def _plan(snap: Snapshot, service: Service) -> Plan:
    if service.pending_delete:
        return Plan()
    parts = [_slot(snap, service, here) for here in slots.by_slot(snap.tasks_of(service.id)).values()]
    return Plan(
        changes=[change for part in parts for change in part.changes],
        wake_at=min((part.wake_at for part in parts), default=inf),
        why="; ".join(part.why for part in parts if part.why),
    )


def _slot(snap: Snapshot, service: Service, here: list[Task]) -> Plan:
    mine = [t for t in here if service.job_status is None or not slots.outdated(snap, service, t)]
    living = [t for t in mine if slots.alive(snap, t)]
    ended = [t for t in mine if slots.wanted(t) and not slots.alive(snap, t) and not slots.done(snap, t)]
    if ended:
        return _follow(snap, service, here, living, ended)
    if doubles := _doubles(snap, service, living):
        return Plan(changes=[Change(t, replace(t, desired=TaskState.SHUTDOWN)) for t in doubles])
    prepared = [t for t in living if t.desired < TaskState.RUNNING]
    if len(living) != 1 or not prepared:
        return Plan()
    due = _due(snap, prepared[0], here)
    if due > snap.now:
        return Plan(wake_at=due)
    return Plan(changes=[Change(prepared[0], replace(prepared[0], desired=slots.goal(service)))])


def _follow(snap: Snapshot, service: Service, here: list[Task], living: list[Task], ended: list[Task]) -> Plan:
    """The new task is written before the old one is told: cut short, the slot is never seen free."""
    told = [Change(t, replace(t, desired=TaskState.SHUTDOWN)) for t in ended]
    last = slots.newest(ended)
    if last is None or living or not slots.restarts(snap, last) or slots.misplaced_for_good(snap, service, last):
        return Plan(changes=told)
    if last.desired < TaskState.RUNNING and last.start_after > snap.now:
        # It failed before its time came. Its successor would be prepared, and fail, at once.
        return Plan(wake_at=last.start_after)
    new = successor(snap, service, last, here)
    return Plan(
        changes=[Change(None, new), *told],
        why=f"{service.name}.{new.place}: {snap.state_of(last).word}, restart in "
        f"{max(new.start_after - snap.now, 0):.3g} s",
    )


def _doubles(snap: Snapshot, service: Service, living: list[Task]) -> list[Task]:
    current = [t for t in living if not slots.outdated(snap, service, t) and not slots.moves(snap, service, t)]
    worth = sorted(current, key=lambda t: (-t.desired, -snap.state_of(t), t.id))
    return worth[1:]


def _due(snap: Snapshot, task: Task, here: list[Task]) -> float:
    """When the prepared task may start, as far as is known now; infinity: not before something changes."""
    when = task.start_after
    for other in here:
        if other.id == task.id or slots.stopped(snap, other):
            continue
        if slots.may_run(snap, other):
            when = max(when, _given_up(other))
        elif task.state < TaskState.ASSIGNED:
            return inf  # its host may come back before this one has a host at all
    return when


def _given_up(task: Task) -> float:
    """When a task that does not stop is no longer waited for: never, if it has data that two must not write."""
    container = task.spec.container_spec
    if container and any(mount.type in ("volume", "bind", "cluster") for mount in container.mounts):
        return inf
    grace = 10.0 if container is None or container.stop_grace_period is None else container.stop_grace_period / SECOND
    return task.updated + grace + STUCK
