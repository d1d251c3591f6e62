"""Generic resources: what an operator says a host has, as the GPUs of `node-generic-resources`, by name or by number.

A task that asks for two of a kind gets two of the node's names, or two of its number. Names cannot be asked for by
command lines, but by the API.
"""

from __future__ import annotations

from afterswarm.core.schedule.room import Room, counts_of, names_of, reserved
from afterswarm.model.service import GenericResource
from afterswarm.model.task import Task


def given(task: Task, room: Room) -> list[GenericResource] | None:
    """What the task gets of the node's; `None`: the node has not all that it wants."""
    wants = task.spec.resources.reservations if task.spec.resources else None
    if wants is None or not wants.generic_resources:
        return []
    names, counts = names_of(wants.generic_resources), counts_of(wants.generic_resources)
    found: list[GenericResource] = []
    for kind in dict.fromkeys(kind for kind, _ in (*names, *counts)):
        part = _of_kind(task, room, kind, [n for k, n in names if k == kind], sum(c for k, c in counts if k == kind))
        if part is None:
            return None
        found += part
    return found


def _of_kind(task: Task, room: Room, kind: str, asked: list[str], count: int) -> list[GenericResource] | None:
    # What a task in the same slot holds that has to stop will be free before this one starts.
    leaving = room.leaving.get((task.service_id, task.slot), ())
    held = room.named[kind] - {n for t in leaving for k, n in names_of(t.generic_resources) if k == kind}
    there = [n for k, n in names_of(room.resources.generic_resources) if k == kind]
    free = [n for n in there if n not in held]
    if not set(asked) <= set(free):
        return None
    if there:
        taken = asked + [n for n in free if n not in asked][:count]
        named = [GenericResource(named_resource_spec={"Kind": kind, "Value": name}) for name in taken]
        return named if len(taken) == len(asked) + count else None
    has = sum(c for k, c in counts_of(room.resources.generic_resources) if k == kind)
    used = room.used[f"generic/{kind}"] - sum(reserved(t).get(f"generic/{kind}", 0) for t in leaving)
    if count > has - used:
        return None
    return [GenericResource(discrete_resource_spec={"Kind": kind, "Value": count})] if count else []
