"""Which of the nodes that can run a task is best.

In this order: not one where this version keeps failing; where the task's data lies; the emptiest branch of each
placement preference; fewest tasks of this service; fewest tasks in total; most left unreserved; lowest node id. The
last but two are what users of Swarm ask for: it looks at copies and tasks alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from afterswarm.core.schedule.room import Room
from afterswarm.model.service import Placement
from afterswarm.model.task import Task

MAX_FAILURES = 5  # within `room.FAILED_LATELY`, then the node is the last choice
_NODE_LABEL = "node.labels."
_ENGINE_LABEL = "engine.labels."

Branch = tuple[str, ...]


def by_worth(task: Task, rooms: Sequence[Room], placement: Placement, strangeness: dict[str, int]) -> list[Room]:
    """The rooms, best first. `strangeness`: node id -> how little it fits the task's volumes."""
    descriptors = [p.spread.spread_descriptor for p in placement.preferences if p.spread]
    copies: Counter[Branch] = Counter()
    branches: dict[str, list[Branch]] = {}
    if descriptors:
        for room in rooms:
            branches[room.node.id] = branch = list(_branches(room, descriptors))
            for part in branch:
                copies[part] += room.copies[task.service_id] - room.in_slot[task.service_id, task.slot]

    def others(room: Room) -> int:
        """Copies, but for one that this task takes over from: updates leave a service as spread as it was."""
        return room.copies[task.service_id] - room.in_slot[task.service_id, task.slot]

    def worth(room: Room) -> tuple[int, int, list[int], int, int, float, str]:
        node_id = room.node.id
        failures = room.failures[task.service_id, task.spec_version] if room.failures else 0
        return (
            failures if failures >= MAX_FAILURES else 0,
            strangeness.get(node_id, 0),
            [copies[part] for part in branches.get(node_id, ())],
            others(room),
            room.tasks,
            -room.free_share,
            node_id,
        )

    return sorted(rooms, key=worth)


def _branches(room: Room, descriptors: list[str]) -> Iterable[Branch]:
    """The node's place in the tree of preferences: its value of the first, of the first two, …"""
    path: Branch = ()
    for descriptor in descriptors:
        path = (*path, _value(room, descriptor))
        yield path


def _value(room: Room, descriptor: str) -> str:
    """A label that is not there, like a descriptor that is not understood, has the value ""."""
    lower = descriptor.lower()
    if lower.startswith(_NODE_LABEL):
        return room.node.spec.labels.get(descriptor[len(_NODE_LABEL) :], "")
    if lower.startswith(_ENGINE_LABEL) and room.report:
        return room.report.description.engine.labels.get(descriptor[len(_ENGINE_LABEL) :], "")
    return ""
