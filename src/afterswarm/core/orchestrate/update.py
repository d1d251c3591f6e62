"""Rolling updates: bring the tasks of a service, slot by slot, to its present template.

    (none)   -> updating                      an outdated task was found
    updating -> completed                     all slots are up to date and nothing failed for the monitor period
    updating -> paused                        too many of the new tasks failed
    updating -> rollback_started              the same, if the service asks for it: `spec` becomes `previous_spec`
    rollback_started -> rollback_completed, rollback_paused      a rollback is never rolled back

A slot is done once its new task runs, or has failed (another try is the restart policy's business); until then, and
for the delay after, it is one of `parallelism`. Which tasks are new is told by their `spec_version`, so nothing is
remembered between two turns but what objects hold. States, words and numbers are SwarmKit's (`updater.go`), except:

- stop-first prepares the new task (pulls its image) before the old one is stopped, and leaves the old one running when
  that fails;
- a task that completes, and by its restart policy need not start again, has not failed;
- start-first gives way to stop-first when a port of the host, which only one of the two can have, is published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

import msgspec
from msgspec.structs import replace

from afterswarm.core.orchestrate import everywhere, restart, slots, tasks
from afterswarm.model.base import Change, Plan
from afterswarm.model.service import SECOND, Service, UpdateConfig, UpdateState, UpdateStatus
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Task, TaskState

MONITOR = 5.0  # seconds, Docker's default
PAUSED = frozenset({UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED})
RUNNING = frozenset({UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED})


class Settings(msgspec.Struct, frozen=True):
    """An `UpdateConfig` with its defaults filled in; times in seconds."""

    parallelism: float
    delay: float
    monitor: float
    action: str
    ratio: float
    start_first: bool

    @staticmethod
    def of(service: Service) -> Settings:
        rolls_back = _state(service) in (UpdateState.ROLLBACK_STARTED, UpdateState.ROLLBACK_PAUSED)
        config = (service.spec.rollback_config if rolls_back else service.spec.update_config) or UpdateConfig()
        parallelism = 1 if config.parallelism is None else config.parallelism
        delay = config.delay / SECOND
        monitor = MONITOR if config.monitor is None else config.monitor / SECOND
        return Settings(
            parallelism=parallelism or inf,
            delay=delay,
            monitor=delay + 1 if delay >= monitor else monitor,
            action=config.failure_action or "pause",
            ratio=config.max_failure_ratio,
            start_first=config.order == "start-first" and not slots.fixed_host_ports(service),
        )


def plan(snap: Snapshot, key: str) -> Plan:
    """One step of the service's update. `key`: service id, or `node/<id>`."""
    return tasks.over_services(snap, key, _plan)


def _plan(snap: Snapshot, service: Service) -> Plan:
    mode = service.spec.mode
    if service.pending_delete or (mode.replicated is None and mode.global_ is None):
        return Plan()
    found = {slot: _Slot.of(snap, service, here) for slot, here in slots.by_slot(snap.tasks_of(service.id)).items()}
    running = _state(service) in RUNNING
    settings = Settings.of(service)
    if running and (failed := _failed_too_often(snap, service, found, settings)):
        return _give_up(snap, service, settings, failed)
    finish = [change for slot in found.values() for change in _hand_over(snap, settings, slot)]
    due = min((_due(snap, settings, slot) for slot in found.values()), default=inf)
    if _state(service) in PAUSED:
        return Plan(changes=finish, wake_at=due)
    open_slots = {n: s for n, s in found.items() if s.is_open(snap, service)}
    begin = _begun(snap, service) if open_slots and not running else []
    started, retry_at = _start(snap, service, settings, open_slots, _free(snap, settings, found))
    changes = begin + finish + started
    wake_at = min(due, retry_at)
    if open_slots:
        return Plan(changes=changes, wake_at=min(wake_at, _next_free(snap, settings, found)))
    if changes or not running:
        return Plan(changes=changes, wake_at=wake_at)
    return _complete(snap, service, settings, found)


class _Slot(msgspec.Struct, frozen=True):
    """The tasks of one slot as an update sees them."""

    here: list[Task]
    old: list[Task]  # outdated and alive
    new: list[Task]  # up to date and alive
    made: Task | None  # the last task that the present version brought in place of another
    waiting: bool  # a wanted task is over: `restart` has the next word
    left: Task | None  # the last task of a slot that is finished

    @staticmethod
    def of(snap: Snapshot, service: Service, here: list[Task]) -> _Slot:
        living = [t for t in here if slots.alive(snap, t)]
        made = [t for t in here if t.spec_version == service.spec_version and t.replaces]
        return _Slot(
            here=here,
            old=[t for t in living if slots.outdated(snap, service, t)],
            new=[t for t in living if not slots.outdated(snap, service, t)],
            made=slots.newest(made),
            waiting=any(slots.wanted(t) for t in here if t not in living),
            left=slots.newest(here) if slots.finished(snap, here) else None,
        )

    def is_open(self, snap: Snapshot, service: Service) -> bool:
        """Whether this slot still needs a new task."""
        if self.new or self.waiting or not (self.old or self.left):
            return False
        if self.left and not slots.outdated(snap, service, self.left):
            return False
        if self.made and _ended_by_itself(snap, self.made) and not slots.restarts(snap, self.made):
            return False  # its tries are used up
        node = snap.nodes.get(self.here[0].node_id)
        return service.spec.mode.global_ is None or (node is not None and everywhere.eligible(snap, service, node))


Found = Mapping[slots.Slot, _Slot]


def _ended_by_itself(snap: Snapshot, task: Task) -> bool:
    """Rather than with its node."""
    return snap.state_of(task) in slots.ENDED_BY_ITSELF


def _hand_over(snap: Snapshot, settings: Settings, slot: _Slot) -> list[Change]:
    """Stop old tasks whose successor is there; with start-first, start a successor whose time has come."""
    if slot.old and _due(snap, settings, slot) <= snap.now:
        return [Change(t, replace(t, desired=TaskState.RUNNING)) for t in slot.new if t.desired < TaskState.RUNNING]
    best = _best(snap, slot.old)
    ready = any(_ready(snap, settings, slot, new) for new in slot.new)
    leaving = [t for t in slot.old if ready or t is not best]
    return [Change(t, replace(t, desired=TaskState.SHUTDOWN)) for t in leaving]


def _due(snap: Snapshot, settings: Settings, slot: _Slot) -> float:
    """When a prepared task may start beside the old one: not beside a third one that is still stopping."""
    prepared = [t.start_after for t in slot.new if t.desired < TaskState.RUNNING]
    crowded = any(not slots.wanted(t) and slots.may_run(snap, t) for t in slot.here)
    return min(prepared) if prepared and slot.old and settings.start_first and not crowded else inf


def _ready(snap: Snapshot, settings: Settings, slot: _Slot, new: Task) -> bool:
    state = snap.state_of(new)
    if all(snap.state_of(old) < TaskState.RUNNING for old in slot.old):
        return True  # nothing is lost
    if settings.start_first:
        return state == TaskState.RUNNING
    return state >= TaskState.READY


def _best(snap: Snapshot, old: Sequence[Task]) -> Task | None:
    return max(old, key=lambda t: (t.desired, snap.state_of(t), t.created, t.id), default=None)


# ---- starting new tasks ----------------------------------------------------------------------------------------


def _start(
    snap: Snapshot, service: Service, settings: Settings, open_slots: Found, free: float
) -> tuple[list[Change], float]:
    """New tasks for as many slots as may be under way, and when a slot that must wait can be tried again."""
    changes: list[Change] = []
    retry_at = inf

    def worth(item: tuple[slots.Slot, _Slot]) -> tuple[bool, str]:
        slot, found = item
        runs = any(snap.state_of(t) == TaskState.RUNNING for t in found.old)
        return runs, f"{slot:09}" if isinstance(slot, int) else slot

    for slot, found in sorted(open_slots.items(), key=worth):
        if len(changes) >= free:
            break
        failed = found.made
        if failed and _ended_by_itself(snap, failed):
            if failed.start_after > snap.now:
                retry_at = min(retry_at, failed.start_after)
                continue
            new = restart.successor(snap, service, failed, found.here)
        else:
            keep = _best(snap, found.old)
            alone = all(t is keep or slots.stopped(snap, t) for t in found.here)
            new = tasks.new(snap, service, slot, found.here, at_once=settings.start_first and alone)
        changes.append(Change(None, new))
    return changes, retry_at


def _free(snap: Snapshot, settings: Settings, found: Found) -> float:
    return settings.parallelism - sum(_busy_until(snap, settings, slot) > snap.now for slot in found.values())


def _next_free(snap: Snapshot, settings: Settings, found: Found) -> float:
    ends = (_busy_until(snap, settings, slot) for slot in found.values())
    return min((end for end in ends if end > snap.now), default=inf)


def _busy_until(snap: Snapshot, settings: Settings, slot: _Slot) -> float:
    """When this slot no longer counts as being updated; infinity: not before something changes."""
    if slot.made is None or slot.made.restarts or slot.made.desired == TaskState.REMOVE:
        return 0.0
    if snap.state_of(slot.made) < TaskState.RUNNING:
        return inf if slots.wanted(slot.made) else 0.0
    return slots.reached(snap, slot.made) + settings.delay


# ---- states of the update --------------------------------------------------------------------------------------


def _state(service: Service) -> UpdateState | None:
    return service.update_status.state if service.update_status else None


def _begun(snap: Snapshot, service: Service) -> list[Change]:
    status = UpdateStatus(state=UpdateState.UPDATING, started_at=snap.now, message="update in progress")
    return [Change(service, replace(service, update_status=status))]


def _failed_too_often(snap: Snapshot, service: Service, found: Found, settings: Settings) -> Task | None:
    """The new task whose failure was one too many."""
    if settings.action == "continue":
        return None
    made = [t for s in found.values() for t in s.here if _first_try(service, t)]
    failures = sorted((slots.reached(snap, t), t.id, t) for t in made if _failed(snap, t, settings))
    total = sum(s.made is not None or bool(s.old) for s in found.values())
    return next((t for n, (_, _, t) in enumerate(failures, 1) if n / total > settings.ratio), None)


def _first_try(service: Service, task: Task) -> bool:
    return task.spec_version == service.spec_version and bool(task.replaces) and not task.restarts


def _failed(snap: Snapshot, task: Task, settings: Settings) -> bool:
    """Whether it ended by itself before the monitor period was over. One that is not to run for ever may end well."""
    state = snap.state_of(task)
    meant_to_end = slots.policy_of(task).condition in ("none", "on-failure")
    if state not in slots.ENDED_BY_ITSELF or (state == TaskState.COMPLETE and meant_to_end):
        return False
    report = snap.reports.get(task.id)
    return report is None or not report.started or report.since - report.started <= settings.monitor


def _give_up(snap: Snapshot, service: Service, settings: Settings, failed: Task) -> Plan:
    rolls_back = _state(service) == UpdateState.ROLLBACK_STARTED
    back = settings.action == "rollback"
    because = f"due to failure or early termination of task {failed.id}"
    status = service.update_status or UpdateStatus()
    if back and not rolls_back and service.previous_spec is not None:
        status = replace(status, state=UpdateState.ROLLBACK_STARTED, message=f"update rolled back {because}")
        new = replace(
            service,
            spec=service.previous_spec,
            pull_auth=service.previous_pull_auth,
            previous_spec=None,
            previous_pull_auth="",
            update_status=status,
            read_after=snap.rev,
        )
        # A version that no task has: those that were not touched yet are up to date because their template is equal.
        version = max(snap.rev, service.spec_version) + 1
        return Plan(changes=[Change(service, replace(new, spec_version=version))], why=status.message)
    state = UpdateState.ROLLBACK_PAUSED if rolls_back else UpdateState.PAUSED
    verb = "rollback paused" if rolls_back and back else "update paused"
    status = replace(status, state=state, message=f"{verb} {because}")
    return Plan(changes=[Change(service, replace(service, update_status=status))], why=status.message)


def _complete(snap: Snapshot, service: Service, settings: Settings, found: Found) -> Plan:
    """All slots have their new task: done when these have run for the monitor period."""
    made = [s.made for s in found.values() if s.made and not s.made.restarts]
    unsettled = [t for t in made if slots.wanted(t) and snap.state_of(t) < TaskState.RUNNING]
    if unsettled or any((s.old and s.new) or (s.waiting and not s.made) for s in found.values()):
        return Plan()
    status = service.update_status or UpdateStatus()
    settled = [slots.reached(snap, t) for t in made if snap.state_of(t) >= TaskState.RUNNING]
    done_at = max(settled, default=status.started_at) + (settings.monitor if settled else 0)
    if done_at > snap.now:
        return Plan(wake_at=done_at)
    back = status.state == UpdateState.ROLLBACK_STARTED
    status = UpdateStatus(
        state=UpdateState.ROLLBACK_COMPLETED if back else UpdateState.COMPLETED,
        started_at=status.started_at,
        completed_at=snap.now,
        message="rollback completed" if back else "update completed",
    )
    return Plan(
        changes=[Change(service, replace(service, update_status=status))], why=f"{service.name}: {status.message}"
    )
