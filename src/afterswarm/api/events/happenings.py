"""What a change of the swarm's objects is called in `docker events`: type, action, actor and what is new about it.

Names of attributes as Docker's daemon/events.go has them (20.10 and later).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from afterswarm.api import lookup
from afterswarm.model.base import Change, Obj
from afterswarm.model.network import Network
from afterswarm.model.node import Leader, Node, NodeState, Role
from afterswarm.model.secret import Config, Secret
from afterswarm.model.service import Service
from afterswarm.model.snapshot import Snapshot
from afterswarm.ports import Json

TYPES: dict[type[Obj], str] = {
    Config: "config",
    Network: "network",
    Node: "node",
    Secret: "secret",
    Service: "service",
}


def of(change: Change, snap: Snapshot) -> Iterator[Json]:
    """The events that a change makes. `snap` is the swarm after it."""
    obj = change.obj
    if isinstance(obj, Leader):
        yield from _leader(change, snap)
        return
    kind = TYPES.get(type(obj))
    action = _action(change)
    if kind is None or action is None:
        return
    attributes = {"name": _name(obj, snap)}
    if action == "update":
        attributes |= _news(change.old, change.new)
    yield event(kind, action, obj.id, attributes, snap.now if change.new is None else change.new.updated or snap.now)


def event(kind: str, action: str, actor: str, attributes: dict[str, str], when: float) -> Json:
    return {
        "Type": kind,
        "Action": action,
        "Actor": {"ID": actor, "Attributes": attributes},
        "scope": "swarm",
        "time": int(when),
        "timeNano": round(when * 1_000_000) * 1000,
    }


def _action(change: Change) -> str | None:
    """Services and networks that wait to be deleted are gone as far as users know."""
    before = change.old is not None and not getattr(change.old, "pending_delete", False)
    after = change.new is not None and not getattr(change.new, "pending_delete", False)
    match before, after:
        case True, True:
            return "update"
        case True, False:
            return "remove"
        case False, True:
            return "create"
        case _:
            return None


def _name(obj: Any, snap: Snapshot) -> str:
    return lookup.hostname(snap, obj) if isinstance(obj, Node) else str(obj.name)


def _news(old: Obj | None, new: Obj | None) -> dict[str, str]:
    match old, new:
        case Node(), Node():
            return _node(old, new)
        case Service(), Service():
            return _service(old, new)
        case _:
            return {}


def _node(old: Node, new: Node) -> dict[str, str]:
    words = {
        **_moved("availability", old.spec.availability.value, new.spec.availability.value),
        **_moved("role", old.role.value, new.role.value),
        **_moved("state", old.state.value, new.state.value),
    }
    if old.role == new.role == Role.MANAGER:
        words |= _moved("reachability", _reachability(old.state), _reachability(new.state))
    return words


def _reachability(state: NodeState) -> str:
    return {NodeState.READY: "reachable", NodeState.UNKNOWN: "unknown"}.get(state, "unreachable")


def _service(old: Service, new: Service) -> dict[str, str]:
    return {
        **_changed("image", old, new, lambda s: s.spec.task_template.container_spec, lambda c: c.image),
        **_changed("replicas", old, new, lambda s: s.spec.mode.replicated, lambda r: r.replicas),
        **_update_state(old, new),
    }


def _update_state(old: Service, new: Service) -> dict[str, str]:
    if new.update_status is None:
        return {}
    if old.update_status is None:
        return {"updatestate.new": new.update_status.state.value}
    return _moved("updatestate", old.update_status.state.value, new.update_status.state.value)


def _changed(
    word: str, old: Service, new: Service, part: Callable[[Service], Any], value: Callable[[Any], Any]
) -> dict[str, str]:
    before, after = part(old), part(new)
    return _moved(word, str(value(before)), str(value(after))) if before and after else {}


def _moved(word: str, old: str, new: str) -> dict[str, str]:
    return {} if old == new else {f"{word}.old": old, f"{word}.new": new}


def _leader(change: Change, snap: Snapshot) -> Iterator[Json]:
    """A new leader is news of two nodes."""
    old = change.old.node_id if isinstance(change.old, Leader) else ""
    new = change.new.node_id if isinstance(change.new, Leader) else ""
    if not old or not new or old == new:
        return
    for node_id, was, now in ((old, "true", "false"), (new, "false", "true")):
        node = snap.nodes.get(node_id)
        if node:
            attributes = {"name": lookup.hostname(snap, node), "leader.old": was, "leader.new": now}
            yield event("node", "update", node_id, attributes, snap.now)
