"""How far a service has come, judged from what the API says of it and its tasks."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import Any

import msgspec

Json = dict[str, Any]

_ENDED = ("complete", "failed", "rejected", "shutdown", "orphaned", "remove")
_HOPELESS = ": it failed ("  # of a dependency: what waits for it will never start
_STOPPED = ("paused", "rollback_paused")


class Stage(StrEnum):
    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"


class Look(msgspec.Struct, frozen=True):
    """`text` says how many of how many; `why` what keeps the others."""

    name: str
    stage: Stage
    text: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.text}" + (f" ({self.why})" if self.why else "")


def judge(service: Json, tasks: Iterable[Json], current: Collection[str], *, changed: bool) -> Look:
    """`current`: ids of tasks that are up to date. `changed`: this deployment has created or changed the service."""
    name, mode = str(service["Spec"]["Name"]), service["Spec"].get("Mode") or {}
    of_it = [task for task in tasks if task.get("ServiceID") == service["ID"]]
    update = service.get("UpdateStatus") or {}
    state = str(update.get("State") or "")
    why = _why(of_it)
    if state in _STOPPED or (changed and state == "rollback_completed"):
        last = _last_failure(of_it)
        words = update.get("Message") or state
        return Look(name, Stage.FAILED, f"{words}: {last}" if last else words)
    if "ReplicatedJob" in mode or "GlobalJob" in mode:
        return _job(name, service, of_it, why)
    mine = [task for task in of_it if task["ID"] in current]
    old = [task for task in of_it if task["ID"] not in current and _wanted(task)]
    slots = _slots(mine)
    want = (mode.get("Replicated") or {}).get("Replicas", 1) if "Global" not in mode else len(slots)
    good = sum(any(_runs(t) for t in here) or _through(here) for here in slots.values())
    dead = [here for here in slots.values() if _given_up(here)]
    text = f"{good}/{want} running"
    if state in ("updating", "rollback_started"):
        words = "rolling back" if state == "rollback_started" else "updating"
        return Look(name, Stage.WAITING, f"{words}, {text}", why)
    if dead:
        return Look(name, Stage.FAILED, text, _last_failure(dead[0]) or "it ended")
    if _HOPELESS in why:
        return Look(name, Stage.FAILED, text, why)
    surplus = len([here for here in slots.values() if any(_wanted(t) for t in here)]) > want
    if good == want and not old and not surplus and (want or "Global" not in mode):
        return Look(name, Stage.DONE, text)
    return Look(name, Stage.WAITING, text, why)


def _job(name: str, service: Json, tasks: list[Json], why: str) -> Look:
    iteration = ((service.get("JobStatus") or {}).get("JobIteration") or {}).get("Index", 0)
    of_it = [task for task in tasks if (task.get("JobIteration") or {}).get("Index", 0) == iteration]
    slots = _slots(of_it)
    replicated = service["Spec"]["Mode"].get("ReplicatedJob")
    want = len(slots) if replicated is None else replicated.get("TotalCompletions", replicated.get("MaxConcurrent", 1))
    good = sum(any(_state(t) == "complete" for t in here) for here in slots.values())
    text = f"{good}/{want} completed"
    if good >= want and (want or replicated is not None):
        return Look(name, Stage.DONE, text)
    dead = [here for here in slots.values() if _given_up(here)]
    if dead or _HOPELESS in why:
        return Look(name, Stage.FAILED, text, (_last_failure(dead[0]) if dead else "") or why)
    return Look(name, Stage.WAITING, text, why)


def _slots(tasks: Iterable[Json]) -> dict[object, list[Json]]:
    """By slot, the newest task of each last."""
    found: dict[object, list[Json]] = {}
    for task in sorted(tasks, key=lambda t: str(t.get("CreatedAt"))):
        found.setdefault(task.get("Slot") or task.get("NodeID"), []).append(task)
    return found


def _state(task: Json) -> str:
    return str((task.get("Status") or {}).get("State") or "new")


def _err(task: Json) -> str:
    return str((task.get("Status") or {}).get("Err") or "")


def _wanted(task: Json) -> bool:
    return task.get("DesiredState") in ("ready", "running", "complete")


def _runs(task: Json) -> bool:
    return _state(task) == "running" and _wanted(task)


def _through(here: list[Json]) -> bool:
    """Whether the last task of a slot has done its work, and is not followed by another."""
    return _state(here[-1]) == "complete" and not _wanted(here[-1])


def _given_up(here: list[Json]) -> bool:
    """Whether the last task of a slot has failed, and is not followed by another."""
    return _state(here[-1]) in ("failed", "rejected") and not _wanted(here[-1])


def _why(tasks: Iterable[Json]) -> str:
    """Why a task does not get on; else why the last one that should have run has ended."""
    alive = [task for task in tasks if _wanted(task) and _state(task) not in (*_ENDED, "running")]
    waiting = next((_err(task) for task in alive if _err(task)), "")
    return waiting or (_last_failure(tasks) if alive else "")


def _last_failure(tasks: Iterable[Json]) -> str:
    failed = [task for task in tasks if _state(task) in ("failed", "rejected")]
    return _err(max(failed, key=lambda t: str(t.get("CreatedAt")))) if failed else ""
