"""Which object a client means: full id, then exact name, then the beginning of an id. Docker's order and words.

A name may belong to several objects (two hosts with one hostname): that is an error, not a choice of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from afterswarm.model.base import Obj
from afterswarm.model.network import Network
from afterswarm.model.node import Node
from afterswarm.model.refused import Refused
from afterswarm.model.secret import Config, Secret
from afterswarm.model.service import Service
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.task import Task
from afterswarm.model.volume import ClusterVolume

O = TypeVar("O", bound=Obj)  # noqa: E741


def find(word: str, term: str, objects: Iterable[O], name: Callable[[O], str]) -> O:
    """The one object that `term` names; 404 for none, 400 for several."""
    known = list(objects)
    for matches in (
        [o for o in known if o.id == term],
        [o for o in known if name(o) == term],
        [o for o in known if term and o.id.startswith(term)],
    ):
        if len(matches) > 1:
            raise Refused(400, f"{word} {term} is ambiguous ({len(matches)} matches found)")
        if matches:
            return matches[0]
    raise Refused(404, f"{word} {term} not found")


def service(snap: Snapshot, term: str) -> Service:
    return find("service", term, services(snap), lambda s: s.name)


def services(snap: Snapshot) -> Iterable[Service]:
    """The services that users see: those being removed are gone already."""
    return (s for s in _by_id(snap.services) if not s.pending_delete)


def node(snap: Snapshot, term: str, *, me: str = "") -> Node:
    """`me` is the node that the client means by "self"."""
    return find("node", me if term == "self" and me else term, _by_id(snap.nodes), lambda n: hostname(snap, n))


def hostname(snap: Snapshot, node: Node) -> str:
    """What users call the node: its given name, else its hostname."""
    report = snap.node_reports.get(node.id)
    return node.spec.name or (report.description.hostname if report else "")


def task(snap: Snapshot, term: str) -> Task:
    return find("task", term, _by_id(snap.tasks), lambda t: task_name(snap, t))


def task_name(snap: Snapshot, task: Task) -> str:
    """`web.1.<id>`, or `web.<node id>.<id>` of a global service."""
    owner = snap.services.get(task.service_id)
    return f"{owner.name if owner else task.service_id}.{task.place}.{task.id}"


def secret(snap: Snapshot, term: str) -> Secret:
    return find("secret", term, _by_id(snap.secrets), lambda s: s.name)


def config(snap: Snapshot, term: str) -> Config:
    return find("config", term, _by_id(snap.configs), lambda c: c.name)


def networks(snap: Snapshot) -> Iterable[Network]:
    """The networks that users see: those being removed are gone already."""
    return (n for n in _by_id(snap.networks) if not n.pending_delete)


def network(snap: Snapshot, term: str) -> Network:
    return find("network", term, networks(snap), lambda n: n.name)


def network_exactly(snap: Snapshot, term: str) -> Network | None:
    """The network of this id or name, not of the beginning of an id: the engine may know such a name."""
    return next((n for n in networks(snap) if term in (n.id, n.name)), None)


def _by_id(objects: Mapping[str, O]) -> list[O]:
    return [objects[key] for key in sorted(objects)]


def cluster_volume(snap: Snapshot, term: str) -> ClusterVolume:
    return find("volume", term, _by_id(snap.cluster_volumes), lambda v: v.name)
